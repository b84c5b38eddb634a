"""The tensors of every rung on one frame: class scores where a graph holds them, and the operation at which a rung parts from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import ClassMap, Frame
from edgeseg.workflow.parity.torch_rung import TorchRung
from targets.boards import Plan
from targets.executed import executed
from targets.executed.base import NOT_VISIBLE
from targets.parity import FLOAT_DB, INT8_DB, OBSERVERS, Blame, Values, by_name, by_value
from targets.parity.compare import aligned, cosine, sqnr_db, without_scale

_REDUCED: Final = ("int8", "mixed")
_LIKE: Final = 0.5
"""Least cosine to torch's class scores for a tensor to be taken for them."""


@dataclass(frozen=True)
class Rung:
    """A rung with its answers."""

    name: str
    precision: str
    """A key of `parity_results.LIMITS`."""
    how: str
    bundle: Bundle | None
    """`None` = torch."""
    plan: Plan | None
    maps: list[ClassMap]
    elsewhere: str = ""
    """Name of the device that answered; empty = this machine, where tensors can be looked at."""


class Seen:
    """Looks at tensors when they are asked for, and keeps them."""

    def __init__(self, climbed: list[Rung], frame: Frame, torch: TorchRung | None) -> None:
        self._climbed, self._frame, self._torch = climbed, frame, torch
        self._values: dict[int, Values] = {}

    def values(self, index: int) -> Values:
        """Tensors of a rung that is a bundle."""
        rung = self._climbed[index]
        assert rung.bundle is not None
        assert rung.plan is not None
        if index not in self._values:
            self._values[index] = OBSERVERS[rung.bundle.manifest.format].values(rung.bundle, rung.plan.options, self._frame)
        return self._values[index]

    def logits(self, index: int) -> tuple[float | None, float | None]:
        """SQNR and cosine of class scores against the rung below, as far as graphs hold tensors that are the scores."""
        if self._torch is None or not self._known(index):
            return None, None
        scores = self._torch.scores(self._frame)
        below = scores if self._climbed[index - 1].bundle is None else self._scores(index - 1, scores)
        mine = self._scores(index, scores)
        if below is None or mine is None:
            return None, None
        turns = list(aligned(below, mine))
        if not turns:
            return None, None
        angles = [cosine(one, mine) for one in turns]
        turned = turns[angles.index(max(angles))]
        mine = without_scale(turned, mine)
        return sqnr_db(turned, mine), cosine(turned, mine)

    def _scores(self, index: int, scores: NDArray[Any]) -> NDArray[Any] | None:
        """The tensor of a graph that is most like torch's class scores; `None` where none is like them at all."""
        best, found = _LIKE, None
        for values in self.values(index).values():
            for turned in aligned(scores, values):
                alike = cosine(turned, values)
                if alike > best:
                    best, found = alike, without_scale(turned, values)
        return found

    def _known(self, index: int) -> bool:
        return all(
            one.bundle is None or (one.bundle.manifest.format in OBSERVERS and not one.elsewhere)
            for one in self._climbed[index - 1 : index + 1]
        )

    def blame(self, index: int) -> Blame | None:
        """The operation at which a rung parts from the one below."""
        rung, below = self._climbed[index], self._climbed[index - 1]
        assert rung.bundle is not None
        assert rung.plan is not None
        if not self._known(index):
            return None
        observer = OBSERVERS[rung.bundle.manifest.format]
        graph, values = observer.graph(rung.bundle), self.values(index)
        cause = self._chosen(rung)
        if below.bundle is not None and below.bundle.manifest.format == rung.bundle.manifest.format:
            limit = INT8_DB if rung.precision in _REDUCED else FLOAT_DB
            return by_name(observer.graph(below.bundle), self.values(index - 1), graph, values, limit_db=limit, cause=cause)
        if self._torch is not None:
            reference = self._torch.tensors(self._frame, rung.bundle.manifest.format)
        else:
            reference = list(self.values(index - 1).items())
        limit = INT8_DB if rung.precision in _REDUCED else FLOAT_DB  # of an int8 file whose fp32 parent is missing
        return by_value(reference, graph, values, limit_db=limit, cause=cause)

    def _chosen(self, rung: Rung) -> str:
        """`bf16 chosen by the runtime`, where it computes a float rung in other bits than f32."""
        assert rung.bundle is not None
        assert rung.plan is not None
        if rung.precision in _REDUCED:
            return ""
        found = executed(rung.bundle, rung.plan.runtime, rung.plan.options)
        others = sorted({layer.precision for layer in found.layers} - {"f32", NOT_VISIBLE}) if found is not None else []
        return f"{', '.join(others)} chosen by the runtime" if others else ""
