"""What an encoder is, and the layers that several of them share.

State-dict keys are the reference implementation's (torchvision's, where it has the network), so that files made by it load as they
are. That fixes the names of modules: a convolution and its norm are siblings, listed in `folds`, and not one `ConvBnAct`.

Legend: N = frames, C = channels, H/W = rows/columns of the frame, h/w = rows/columns of a feature map.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.blocks import size_of


class Encoder(nn.Module):
    """Normalised frames [N, 3, H, W] in; one feature map a stride out, finest first.

    The map at stride s has ceil(H / s) x ceil(W / s) cells at any size, so a decoder brings coarse maps up with
    `edgeseg.models.blocks.enlarge`. Every encoder ends at stride 32.
    """

    channels: tuple[int, ...]
    """Channels of each map."""
    strides: tuple[int, ...]
    """Stride of each map: powers of two, each twice the one before."""
    head_keys: tuple[str, ...] = ("fc.", "classifier.")
    """Beginnings of the reference's keys that an encoder has no use for: its classifier and what serves only that."""
    maps_before_pooling: bool = False
    """Whether each map but the last is what the network max-pools next (VGG); FCN scores the pooled maps."""

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """Feature maps [N, channels[i], ceil(H / strides[i]), ceil(W / strides[i])]."""
        raise NotImplementedError


class StagedEncoder(Encoder):
    """An encoder that is one row of layers; each map is the last one at its stride."""

    def __init__(self, features: nn.Sequential, ends: dict[int, tuple[int, int]]) -> None:
        """`ends` = stride -> (index in `features` of the layer that gives the map, its channels)."""
        super().__init__()
        self.features = features
        self.strides = tuple(sorted(ends))
        self.ends = tuple(ends[stride][0] for stride in self.strides)
        self.channels = tuple(ends[stride][1] for stride in self.strides)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """See `Encoder.forward`."""
        maps: list[Tensor] = []
        x = x_NCHW
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.ends:
                maps.append(x)
        return maps


class ConvNorm(nn.Sequential):
    """Convolution `0` without bias, batch norm `1`, activation `2` where there is one: torchvision's Conv2dNormActivation."""

    folds = (("0", "1"),)

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1, dilation: int = 1, groups: int = 1,
                 act: Callable[[], nn.Module] | None = None, eps: float = 1e-5) -> None:
        padding = dilation * (kernel - 1) // 2
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False),
            nn.BatchNorm2d(out_channels, eps=eps),
        ]
        super().__init__(*layers, *([] if act is None else [act()]))


class SamePadConv2d(nn.Conv2d):
    """Convolution without bias, padded as TensorFlow does: ceil(n / stride) cells, the odd zero of a border after, not before.

    At stride 2 an even side gets zeros only at its end, so weights that TensorFlow trained sit half a step off under symmetric padding.
    The border depends on the frame's size, which is static in every graph. Written as padding before a convolution, which ONNX Runtime,
    OpenVINO and XNNPACK all merge into the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        # The padding given here only says that there is one; `borders` says which. Exporters that pad the frame themselves set it to 0.
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2, 1, groups, bias=False)

    def borders(self, size: int, axis: int) -> tuple[int, int]:
        """Zeros before and after `size` cells."""
        stride, kernel = self.stride[axis], self.kernel_size[axis]
        total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        return total // 2, total - total // 2

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / stride), ceil(w / stride)]."""
        if self.padding != (0, 0):
            height, width = size_of(x_NChw)
            x_NChw = F.pad(x_NChw, (*self.borders(width, 1), *self.borders(height, 0)))
        return F.conv2d(x_NChw, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def max_pool_3(x_NChw: Tensor) -> Tensor:
    """3x3 max-pooling with stride 2 to ceil(n / 2) cells. After a ReLU a border of zeros changes no maximum, and stays int8."""
    return F.max_pool2d(F.pad(x_NChw, (1, 1, 1, 1)), 3, 2)


def halve(x_NCHW: Tensor) -> Tensor:
    """Max-pool 2x2, odd sizes rounded up. Zeros are neutral after ReLU, so the padding changes no value."""
    odd_h, odd_w = int(x_NCHW.shape[2]) % 2, int(x_NCHW.shape[3]) % 2
    if odd_h or odd_w:
        x_NCHW = F.pad(x_NCHW, (0, odd_w, 0, odd_h))
    return F.max_pool2d(x_NCHW, 2)
