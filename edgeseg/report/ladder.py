"""What a report knows of the rescue ladder of one format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

RUNG_NAMES: Final = {
    "post_training": "calibration", "mixed": "layers kept float", "qat": "fine-tuned for int8",
    "qat and mixed": "fine-tuned, layers kept float",
}


@dataclass(frozen=True, kw_only=True)
class TrialFacts:
    """One thing that was tried. What was not judged by labels has no losses."""

    label: str
    miou_drop: float | None
    worst_drop: float | None
    agreement: float | None


@dataclass(frozen=True, kw_only=True)
class RungFacts:
    """One rung: its best and all that was tried on it."""

    name: str
    best: str
    kept: bool
    """This is what the bundle holds."""
    reached: bool
    miou: float | None
    miou_drop: float | None
    miou_drop_high: float | None
    """Bad end of its 95 % interval."""
    worst_class: str
    worst_drop: float | None
    agreement: float | None
    size_bytes: int
    float_macs_share: float
    """Of the layers that could be 8 bit."""
    float_layers: tuple[str, ...]
    groups: tuple[tuple[tuple[str, ...], float, bool], ...]
    """Neighbouring layers made float alone: their names, by how much the cost fell (1 = the goals), whether any was kept float."""
    tried: tuple[TrialFacts, ...]


@dataclass(frozen=True, kw_only=True)
class LadderFacts:
    """How int8 of one format was made."""

    bundle: str
    num_frames: int
    """Training frames held back, on which all of this was measured."""
    goals: Mapping[str, float]
    reached: bool
    rungs: tuple[RungFacts, ...]
    advice: str
    """What to do where the goals are missed; empty = they are reached."""
    undecided: bool = False
    """Not reached, and not missed: too few frames."""
    also_calibrates: bool = False
    """The frames are those that it was calibrated on."""


def ladder_facts(bundle: str, ladder: Mapping[str, Any], advice: str) -> LadderFacts:
    """Read the `ladder` of a manifest's scheme."""
    return LadderFacts(
        bundle=bundle, num_frames=ladder["judged_on"]["num_frames"], reached=ladder["reached"],
        goals={name: limit for name, limit in ladder["goals"].items() if limit is not None},
        rungs=tuple(_rung(rung) for rung in ladder["rungs"]), advice=advice,
        undecided=any(rung["kept"] and rung.get("verdict") == "not decided" for rung in ladder["rungs"]),
        also_calibrates=ladder["judged_on"].get("also_calibrates", False),
    )


def _rung(rung: Mapping[str, Any]) -> RungFacts:
    return RungFacts(
        name=RUNG_NAMES[rung["rung"]], best=rung["best"], kept=rung["kept"], reached=rung["reached"], miou=rung.get("miou"),
        miou_drop=rung.get("miou_drop"), miou_drop_high=rung.get("miou_drop_high"),
        worst_class=rung.get("worst_class", ""), worst_drop=rung.get("worst_class_drop"),
        agreement=rung.get("agreement"), size_bytes=rung["size_bytes"], float_macs_share=rung["float_macs_share"],
        float_layers=tuple(rung["float_layers"]),
        groups=tuple((tuple(part["layers"]), part["gain"], part["float"]) for part in rung.get("layers", ())),
        tried=tuple(
            TrialFacts(label=trial["tried"], miou_drop=trial.get("miou_drop"), worst_drop=trial.get("worst_class_drop"),
                       agreement=trial.get("agreement"))
            for trial in rung["tried"]
        ),
    )
