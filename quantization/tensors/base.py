"""What is looked at in a float graph of any format: its activations on frames, and its layers with weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError
from edgeseg.core.images import Frame

Activations = dict[str, NDArray[Any]]
"""Tensor name -> float32 values of one frame, in the layout of the format."""


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """One operation that multiplies by trained weights."""

    name: str
    """As `Int8Plan.float_layers` wants it."""
    kind: str
    """`convolution`, `depthwise`, `transposed` or `linear`."""
    inputs: tuple[str, ...]
    """Activation tensors that enter it."""
    outputs: tuple[str, ...]
    """Activation tensors it gives."""
    macs: int
    """Multiply-accumulates a frame."""
    weight_shape: tuple[int, ...]


class Tensors(Protocol):
    """Looks into the float graphs of one format."""

    format: str
    channels_first: bool
    """Whether maps are NCHW, as the format's own operations have them; else NHWC."""

    def observe(self, bundle: Bundle, frames: Sequence[Frame], names: Collection[str] | None = None) -> Iterator[Activations]:
        """Give the float activations of each frame: all, or those in `names`.

        Constants, the frame itself and what is computed from constants alone are no activations.

        Raises:
            ConfigError: the bundle is not of this format, or `names` has a tensor that its graph has not.
        """
        ...

    def layers(self, bundle: Bundle) -> tuple[LayerFacts, ...]:
        """Give the operations with weights, in the order of the graph.

        Raises:
            ConfigError: the bundle is not of this format.
        """
        ...


def check_format(bundle: Bundle, format: str) -> None:
    """Refuse a bundle of another format."""
    if bundle.manifest.format != format:
        raise ConfigError(f"{bundle.folder} is an {bundle.manifest.format} bundle; this reads {format}")


def choose_names(known: Sequence[str], names: Collection[str] | None) -> list[str]:
    """Those of `known` that are asked for, in the order of the graph."""
    if names is None:
        return list(known)
    missing = sorted(set(names) - set(known))
    if missing:
        raise ConfigError(f"the graph has no float tensor {missing[0]!r}; names are those of the float bundle's own graph")
    return [name for name in known if name in names]


def convolution_macs(output_shape: Sequence[int], weight_shape: Sequence[int], *, outputs: int) -> int:
    """MACs of a convolution: each of its values is a sum over the weights of one output channel."""
    return prod(output_shape) * prod(weight_shape) // outputs


def as_float32(values: Any) -> NDArray[Any]:  # noqa: ANN401 - an SDK's array
    """A float32 array of its own."""
    return np.array(values, dtype=np.float32)
