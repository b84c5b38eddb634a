"""A model's graph and the values of its tensors on a frame, the same for every format: what the ladder of parity walks through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import Frame
from targets.runtimes.base import RuntimeOptions

Values = dict[str, NDArray[Any]]
"""Tensor -> float32 values in the layout of the format; 8-bit tensors in the real values they stand for."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation that depends on the frame."""

    index: int
    """Its place in the order of execution, from 0; what "Add #31" means."""
    name: str
    kind: str
    """As the format spells it: `Resize`, `Interpolate`, `RESIZE_BILINEAR`."""
    inputs: tuple[str, ...]
    """Tensors that depend on the frame; constants are left out."""
    outputs: tuple[str, ...]
    detail: str = ""
    """What of its settings a reader wants to know: `in coordinate mode half_pixel`."""

    @property
    def words(self) -> str:
        """`Resize #12 'node_Resize_12' in coordinate mode half_pixel`."""
        return f"{self.kind} #{self.index} '{self.name}'" + (f" {self.detail}" if self.detail else "")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """All operations that depend on the frame, in order of execution."""

    ops: tuple[Op, ...]
    settled: Mapping[str, str] = field(default_factory=dict)
    """Tensor -> the tensor that holds it after its quantization, which is what its consumers read; itself where it is held in 8 bits."""

    @cached_property
    def consumers(self) -> dict[str, tuple[Op, ...]]:
        """The operations that read each tensor."""
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            for name in op.inputs:
                found.setdefault(name, []).append(op)
        return {name: tuple(ops) for name, ops in found.items()}


class Observer(Protocol):
    """Looks into bundles of one format, of any precision."""

    format: str

    def graph(self, bundle: Bundle) -> Graph:
        """Read the graph of the file.

        Raises:
            BundleError, RuntimeFailure: the file is no model of this format.
        """
        ...

    def values(self, bundle: Bundle, options: RuntimeOptions, frame_HWC: Frame) -> Values:
        """Run one frame at model size and give every float (or 8-bit) tensor that depends on it.

        To see a tensor is to keep the runtime from fusing what lies around it; the arithmetic is that of `options`.

        Raises:
            RuntimeFailure: the runtime failed.
        """
        ...


def real(values: Any) -> NDArray[Any]:  # noqa: ANN401 - an SDK's array
    """A float32 array of its own."""
    return np.array(values, dtype=np.float32)
