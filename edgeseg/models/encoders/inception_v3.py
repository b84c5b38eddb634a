"""Inception-v3: Szegedy et al. 2016, arXiv:1512.00567. Keys and layers as in torchvision, without the auxiliary classifier.

The paper's first layers and its size reductions have no padding, so that 299 pixels end in 8 cells and 74 in none. Here they are
padded ('same'): each map then lies on the grid every other encoder has (`Encoder`), with the same weights. Unpadded they are the
paper's own maps. torchvision feeds its ImageNet weights (v - 0.5) / 0.5, which differs from our normalisation by a factor and a shift a
channel; the first norm, which goes on learning, takes that up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.blocks import scaled
from edgeseg.models.encoders.base import Encoder


class BasicConv(nn.Module):
    """Convolution without bias, norm, ReLU."""

    folds = (("conv", "bn"),)

    def __init__(self, in_channels: int, out_channels: int, kernel: int | tuple[int, int] = 1, *, stride: int = 1,
                 padded: bool = True) -> None:
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (rows // 2, columns // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(in_channels, out_channels, (rows, columns), stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, h', w']."""
        return torch.relu(self.bn(self.conv(x_NChw)))


def _average(x_NChw: Tensor) -> Tensor:
    """Mean over 3x3 cells, those past the border counted as zeros; the border is written out, as converters agree on it only so."""
    return F.avg_pool2d(F.pad(x_NChw, (1, 1, 1, 1)), 3, 1)


def _maximum(x_NChw: Tensor, *, padded: bool) -> Tensor:
    """Maximum over 3x3 cells with stride 2; after a ReLU a border of zeros changes none."""
    return F.max_pool2d(F.pad(x_NChw, (1, 1, 1, 1)) if padded else x_NChw, 3, 2)


class InceptionA(nn.Module):
    """Paper, figure 5."""

    def __init__(self, in_channels: int, pool: int, c: Callable[[int], int]) -> None:
        super().__init__()
        self.branch1x1 = BasicConv(in_channels, c(64))
        self.branch5x5_1, self.branch5x5_2 = BasicConv(in_channels, c(48)), BasicConv(c(48), c(64), 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = BasicConv(in_channels, c(64)), BasicConv(c(64), c(96), 3)
        self.branch3x3dbl_3 = BasicConv(c(96), c(96), 3)
        self.branch_pool = BasicConv(in_channels, c(pool))
        self.out_channels = 2 * c(64) + c(96) + c(pool)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, h, w]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x_NChw)))
        five = self.branch5x5_2(self.branch5x5_1(x_NChw))
        return torch.cat([self.branch1x1(x_NChw), five, double, self.branch_pool(_average(x_NChw))], dim=1)


class InceptionB(nn.Module):
    """Paper, figure 10: to half the size."""

    def __init__(self, in_channels: int, c: Callable[[int], int], *, padded: bool) -> None:
        super().__init__()
        self.padded = padded
        self.branch3x3 = BasicConv(in_channels, c(384), 3, stride=2, padded=padded)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = BasicConv(in_channels, c(64)), BasicConv(c(64), c(96), 3)
        self.branch3x3dbl_3 = BasicConv(c(96), c(96), 3, stride=2, padded=padded)
        self.out_channels = c(384) + c(96) + in_channels

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / 2), ceil(w / 2)]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x_NChw)))
        return torch.cat([self.branch3x3(x_NChw), double, _maximum(x_NChw, padded=self.padded)], dim=1)


class InceptionC(nn.Module):
    """Paper, figure 6, with n = 7."""

    def __init__(self, in_channels: int, inner: int, c: Callable[[int], int]) -> None:
        super().__init__()
        self.branch1x1 = BasicConv(in_channels, c(192))
        self.branch7x7_1, self.branch7x7_2 = BasicConv(in_channels, c(inner)), BasicConv(c(inner), c(inner), (1, 7))
        self.branch7x7_3 = BasicConv(c(inner), c(192), (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = BasicConv(in_channels, c(inner)), BasicConv(c(inner), c(inner), (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = BasicConv(c(inner), c(inner), (1, 7)), BasicConv(c(inner), c(inner), (7, 1))
        self.branch7x7dbl_5 = BasicConv(c(inner), c(192), (1, 7))
        self.branch_pool = BasicConv(in_channels, c(192))
        self.out_channels = 4 * c(192)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, h, w]."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x_NChw)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x_NChw)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x_NChw), seven, double, self.branch_pool(_average(x_NChw))], dim=1)


class InceptionD(nn.Module):
    """To half the size again, before the last two blocks (paper, table 1)."""

    def __init__(self, in_channels: int, c: Callable[[int], int], *, padded: bool) -> None:
        super().__init__()
        self.padded = padded
        self.branch3x3_1 = BasicConv(in_channels, c(192))
        self.branch3x3_2 = BasicConv(c(192), c(320), 3, stride=2, padded=padded)
        self.branch7x7x3_1, self.branch7x7x3_2 = BasicConv(in_channels, c(192)), BasicConv(c(192), c(192), (1, 7))
        self.branch7x7x3_3 = BasicConv(c(192), c(192), (7, 1))
        self.branch7x7x3_4 = BasicConv(c(192), c(192), 3, stride=2, padded=padded)
        self.out_channels = c(320) + c(192) + in_channels

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / 2), ceil(w / 2)]."""
        three = self.branch3x3_2(self.branch3x3_1(x_NChw))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x_NChw))))
        return torch.cat([three, seven, _maximum(x_NChw, padded=self.padded)], dim=1)


class InceptionE(nn.Module):
    """Paper, figure 7."""

    def __init__(self, in_channels: int, c: Callable[[int], int]) -> None:
        super().__init__()
        self.branch1x1 = BasicConv(in_channels, c(320))
        self.branch3x3_1 = BasicConv(in_channels, c(384))
        self.branch3x3_2a, self.branch3x3_2b = BasicConv(c(384), c(384), (1, 3)), BasicConv(c(384), c(384), (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = BasicConv(in_channels, c(448)), BasicConv(c(448), c(384), 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = BasicConv(c(384), c(384), (1, 3)), BasicConv(c(384), c(384), (3, 1))
        self.branch_pool = BasicConv(in_channels, c(192))
        self.out_channels = c(320) + 4 * c(384) + c(192)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, h, w]."""
        three = self.branch3x3_1(x_NChw)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x_NChw))
        return torch.cat([
            self.branch1x1(x_NChw), self.branch3x3_2a(three), self.branch3x3_2b(three), self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double), self.branch_pool(_average(x_NChw)),
        ], dim=1)


class InceptionV3(Encoder):
    """Maps: after `Conv2d_2b_3x3`, `Conv2d_4a_3x3`, `Mixed_5d`, `Mixed_6e` and `Mixed_7c`."""

    strides = (2, 4, 8, 16, 32)
    head_keys = ("AuxLogits.", "fc.")

    def __init__(self, width: float = 1.0, *, padded: bool = True) -> None:
        super().__init__()

        def c(channels: int) -> int:
            return scaled(channels, width)

        self.padded = padded
        self.Conv2d_1a_3x3 = BasicConv(3, c(32), 3, stride=2, padded=padded)
        self.Conv2d_2a_3x3 = BasicConv(c(32), c(32), 3, padded=padded)
        self.Conv2d_2b_3x3 = BasicConv(c(32), c(64), 3)
        self.Conv2d_3b_1x1 = BasicConv(c(64), c(80))
        self.Conv2d_4a_3x3 = BasicConv(c(80), c(192), 3, padded=padded)
        self.Mixed_5b = InceptionA(c(192), 32, c)
        self.Mixed_5c = InceptionA(self.Mixed_5b.out_channels, 64, c)
        self.Mixed_5d = InceptionA(self.Mixed_5c.out_channels, 64, c)
        self.Mixed_6a = InceptionB(self.Mixed_5d.out_channels, c, padded=padded)
        self.Mixed_6b = InceptionC(self.Mixed_6a.out_channels, 128, c)
        self.Mixed_6c = InceptionC(self.Mixed_6b.out_channels, 160, c)
        self.Mixed_6d = InceptionC(self.Mixed_6c.out_channels, 160, c)
        self.Mixed_6e = InceptionC(self.Mixed_6d.out_channels, 192, c)
        self.Mixed_7a = InceptionD(self.Mixed_6e.out_channels, c, padded=padded)
        self.Mixed_7b = InceptionE(self.Mixed_7a.out_channels, c)
        self.Mixed_7c = InceptionE(self.Mixed_7b.out_channels, c)
        self.channels = (
            c(64), c(192), self.Mixed_5d.out_channels, self.Mixed_6e.out_channels, self.Mixed_7c.out_channels,
        )

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """See `Encoder.forward`."""
        maps = [self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x_NCHW)))]
        maps.append(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_maximum(maps[0], padded=self.padded))))
        x = _maximum(maps[1], padded=self.padded)
        maps.append(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6a(maps[2])
        maps.append(self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x)))))
        maps.append(self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(maps[3]))))
        return maps


def build(width: float) -> Encoder:
    """Build Inception-v3 on the padded grid."""
    return InceptionV3(width)
