"""What a runtime was seen to execute, layer by layer, and the share of multiply-accumulates that is int8.

A file that is called int8 says nothing about this: a runtime may lack a kernel, may undo the quantization for a layer, or may have been
given a file whose layers are float. So the executed graph is read back from the runtime, never guessed from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypedDict

from edgeseg.core.bundle import Bundle
from targets.runtimes.base import RuntimeOptions

INT8: Final = "int8"
HEAD_NAMES: Final = ("/exporters.head.", "__module.head/")
"""In the names that TFLite and OpenVINO keep of what the decision head multiplies."""


@dataclass(frozen=True, kw_only=True)
class ExecutedLayer:
    """A layer of the file's graph that multiplies by constants, and how it was executed."""

    name: str
    """As the file calls it."""
    kind: str
    """`convolution`, `depthwise`, `transposed`, `linear`, or `product` (a constant matrix, as the decision head's enlarging has them)."""
    precision: str
    """`int8`, `f32`, `bf16` or `f16`; `not visible` where the runtime does not tell."""
    macs: int
    """Multiply-accumulates a frame; 0 where the layer's size is not known, and then it is `not visible`."""
    reason: str = ""
    """Why it is not int8, or what makes its int8 slow; empty where there is nothing to say."""


@dataclass(frozen=True, kw_only=True)
class ExecutedPrecision:
    """What a runtime executes of one bundle."""

    layers: tuple[ExecutedLayer, ...]
    """The network's own layers, in order of execution."""
    head: tuple[ExecutedLayer, ...] = ()
    """What the decision head multiplies: not the network's, so not in the share."""
    source: str
    """Where this was read."""

    @property
    def share_int8(self) -> float | None:
        """Share of the network's MACs executed in int8; `None` where the runtime does not show its layers."""
        total = sum(layer.macs for layer in self.layers)
        if not total or any(layer.precision == NOT_VISIBLE for layer in self.layers):
            return None
        return sum(layer.macs for layer in self.layers if layer.precision == INT8) / total

    def share_of(self, layer: ExecutedLayer) -> float:
        """A layer's share of the network's MACs."""
        return layer.macs / max(1, sum(one.macs for one in self.layers))

    def to_json(self) -> dict[str, Any]:
        """Give the share, the layers that are not int8 with their shares, and all layers."""
        total = sum(layer.macs for layer in self.layers)
        return {
            "share_int8": self.share_int8, "source": self.source, "macs": total, "macs_head": sum(layer.macs for layer in self.head),
            "not_int8": [{**asdict(layer), "share": self.share_of(layer)} for layer in self.layers if layer.precision != INT8],
            "layers": [asdict(layer) for layer in self.layers], "head": [asdict(layer) for layer in self.head],
        }


class LayerFacts(TypedDict):
    """`ExecutedLayer` as JSON."""

    name: str
    kind: str
    precision: str
    macs: int
    reason: str


class FloatLayerFacts(LayerFacts):
    """One that is not int8."""

    share: float


class GainFacts(TypedDict):
    """See `targets.executed.gains.without_gain`."""

    kind: str
    share: float
    gain: float
    version: str


class _Facts(TypedDict):
    share_int8: float | None
    source: str
    macs: int
    macs_head: int
    not_int8: list[FloatLayerFacts]
    layers: list[LayerFacts]
    head: list[LayerFacts]


class ExecutedFacts(_Facts, total=False):
    """What `targets.executed.executed_facts` gives."""

    without_gain: list[GainFacts]


NOT_VISIBLE: Final = "not visible"

Reader = Callable[[Bundle, RuntimeOptions], ExecutedPrecision]
"""Opens the bundle with these options in its runtime and reads back what is executed."""


def split_head(layers: Sequence[ExecutedLayer], task: str) -> tuple[tuple[ExecutedLayer, ...], tuple[ExecutedLayer, ...]]:
    """The network's layers and the decision head's: products that carry its name, or come after the last convolution.

    A convolution is the network's whatever it is called: converters fold the head's scale into the class layer and name it after both.
    """
    convolutions = [index for index, layer in enumerate(layers) if layer.kind in ("convolution", "depthwise", "transposed")]
    last = convolutions[-1] if convolutions else len(layers)
    head = {
        index for index, layer in enumerate(layers)
        if task == "semantic" and layer.kind in ("product", "linear") and (index > last or _is_head(layer.name))
    }
    own = tuple(layer for index, layer in enumerate(layers) if index not in head)
    return own, tuple(layer for index, layer in enumerate(layers) if index in head)


def _is_head(name: str) -> bool:
    """Whether all parts of a (perhaps fused) name are the head's."""
    return all(any(head in part for head in HEAD_NAMES) for part in name.split(";;"))


def why_not_int8(bundle: Bundle, name: str, precision: str, *, int8_in_file: bool, near: str = "") -> str:
    """Say in words why a layer is not executed in int8.

    Args:
        bundle: what was opened.
        name: the layer.
        precision: how it is executed.
        int8_in_file: the file holds its weights in 8 bits.
        near: what stands beside it in the executed graph, where that explains it.
    """
    scheme: Mapping[str, Any] = bundle.manifest.scheme
    if int8_in_file:
        return f"int8 in the file, and the runtime chose {precision}" + (f": {near}" if near else "")
    if bundle.manifest.precision in ("fp32", "fp16"):
        return f"the bundle is {bundle.manifest.precision}"
    if name in _ladder_floats(scheme):
        return "mixed: kept float by the rescue ladder"
    reason = scheme.get("float_reason")
    return f"kept float by the quantizer ({reason})" if isinstance(reason, str) else "float in the file"


def _ladder_floats(scheme: Mapping[str, Any]) -> frozenset[str]:
    """Names of layers that a mixed bundle's manifest lists as float."""
    listed = scheme.get("float_layers", ())
    return frozenset(str(name) for name in listed) if isinstance(listed, (list, tuple)) else frozenset()
