"""What a source of trained models is: a file kind that is opened, settled on one input and one output, run, and given the contract.

The three stages are three narrow Protocols. `Source` knows a file kind, `Opened` what the file declares, `Settled` the model with
one input of a fixed shape and one output: it answers as the original does, in the original's own runtime, and it is written as a
bundle's model.

Legend: N = 1, H/W = rows/columns at model size, C = channels or classes, h/w = rows/columns of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.manifest import Contract

PROBABILITY_OPS: Final = frozenset({"sigmoid", "logistic", "softmax", "hardsigmoid", "hard_sigmoid"})
"""Operations, in lower case, after which a score is a probability."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or an output as the file declares it."""

    name: str
    dtype: str
    """As numpy spells it: `float32`, `uint8`, `int64`, ..."""
    shape: tuple[int | None, ...] | None
    """`None` for an axis that is left open, or for everything where not even the number of axes is given."""
    aliases: tuple[str, ...] = ()
    """Other names by which the file knows it."""

    def __str__(self) -> str:
        axes = "?" if self.shape is None else ", ".join("?" if axis is None else str(axis) for axis in self.shape)
        return f"'{self.name}' ({self.dtype} [{axes}])"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How frames become the model's input and its output becomes a class map; everything is decided."""

    input: Port
    layout: str
    """`NCHW` or `NHWC`."""
    order: str
    """Channels the model takes: `rgb`, `bgr`, or `gray` (one, the luma of ITU-R BT.601)."""
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    """The model's channel c takes (value - mean[c]) / scale[c] of 0..255; both empty where it takes uint8 frames as they are."""
    output: Port
    output_layout: str
    """`NCHW`, `NHWC` or `NHW`."""
    answers: str
    """`scores`, or `classes` where the model itself decides."""
    probabilities: bool
    """The scores are probabilities, not logits; matters for a threshold."""
    num_classes: int
    contract: Contract


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a settled model before it is run."""

    output: Port
    """With a static shape."""
    last_op: str
    """Operation that made the scores, in lower case, layout changes and resizing left out; "" where the file does not tell."""
    quantized: bool
    """It holds 8-bit weights or quantization steps already."""
    runtime: str
    """What runs the original here, with its version."""
    remarks: tuple[str, ...] = ()
    """Sentences the user should hear."""


class Settled(Protocol):
    """A model with one input of static shape and one output."""

    @property
    def facts(self) -> Facts:
        """See `Facts`."""
        ...

    def run(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """Answer as the original does: input and output as it declares them.

        Raises:
            RuntimeFailure: its runtime failed.
        """
        ...

    def write(self, format: str, reading: Reading, workdir: Path) -> ModelFiles:
        """Write the model with the contract around it, inside the graph, as `format`, into `workdir`.

        Raises:
            RuntimeFailure: a converter failed; its own error is the cause.
            MissingExtraError: it is not installed.
        """
        ...


class Opened(Protocol):
    """A file that was read."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it gives."""
        ...

    def settle(self, input: Port, output: Port, shape: tuple[int, ...]) -> Settled:
        """Fix the input's shape and cut off all other outputs.

        Raises:
            ConfigError: the model does not work at this shape, or holds what a bundle cannot.
            RuntimeFailure: its runtime failed.
        """
        ...


class Source(Protocol):
    """A kind of file that holds a trained model."""

    @property
    def formats(self) -> Mapping[str, str]:
        """Format -> "" where it can become that, else the reason in words why it cannot. The first that can is the default."""
        ...

    def claims(self, path: Path) -> bool:
        """Say whether `path` looks like this kind, from names alone."""
        ...

    def beside(self, path: Path) -> tuple[Path, ...]:
        """Files beside `path`, each once, that hold weights of the model, which `open` has read."""
        ...

    def open(self, path: Path) -> Opened:
        """Read the file.

        Raises:
            InputMissingError: damaged, or not what its name says.
            ConfigError: it holds what no bundle can (state between frames, strings, ...).
            MissingExtraError: what reads it is not installed; names the extra.
        """
        ...
