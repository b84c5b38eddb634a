"""Verify: accuracy at frame size, agreement at model size, drops only against what was measured on the same frames."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import brightness_step, tiny_bundle, tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.config import GoalsSection
from edgeseg.core.errors import BundleError, DataError
from edgeseg.core.images import ClassMap, Frame
from edgeseg.core.manifest import Reference
from edgeseg.core.metrics import score
from edgeseg.core.stats import Interval
from targets.judging import POINT, Finding, judge, judge_speed
from targets.runtimes import RuntimeOptions, Session, open_session
from targets.verify import GOLDEN_AGREEMENT, VerifyResult, check_golden, verify

REFERENCE = Reference(dataset="tiny", dataset_sha256="d" * 64, split="test", num_frames=2, miou=0.9, iou=(1.0, 0.8, None))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path, "null", reference=REFERENCE)


@pytest.fixture
def session(bundle: Bundle) -> Session:
    return open_session(bundle, "null", RuntimeOptions())


def two_classes(seed: int) -> tuple[str, Frame, ClassMap]:
    """A frame whose answer holds classes 0 and 1 only, and the right label."""
    frame = tiny_frame(seed) // 2
    return f"frame {seed}", frame, np.minimum(brightness_step(frame), 1)


def test_perfect_answers(bundle: Bundle, session: Session) -> None:
    labelled = [two_classes(1), two_classes(2)]
    result = verify(session, bundle, labelled, reference_maps=[label for _, _, label in labelled])
    assert (result.miou, result.agreement, result.golden_agreement, result.num_frames) == (1.0, 1.0, 1.0, 2)
    assert result.iou == result.dice == result.boundary_f1 == (1.0, 1.0, None)
    assert (result.mean_dice, result.mean_boundary_f1) == (1.0, 1.0)
    assert result.not_evaluated == ("blue",)
    assert result.reference_miou == 0.9
    assert result.miou_drop == pytest.approx(-0.1)
    assert result.class_drop == (0.0, pytest.approx(-0.2), None)
    assert result.worst_class_drop == 0.0
    assert result.confusions_NCC.shape == (2, 3, 3)
    said = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert said["iou"] == {"red": 1.0, "green": 1.0, "blue": None}
    assert said["not_evaluated"] == ["blue"]


def test_wrong_pixels_are_counted_where_they_are(bundle: Bundle, session: Session) -> None:
    name, frame, label = two_classes(1)
    wrong = label.copy()
    wrong[:6] = 1 - wrong[:6]  # a quarter of the label
    ignored = wrong.copy()
    ignored[0] = 255
    result = verify(session, bundle, [(name, frame, wrong), (name, frame, ignored)], reference_maps=[label, wrong])
    assert result.frames[0].agreement == 1.0
    assert result.frames[1].agreement == pytest.approx(0.75)
    assert result.agreement == pytest.approx(0.875)
    right, total = 18 + 18, 24 + 23
    assert result.pixel_accuracy == pytest.approx(right / total)
    first, second = result.frames[0].miou, result.frames[1].miou
    assert first is not None
    assert second is not None
    assert first < second < 1


def test_frames_of_any_size_are_judged_at_their_own(bundle: Bundle, session: Session) -> None:
    frame = np.repeat(np.repeat(two_classes(3)[1], 2, axis=0), 2, axis=1)
    large_label = np.zeros((48, 64), dtype=np.uint8)
    result = verify(session, bundle, [("large", frame, large_label)])
    assert int(result.confusions_NCC.sum()) == 48 * 64
    assert result.agreement is None


@pytest.mark.parametrize("elsewhere", [
    {"dataset_sha256": "e" * 64}, {"split": "val"}, {"frames": 1},
], ids=["another data set", "another split", "fewer frames"])
def test_no_drop_against_other_frames(bundle: Bundle, session: Session, elsewhere: dict[str, object]) -> None:
    labelled = [two_classes(1), two_classes(2)][: int(str(elsewhere.pop("frames", 2)))]
    result = verify(session, bundle, labelled, **elsewhere)  # type: ignore[arg-type]
    assert result.reference_miou is None
    assert result.miou_drop is None
    assert result.class_drop == (None, None, None)
    assert result.worst_class_drop is None
    same = verify(session, bundle, [two_classes(1), two_classes(2)], dataset_sha256="d" * 64, split="test")
    assert same.miou_drop is not None


def test_tiles_have_one_reference_each(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "null", resize="tile")
    session = open_session(bundle, "null", RuntimeOptions())
    frame = tiny_frame(4, height=24, width=64) // 2
    label = np.minimum(brightness_step(frame), 1)
    result = verify(session, bundle, [("wide", frame, label)], reference_maps=[[label[:, :32], label[:, 32:]]])
    assert (result.miou, result.agreement) == (1.0, 1.0)
    with pytest.raises(DataError, match="make them with the same contract"):
        verify(session, bundle, [("wide", frame, label)], reference_maps=[label])


def test_what_cannot_be_evaluated_is_refused(bundle: Bundle, session: Session) -> None:
    name, frame, label = two_classes(1)
    with pytest.raises(DataError, match="no labelled frames"):
        verify(session, bundle, [])
    with pytest.raises(DataError, match="no labelled pixel"):
        verify(session, bundle, [(name, frame, np.full_like(label, 255))])
    with pytest.raises(DataError, match="frame 1: class index 3 outside"):
        verify(session, bundle, [(name, frame, np.full_like(label, 3))])
    with pytest.raises(DataError, match="frame 1: no reference answer"):
        verify(session, bundle, [(name, frame, label)], reference_maps=[])


def test_a_class_the_manifest_does_not_have_is_refused(bundle: Bundle, session: Session) -> None:
    short = Bundle(bundle.folder, replace(bundle.manifest, classes=("a", "b"), palette=bundle.manifest.palette[:2], reference=None))
    with pytest.raises(BundleError, match=r"answered class 2 .* has 2 classes"):
        verify(session, short, [("bright", tiny_frame(5), np.zeros((24, 32), dtype=np.uint8))])


def test_golden_frames_of_a_bundle_that_changed_its_mind(tmp_path: Path, bundle: Bundle, session: Session) -> None:
    assert check_golden(bundle, session) == 1.0
    other = tiny_bundle(tmp_path / "other", "tflite")  # other golden answers, same frame
    assert check_golden(other, session) < 0.7
    with pytest.raises(BundleError, match="no golden frames"):
        check_golden(Bundle(bundle.folder, replace(bundle.manifest, golden=())), session)


def result_with(bundle: Bundle, session: Session, **values: object) -> VerifyResult:
    whole = verify(session, bundle, [two_classes(1), two_classes(2)])
    return replace(whole, **values)  # type: ignore[arg-type]


def test_judge(bundle: Bundle, session: Session) -> None:
    goals = GoalsSection(agreement=0.999, miou=0.5, miou_drop=0.01, class_drop=0.03)
    half = Interval(value=0.5, low=0.5, high=0.6, num_frames=2)
    good = result_with(bundle, session, agreement=0.999, miou=0.5, miou_drop=0.01, worst_class_drop=0.03)
    good = replace(good, intervals=replace(good.intervals, miou=half))
    assert [f.goal for f in judge(good, goals)] == ["golden", "agreement", "miou", "miou_drop", "class_drop"]
    assert all(f.passed for f in judge(good, goals))
    bad = replace(good, agreement=0.9989, miou=0.4999, miou_drop=0.0101, worst_class_drop=0.0301, golden_agreement=0.99)
    bad = replace(bad, intervals=replace(bad.intervals, miou=replace(half, low=0.4999)))
    assert not any(f.passed for f in judge(bad, goals))
    assert [f.goal for f in judge(replace(bad, precision="int8"), goals)] == ["golden", "miou", "miou_drop", "class_drop"]
    assert judge(good, GoalsSection()) == (Finding(goal="golden", limit=GOLDEN_AGREEMENT, got=1.0, passed=True),)


def test_what_was_not_evaluated_does_not_pass(bundle: Bundle, session: Session) -> None:
    unknown = result_with(bundle, session, agreement=None, miou_drop=None, worst_class_drop=None)
    findings = judge(unknown, GoalsSection(agreement=0.0, miou_drop=1.0, class_drop=1.0))
    assert [(f.got, f.passed) for f in findings[1:]] == [(None, False)] * 3


def with_mistakes(confusions_NCC: NDArray[np.int64], shares: tuple[float, ...]) -> NDArray[np.int64]:
    """A reference that is better: moves a share of each frame's wrong pixels of class 1 to where they belong."""
    better = confusions_NCC.copy()
    for n, share in enumerate(shares):
        moved = int(share * better[n, 1, 0])
        better[n, 1, 0] -= moved
        better[n, 1, 1] += moved
    return better


def test_drops_are_judged_by_the_bad_side_of_their_interval(tmp_path: Path) -> None:
    labelled = []
    for seed in range(12):
        name, frame, label = two_classes(seed)
        wrong = label.copy()
        wrong[::3] = 1
        labelled.append((name, frame, wrong))
    bundle = tiny_bundle(tmp_path, "null")
    after = verify(open_session(bundle, "null", RuntimeOptions()), bundle, labelled)
    before_NCC = with_mistakes(after.confusions_NCC, tuple(0.02 * (1 + seed % 3) for seed in range(12)))
    was = score(before_NCC.sum(axis=0))
    reference = replace(REFERENCE, num_frames=12, miou=was.miou, iou=was.iou)
    bundle = tiny_bundle(tmp_path / "with reference", "null", reference=reference)
    result = verify(open_session(bundle, "null", RuntimeOptions()), bundle, labelled, reference_NCC=before_NCC)
    drop, worst = result.intervals.miou_drop, result.intervals.class_drop[1]
    assert drop is not None and drop.low is not None and drop.high is not None and worst is not None and worst.high is not None
    assert result.miou_drop == pytest.approx(drop.value)
    assert 0 < drop.low < drop.value < drop.high
    json.dumps(result.to_json(), allow_nan=False)

    def found(**goals: float) -> Finding:
        return judge(result, GoalsSection(**goals))[-1]

    kept, open_, missed = found(miou_drop=drop.high), found(miou_drop=(drop.value + drop.high) / 2), found(miou_drop=drop.low / 2)
    assert (kept.passed, kept.undecided, kept.more_frames) == (True, False, None)
    assert (open_.passed, open_.undecided) == (False, True)
    assert open_.more_frames is not None and open_.more_frames > 0
    assert (missed.passed, missed.undecided) == (False, False)
    assert open_.got == pytest.approx(drop.value)  # what is shown is what was measured
    assert (found(miou=result.miou).undecided, found(miou=result.miou / 2).passed, found(miou=1.0).passed) == (True, True, False)
    assert found(class_drop=worst.high).passed
    assert found(class_drop=worst.value).undecided


def test_a_reference_of_other_labels_is_refused(bundle: Bundle, session: Session) -> None:
    labelled = [two_classes(1), two_classes(2)]
    own = verify(session, bundle, labelled).confusions_NCC
    with pytest.raises(DataError, match="other labels"):
        verify(session, bundle, labelled, reference_NCC=own[::-1])


def test_without_the_float_networks_frames_the_drop_is_judged_as_measured_and_says_so(bundle: Bundle, session: Session) -> None:
    result = verify(session, bundle, [two_classes(1), two_classes(2)])
    assert result.intervals.miou_drop is None
    finding = judge(result, GoalsSection(miou_drop=0.01))[-1]
    assert (finding.passed, finding.low, finding.about) == (True, None, POINT)


def test_judge_speed() -> None:
    goals = GoalsSection(p90_ms=10, fps=50, size_mb=2)
    assert all(f.passed for f in judge_speed(p90_ms=10, fps=50, size_bytes=2_000_000, goals=goals))
    assert not any(f.passed for f in judge_speed(p90_ms=10.1, fps=49.9, size_bytes=2_000_001, goals=goals))
    assert judge_speed(p90_ms=1, fps=1, size_bytes=1, goals=GoalsSection()) == ()
