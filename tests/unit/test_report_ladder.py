"""The table of rungs: what was kept, what it lost, and what to do where the goals are missed; no name of a layer becomes markup."""

from __future__ import annotations

from typing import Any

import pytest

from edgeseg.report.ladder import RUNG_NAMES, ladder_facts
from edgeseg.report.page_ladder import ladder_section
from edgeseg.workflow.compress.climbing import RUNGS
from edgeseg.workflow.compress.ladder_words import kept_lines, unmet_words


def ladder(*, reached: bool = True) -> dict[str, Any]:
    """A ladder as a manifest holds it."""
    common = {"worst_class": "pole", "worst_class_drop": 0.031, "agreement": 0.98, "miou": 0.6, "size_bytes": 1_500_000}
    low = {"rung": "post_training", "best": "min-max", "miou_drop": 0.02, "miou_drop_high": 0.027, "reached": False, "kept": False,
           "float_layers": [], "float_macs_share": 0.0, "tried": [{"tried": "min-max", "size_bytes": 1, "miou_drop": 0.02}], **common}
    high = {"rung": "mixed", "best": "min-max, 2 float layers", "miou_drop": 0.004, "miou_drop_high": 0.0065, "reached": reached,
            "kept": True, "float_layers": ["stem/<b>", "block/1"], "float_macs_share": 0.0353, "tried": [],
            "layers": [{"layers": ["stem/<b>", "block/1"], "gain": 1.25, "float": True}], **common}
    return {"judged_on": {"num_frames": 48}, "goals": {"miou_drop": 0.005, "class_drop": None}, "last_rung": "mixed", "reached": reached,
            "rungs": [low, high]}


def page(found: dict[str, Any]) -> str:
    return str(ladder_section([ladder_facts("run-onnx-mixed", found, "" if found["reached"] else unmet_words(found))]))


def test_every_rung_and_what_was_kept() -> None:
    text = page(ladder())
    for part in ("run-onnx-mixed", "48 frames", "miou_drop 0.005", "min-max, 2 float layers", "+0.40", "+0.65", "3.5"):
        assert part in text
    assert text.count("kept</span>") == 1
    assert "stem/&lt;b&gt;" in text and "<b>," not in text
    assert "Not reached" not in text
    assert "1 tried" in text


def test_a_goal_that_is_missed_says_what_to_type() -> None:
    text = page(ladder(reached=False))
    assert "Not reached: " in text and "quantize.rescue=qat" in text
    lines = kept_lines("onnx", ladder(reached=False))
    said = "onnx: mixed (min-max, 2 float layers): +0.40 points of mIoU lost on training frames held back (at most +0.65)"
    assert lines[0].startswith(said)
    assert "2 layers float (4% of the MACs)" in lines[0]
    assert "miou_drop 0.005 is missed" in lines[1]


@pytest.mark.parametrize(("last", "goals", "wanted"), [
    ("post_training", {"miou_drop": 0.01, "class_drop": 0.03}, "miou_drop 0.01 and class_drop 0.03 is missed"),
    ("qat", {"miou_drop": 0.01, "class_drop": None}, "cannot be met in int8 here"),
    ("post_training", {"miou_drop": None, "class_drop": None}, "no goal says how much it may be"),
])
def test_words_where_the_ladder_ends(last: str, goals: dict[str, float | None], wanted: str) -> None:
    assert wanted in unmet_words({**ladder(reached=False), "last_rung": last, "goals": goals})


def test_without_labels_agreement_is_said_and_without_a_ladder_nothing() -> None:
    rung = {"rung": "post_training", "best": "entropy", "agreement": 0.991, "reached": True, "kept": True, "float_layers": [],
            "float_macs_share": 0.0, "size_bytes": 10, "tried": []}
    assert kept_lines("tflite", {**ladder(), "rungs": [rung]}) == [
        "tflite: post-training (entropy): 99.10% of the answers as in float on frames held back",
    ]
    alone = {**ladder(), "rungs": [rung], "reached": False, "of_one_bundle": True}
    assert "without class maps that are labelled" in unmet_words(alone)
    of_objects = unmet_words({**alone, "of_one_bundle": False})  # a run has labels: what is judged by agreement finds objects
    assert of_objects.endswith("of its objects differ from float; what that costs in AP is measured against labels when it is verified")
    assert "a run fine-tunes its own network" in unmet_words({**ladder(reached=False), "of_one_bundle": True})
    assert kept_lines("tflite", {}) == []
    assert "No int8 was made" in str(ladder_section([]))


def test_every_rung_has_a_name_for_people() -> None:
    assert set(RUNGS) - {"off"} <= set(RUNG_NAMES)


def test_what_is_not_decided_is_neither_missed_nor_a_reason_to_train() -> None:
    found = ladder(reached=False)
    found["rungs"][1]["verdict"] = "not decided"
    words = unmet_words(found)
    assert words.startswith("miou_drop 0.005 is kept as measured, and not decided on 48 training frames")
    assert "qat" not in words and "missed" not in words
    assert "Not decided: " in page(found) and "Not reached: " not in page(found)
    nothing_asked = unmet_words({**found, "goals": {"miou_drop": None, "class_drop": None}})
    assert nothing_asked.startswith("a point of mIoU is kept as measured, and not decided on 48")
    assert "more than a point" not in nothing_asked


def test_frames_that_calibrate_too_are_not_called_held_back() -> None:
    found = {**ladder(), "judged_on": {"num_frames": 5, "also_calibrates": True}}
    (line,) = kept_lines("onnx", found)
    assert "mIoU lost on the training frames it was calibrated on" in line and "held back (" not in line
    assert "5 frames, the ones that calibrate" in page(found)
    found = ladder()
    found["rungs"][1]["rung"] = "qat"
    assert "held back from calibration, not from fine-tuning" in kept_lines("onnx", found)[0]


def test_a_rung_that_was_not_possible_has_a_row() -> None:
    found = ladder(reached=False)
    found["rungs"].append({"rung": "qat", "best": "not possible: why", "not_possible": "why", "size_bytes": 0, "reached": False,
                           "verdict": "missed", "kept": False, "float_layers": [], "float_macs_share": 0.0, "tried": []})
    assert "not possible: why" in page(found)
    assert kept_lines("onnx", found)[1] == "onnx: fine-tuning for int8 is not possible: why"
