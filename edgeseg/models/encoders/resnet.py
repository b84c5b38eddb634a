"""ResNet-18, -34 and -50: He et al. 2016, arXiv:1512.03385. Keys as in torchvision; stride 2 sits in the 3x3 convolution, as there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.blocks import scaled
from edgeseg.models.encoders.base import ConvNorm, Encoder, max_pool_3


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a sum (paper, figure 5 left)."""

    folds = (("conv1", "bn1"), ("conv2", "bn2"))
    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, channels, ceil(h / stride), ceil(w / stride)]."""
        y_NChw = torch.relu(self.bn1(self.conv1(x_NChw)))
        return torch.relu(self.bn2(self.conv2(y_NChw)) + self.downsample(x_NChw))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the channels, and a sum (paper, figure 5 right)."""

    folds = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3: nn.Module = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, 4 channels, ceil(h / stride), ceil(w / stride)]."""
        y_NChw = torch.relu(self.bn1(self.conv1(x_NChw)))
        y_NChw = torch.relu(self.bn2(self.conv2(y_NChw)))
        return torch.relu(self.bn3(self.conv3(y_NChw)) + self.downsample(x_NChw))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    same = stride == 1 and in_channels == out_channels
    return nn.Identity() if same else ConvNorm(in_channels, out_channels, stride=stride)


class ResNet(Encoder):
    """Maps: the stem at stride 2, then the four stages."""

    folds = (("conv1", "bn1"),)
    strides = (2, 4, 8, 16, 32)
    head_keys = ("fc.",)

    def __init__(self, block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int], width: float = 1.0) -> None:
        super().__init__()
        stem = scaled(64, width)
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(stem)
        channels, last = [stem], stem
        for index, depth in enumerate(depths):
            inner = scaled(64 * 2**index, width)
            blocks: list[nn.Module] = []
            for i in range(depth):
                blocks.append(block(last, inner, stride=2 if i == 0 and index > 0 else 1))
                last = inner * block.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
            channels.append(last)
        self.channels = tuple(channels)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """See `Encoder.forward`."""
        maps = [torch.relu(self.bn1(self.conv1(x_NCHW)))]
        x = max_pool_3(maps[0])
        for index in range(1, 5):
            x = self.get_submodule(f"layer{index}")(x)
            maps.append(x)
        return maps


def build_18(width: float) -> Encoder:
    """Build ResNet-18."""
    return ResNet(BasicBlock, (2, 2, 2, 2), width)


def build_34(width: float) -> Encoder:
    """Build ResNet-34."""
    return ResNet(BasicBlock, (3, 4, 6, 3), width)


def build_50(width: float) -> Encoder:
    """Build ResNet-50."""
    return ResNet(Bottleneck, (3, 4, 6, 3), width)
