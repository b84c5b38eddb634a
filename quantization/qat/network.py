"""A network that rounds where its int8 bundles do: weights, and every value that an operation computes and another one reads.

Networks are plain Python: sums and concatenations are no modules, and not every tracer takes every network. So the network runs as it is,
under a mode that sees each torch function called. Values are numbered in the order they are computed, which does not change from
frame to frame; a value is rounded when it is first read, but for an activation, which int8 kernels apply before they round.

What stays float is found as the quantizers of ONNX and TFLite find it (`quantization.base.FLOAT_REASON`): all from the class layers on,
those included. OpenVINO's class layers are int8 (`quantization.quantize_openvino.FLOAT_REASON`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from edgeseg.core.errors import ConfigError
from quantization.qat.fake import LEVELS, fake_activations, fake_weights, grid

_WEIGHTED: Final = {"conv2d": 0, "conv_transpose2d": 1, "linear": 0}
"""Functions that multiply by trained weights, and the axis of the weights' output channels."""
_FUSED: Final = frozenset({"relu", "relu_", "relu6", "hardtanh", "batch_norm"})
"""Applied by int8 kernels to the sum before it is rounded."""
_KEEPS: Final = frozenset({
    "max_pool2d", "pad", "__getitem__", "dropout", "reshape", "view", "flatten", "unflatten", "permute", "transpose", "contiguous",
    "squeeze", "unsqueeze", "expand", "detach", "clone", "chunk", "split", "to", "float",
})
"""Give values they were given (and zeros), so what is rounded stays so."""
_LOOKS: Final = frozenset({"__get__", "size", "dim", "numel", "ndimension", "stride", "is_floating_point", "is_contiguous", "__len__"})
"""Ask for no value."""


@dataclass(frozen=True)
class Value:
    """What one operation computes."""

    name: str
    """Of the layer where there is one, else the function with the value's number."""
    function: str
    sources: tuple[int, ...]
    """Numbers of the values it was computed from."""


@dataclass
class _Known:
    """What is known of a tensor while the network runs."""

    number: int
    rounded: Tensor | None = None
    """The same after rounding; itself where it needs none."""


Watch = Callable[[int, Tensor], None]
"""(slot, values before rounding): called for each value that would be rounded, and for what only rearranges it."""


class FakeQuantized(nn.Module):
    """A folded network with rounded weights and activations; to be trained as any other, and copied freely.

    Ranges are learnt as factors of what `settle` found, exp(0) = 1 to begin with: their ends keep their sign, and an end at 0 stays there.

    Args:
        net: as `edgeseg.models.fold` gives it; taken over, not copied. Norms that are left in it keep their statistics.
        example_NCHW: one frame, to number the values with.

    Raises:
        ConfigError: nothing in it would be rounded.
    """

    low: Tensor
    high: Tensor

    def __init__(self, net: nn.Module, example_NCHW: Tensor) -> None:
        super().__init__()
        self.net = net.requires_grad_(True)
        self.values: tuple[Value, ...] = ()
        self.slots: dict[int, int] = {}
        """Number of a value -> its place among the ranges."""
        self.floats: frozenset[int] = frozenset()
        """Numbers of the values that stay float."""
        self.watch: Watch | None = None
        """While it is set nothing is rounded."""
        self._trace(example_NCHW)
        if not self.slots:
            raise ConfigError("the network has no layer between its input and its class layers that int8 could round; leave it float")
        self.register_buffer("low", torch.zeros(len(self.slots)))
        self.register_buffer("high", torch.ones(len(self.slots)))
        self.log_low = nn.Parameter(torch.zeros(len(self.slots)))
        self.log_high = nn.Parameter(torch.zeros(len(self.slots)))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Class scores, as the network's own."""
        with _Rounding(self):
            scores: Tensor = self.net(x_NCHW)
        return scores

    def train(self, mode: bool = True) -> FakeQuantized:
        """Switch to training, but for norms: their statistics are what the bundle has."""
        super().train(mode)
        for module in self.net.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def grids(self) -> tuple[Tensor, Tensor]:
        """Scales and zero points of all slots, with gradients for the ranges."""
        return grid(self.low * self.log_low.exp(), self.high * self.log_high.exp())

    @torch.no_grad()
    def ranges(self) -> list[tuple[float, float]]:
        """(low, high) of each slot, moved so that 0 is one of the 256 values: what a bundle's quantizer has to be given."""
        scale_K, zero_K = self.grids()
        zero_K = zero_K.round()
        return list(zip((-zero_K * scale_K).tolist(), ((LEVELS - zero_K) * scale_K).tolist(), strict=True))

    def slot_names(self) -> list[str]:
        """Name of each slot's value, in order."""
        return [self.values[number].name for number in self.slots]

    @torch.no_grad()
    def _trace(self, example_NCHW: Tensor) -> None:
        self.net.eval()
        layers = {id(parameter): name.rpartition(".")[0] for name, parameter in self.net.named_parameters()}
        with _Rounding(self, layers) as found:
            scores = self.net(example_NCHW)
        self.values, answer = tuple(found.values), found.known.get(scores)
        pending, floats = [] if answer is None else [answer.number], set()
        while pending:
            number = pending.pop()
            if number not in floats:
                floats.add(number)
                pending += [] if self.values[number].function in _WEIGHTED else self.values[number].sources
        self.floats = frozenset(floats)
        self.slots = {number: slot for slot, number in enumerate(n for n in found.read if n not in floats)}


class _Rounding(TorchFunctionMode):
    """One run of the network. With `layers` (parameter's id -> layer) values are only numbered."""

    def __init__(self, owner: FakeQuantized, layers: dict[int, str] | None = None) -> None:
        super().__init__()
        self.owner, self.layers = owner, layers
        self.count = 0
        self.known: Any = WeakIdKeyDictionary()
        self.values: list[Value] = []
        self.read: list[int] = []
        self.grids = None if layers is not None or owner.watch is not None else owner.grids()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's own
        """Run one function with what it reads rounded, and number what it gives."""
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in _LOOKS:
            return func(*args, **kwargs)
        sources: list[int] = []
        read = self._note if name in _FUSED else self._rounded
        args, kwargs = tree_map(lambda x: read(x, sources) if isinstance(x, Tensor) else x, (args, kwargs))
        layer = ""
        if name in _WEIGHTED:
            weight = kwargs["weight"] if "weight" in kwargs else args[1]
            layer = (self.layers or {}).get(id(weight), "")
            if self.grids is not None and self.count not in self.owner.floats:
                weight = fake_weights(weight, axis=_WEIGHTED[name])
                args, kwargs = (args, {**kwargs, "weight": weight}) if "weight" in kwargs else ((args[0], weight, *args[2:]), kwargs)
        result = func(*args, **kwargs)
        if name in _KEEPS:
            tree_map(lambda x: self._kept(x, sources) if isinstance(x, Tensor) else x, result)
        elif isinstance(result, Tensor) and result.is_floating_point() and (sources or name in _WEIGHTED):
            self._number(result, name, tuple(sources), layer)
        return result

    def _note(self, x: Tensor, sources: list[int]) -> Tensor:
        if x in self.known:
            sources.append(self.known[x].number)
        return x

    def _rounded(self, x: Tensor, sources: list[int]) -> Tensor:
        known = self.known.get(x)
        if known is None:
            return x
        sources.append(known.number)
        if known.rounded is None:
            known.rounded = self._round(known.number, x)
        rounded: Tensor = known.rounded
        return rounded

    def _round(self, number: int, x: Tensor) -> Tensor:
        if self.layers is not None:
            self.read.append(number)
            return x
        slot = self.owner.slots.get(number)
        if slot is None:
            return x
        if self.grids is None:
            assert self.owner.watch is not None
            self.owner.watch(slot, x)
            return x
        scale_K, zero_K = self.grids
        return fake_activations(x, scale_K[slot : slot + 1], zero_K[slot : slot + 1])

    def _kept(self, x: Tensor, sources: list[int]) -> None:
        if not sources or not x.is_floating_point():
            return
        if x not in self.known and self.owner.watch is not None and sources[0] in self.owner.slots:
            self.owner.watch(self.owner.slots[sources[0]], x)
        self.known[x] = _Known(sources[0], rounded=x)

    def _number(self, x: Tensor, function: str, sources: tuple[int, ...], layer: str) -> None:
        number, self.count = self.count, self.count + 1
        if self.layers is not None:
            behind = next((self.values[s].name for s in sources), "") if function in _FUSED else ""
            self.values.append(Value(layer or behind or f"{function}:{number}", function, sources))
        elif number >= len(self.owner.values) or self.owner.values[number].function != function:
            height, width = x.shape[2:] if x.ndim == 4 else (0, 0)
            raise ConfigError(f"the network computes otherwise at another size ({function} to {height}x{width} is its value {number}), so "
                              "ranges cannot be told apart; set [train] crop = [0, 0]")
        self.known[x] = _Known(number)
