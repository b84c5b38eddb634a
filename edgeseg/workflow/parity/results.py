"""What the parity ladder found, rung by rung, and how it is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgeseg.report.words import no_operation
from targets.parity import FLOAT_DB, INT8_DB, Blame


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Below this a rung has fallen off."""

    agreement: float
    """Share of pixels as on the rung below."""
    sqnr_db: float
    """Of the class scores, against the rung below."""


LIMITS: Final = {
    "fp32": Limit(agreement=0.999, sqnr_db=FLOAT_DB),
    "fp16": Limit(agreement=0.995, sqnr_db=40.0),
    "f16": Limit(agreement=0.995, sqnr_db=40.0),
    "bf16": Limit(agreement=0.995, sqnr_db=30.0),
    "int8": Limit(agreement=0.97, sqnr_db=INT8_DB),
    "mixed": Limit(agreement=0.97, sqnr_db=INT8_DB),
}
"""By what a rung computes with: a bundle's precision, or the arithmetic it was run in. Converters and runtimes agree to 0.9999 and better
where nothing is wrong; int8 of the networks here keeps 0.976 to 0.99 of the pixels at 20 dB and more."""


@dataclass(frozen=True, kw_only=True)
class RungResult:
    """One rung against the one below and the lowest. Fractions in 0..1."""

    name: str
    how: str
    """What executed it: runtime, threads, arithmetic."""
    compared_with: str
    """The rung below; empty for the lowest."""
    logit_sqnr_db: float | None
    """Class scores against the rung below; `None` where the graph has no tensor that is the scores."""
    logit_cosine: float | None
    agreement: float | None
    """Share of pixels as on the rung below."""
    agreement_with_lowest: float | None
    boundary_agreement: float | None
    """Boundary F1 of its class map against the rung below (`edgeseg.core.metrics.boundary_f1`)."""
    class_iou: dict[str, float | None]
    """IoU of each class against the rung below's class map."""
    miou_labels: float | None
    """mIoU against labels, where there are labels."""
    fallen: tuple[str, ...]
    """The measures below their limit."""
    blame: Blame | None
    elsewhere: str = ""
    """Name of the device that answered; empty = this machine."""

    def to_json(self) -> dict[str, Any]:
        """Give all fields."""
        return {**asdict(self), "fallen": list(self.fallen), "blame": None if self.blame is None else self.blame.to_json()}


def ladder_lines(results: Sequence[RungResult], notes: Sequence[str]) -> list[str]:
    """The ladder for a person: a line a rung, one more for a rung that fell."""
    lines = []
    for one in results:
        if not one.compared_with:
            lines.append(f"{one.name} ({one.how})" + _labels(one))
            continue
        logits = "scores not seen" if one.logit_sqnr_db is None else f"scores {one.logit_sqnr_db:.1f} dB, cosine {one.logit_cosine:.5f}"
        outlines = "" if one.boundary_agreement is None else f", outlines {one.boundary_agreement:.4f}"
        worst = min(((iou, name) for name, iou in one.class_iou.items() if iou is not None), default=None)
        low = "" if worst is None else f", worst class {worst[1]} IoU {worst[0]:.4f}"
        lines.append(f"{one.name} ({one.how}): {one.agreement:.4%} of pixels as {one.compared_with}{outlines}{low}, {logits}{_labels(one)}")
        if one.fallen:
            lines.append(f"  FELL OFF: {', '.join(one.fallen)}")
            lines.append(f"  first to diverge: {one.blame.words if one.blame else no_operation(one.elsewhere)}")
    return [*lines, *(f"note: {note}" for note in notes)]


def _labels(one: RungResult) -> str:
    return "" if one.miou_labels is None else f", mIoU on labels {one.miou_labels:.4f}"
