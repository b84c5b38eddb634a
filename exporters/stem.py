"""Fold the normalisation into the first convolution (or several alike that all read the frame), exactly, borders included.

Normalisation is (v - mean) / std per channel, and a convolution is linear, so its weights take 1 / std and its bias the mean.
What makes this inexact in general is the convolution's zero padding, which stands for the mean. So the raw frame is padded
first, with the mean itself: `MEAN_RGB` are whole numbers, so this is exact and happens in uint8, where it costs next to nothing.
No per-channel arithmetic is left (it cost ONNX Runtime's int8 model 2.1 of 5 ms at 192x256), and int8 takes the frame as it is,
with scale 1: no rounding at all.

Legend: N = frames, H/W = rows/columns, P/Q = the same with borders.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models import MEAN_RGB, STD_RGB, normalise
from edgeseg.models.encoders.base import SamePadConv2d

_TOLERANCE = 1e-4
"""Largest difference of scores, relative to the largest score, that float rounding may explain."""


class PaddedFrame(nn.Module):
    """[N, H, W, 3] of raw values 0..255, as uint8 or floats -> float32 [N, 3, P, Q], with borders of the mean colour."""

    def __init__(self, frame_hw: tuple[int, int], borders: tuple[int, int, int, int]) -> None:
        super().__init__()
        height, width = frame_hw
        top, bottom, left, right = borders
        mean = torch.tensor(MEAN_RGB)
        for name, rows, columns in (("left", height, left), ("right", height, right),
                                    ("top", top, left + width + right), ("bottom", bottom, left + width + right)):
            self.register_buffer(name, mean.view(1, 1, 1, 3).expand(1, rows, columns, 3).contiguous())

    def forward(self, frame_NHWC: Tensor) -> Tensor:
        """Pad, then give floats in the layout networks take."""
        for axis, before, after in ((2, "left", "right"), (1, "top", "bottom")):
            # held as floats: LiteRT's converter has no uint8 constants
            parts = [getattr(self, before).to(frame_NHWC.dtype), frame_NHWC, getattr(self, after).to(frame_NHWC.dtype)]
            parts = [part for part in parts if part.shape[axis]]
            frame_NHWC = torch.cat(parts, dim=axis) if len(parts) > 1 else frame_NHWC
        return frame_NHWC.permute(0, 3, 1, 2).to(torch.float32)


def fold_normalisation(net: nn.Module, example_NHWC: Tensor) -> PaddedFrame | None:
    """Change `net`'s first convolutions to take raw frames, and give the module that feeds them; `None` = not possible, net unchanged.

    Possible where the normalised frame enters zero-padded convolutions of one geometry and nothing else. That is found by running
    the network, and proven by running it again: the scores must agree.
    """
    with torch.no_grad():
        x_NCHW = normalise(example_NHWC)
        expected, consumers = _consumers(net, x_NCHW)
        if len({_geometry(conv) for conv in consumers}) != 1 or any(float(m) != round(m) for m in MEAN_RGB):
            return None
        first = consumers[0]
        if first.padding_mode != "zeros" or isinstance(first.padding, str) or first.groups != 1:
            return None
        if any(_is_shared(net, conv) for conv in consumers):
            return None
        frame_hw = (int(x_NCHW.shape[2]), int(x_NCHW.shape[3]))
        rows, columns = (_borders(size, first, axis) for axis, size in enumerate(frame_hw))
        stem = PaddedFrame(frame_hw, (*rows, *columns))
        before = [(conv, conv.weight, conv.bias, conv.padding) for conv in consumers]
        for conv in consumers:
            _take_raw(conv)
        try:
            got = net(stem(example_NHWC))
            same = got.shape == expected.shape and float((got - expected).abs().max()) <= _TOLERANCE * float(expected.abs().max())
        except RuntimeError:  # the network also asks the frame for its size
            same = False
        if same:
            return stem
        for conv, weight, bias, padding in before:
            conv.weight, conv.bias, conv.padding = weight, bias, padding
        return None


def _geometry(conv: nn.Conv2d) -> tuple[object, ...]:
    return conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode


def _take_raw(conv: nn.Conv2d) -> None:
    """Change weights and bias so that raw values 0..255 give what normalised ones gave; the border is the stem's from now on."""
    scale, mean = 1.0 / torch.tensor(STD_RGB, dtype=torch.float64), torch.tensor(MEAN_RGB, dtype=torch.float64)
    weight = conv.weight.double() * scale.view(1, 3, 1, 1)
    bias = -(weight * mean.view(1, 3, 1, 1)).sum((1, 2, 3)) + (0 if conv.bias is None else conv.bias.double())
    conv.weight, conv.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
    conv.padding = (0, 0)


def _consumers(net: nn.Module, x_NCHW: Tensor) -> tuple[Tensor, list[nn.Conv2d]]:
    """Run `net`; give its scores and the convolutions that read `x_NCHW` itself."""
    consumers: list[nn.Conv2d] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0] is x_NCHW and isinstance(module, nn.Conv2d):
            consumers.append(module)

    hooks = [module.register_forward_pre_hook(look) for module in net.modules() if isinstance(module, nn.Conv2d)]
    try:
        return net(x_NCHW), consumers
    finally:
        for hook in hooks:
            hook.remove()


def _is_shared(net: nn.Module, conv: nn.Conv2d) -> bool:
    return sum(parameter is conv.weight for module in net.modules() for parameter in module._parameters.values()) > 1


def _borders(size: int, conv: nn.Conv2d, axis: int) -> tuple[int, int]:
    """Border before and after that the convolution really reads (a stride may leave the last border out)."""
    if isinstance(conv, SamePadConv2d):
        return conv.borders(size, axis)
    before = int(conv.padding[axis])
    reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
    count = (size + 2 * before - reach - 1) // conv.stride[axis] + 1
    return before, max(0, (count - 1) * conv.stride[axis] + reach + 1 - size - before)
