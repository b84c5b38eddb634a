"""Blocks the networks share. Every convolution with a norm is one `ConvBnAct`, which `fold` turns into a plain convolution.

Only operations that ONNX Runtime, OpenVINO and LiteRT all execute natively: convolutions, ReLU / ReLU6 / hard-swish / hard-sigmoid,
average pooling with a static window, bilinear resize to a static size, sums, products and concatenations.

Legend: N = frames, C = channels, H/W = rows/columns of the frame, h/w = rows/columns of a feature map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def scaled(channels: float, width: float = 1.0, divisor: int = 8) -> int:
    """Channel count times `width`, rounded to a multiple of `divisor`, never below 90 % of the wish (MobileNetV2, 1801.04381)."""
    wish = channels * width
    rounded = max(divisor, int(wish + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * wish else rounded + divisor


class Network(nn.Module):
    """A segmentation network: normalised RGB `x_NCHW` in, class scores [N, C, h, w] at its natural stride out."""

    class_layers: tuple[str, ...] = ("classifier.scores",)
    """Names of the convolutions whose output channels are the classes; pruning leaves these outputs alone."""
    aux_layers: tuple[str, ...] = ()
    """Names of children that only training uses, each ending in convolutions called `scores`. `fold` takes them away, and
    `count_parameters` leaves them out."""

    def graph_outputs(self, x_NCHW: Tensor) -> list[Tensor]:
        """Everything the layers give, auxiliary layers included: from these tensors pruning reads which channels belong together."""
        return [self(x_NCHW)]


class ConvBnAct(nn.Module):
    """Convolution without bias, batch norm, activation; 'same' padding for odd kernels."""

    folds = (("conv", "bn"),)
    """Children that are a convolution and the norm of its output; any module may name its own, and `fold` makes one of the two."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, dilation: int = 1,
                 act: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)
        self.act = act()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / stride), ceil(w / stride)]."""
        y_NChw: Tensor = self.act(self.bn(self.conv(x_NCHW)))
        return y_NChw


class NormAct(nn.Module):
    """Batch norm and activation in front of a convolution (pre-activation, 1603.05027); `fold` makes the norm a 1x1 depthwise convolution.

    There is no convolution before it to fold into. As a depthwise convolution it keeps one scale a channel in int8, in every format.
    """

    def __init__(self, channels: int, act: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm2d(channels)
        self.act = act()

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape."""
        y_NChw: Tensor = self.act(self.norm(x_NChw))
        return y_NChw


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, then pointwise 1x1, each with norm and ReLU (MobileNet, 1704.04861)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(
            ConvBnAct(in_channels, in_channels, 3, stride=stride, groups=in_channels),
            ConvBnAct(in_channels, out_channels),
        )


def pool_to(x_NCHW: Tensor, bins: int) -> Tensor:
    """Average pooling to `bins` x `bins` cells (fewer where the map itself is smaller), one window size and stride for all cells.

    Adaptive pooling has cells of different sizes when `bins` does not divide the map, which no converter folds into one
    AveragePool. With stride floor(n / bins) and window n - (bins - 1) stride the cells cover the same map, overlap by little, and are
    adaptive pooling's own cells wherever `bins` divides n.
    """
    h, w = int(x_NCHW.shape[2]), int(x_NCHW.shape[3])
    rows, columns = min(bins, h), min(bins, w)
    stride = (h // rows, w // columns)
    window = (h - (rows - 1) * stride[0], w - (columns - 1) * stride[1])
    return F.avg_pool2d(x_NCHW, window, stride)


def enlarge(x_NChw: Tensor, size_hw: tuple[int, int], factor: int) -> Tensor:
    """Enlarge by exactly `factor`, then cut to `size_hw`: coarse features stay where they were computed, at any input size.

    A convolution of stride 2 gives ceil(n / 2) cells, so three of them over 45 cells give 6 that reach past the edge. Resized to 45
    directly, they would shrink towards the top left, by up to 24 pixels at 360 rows: a network trained on crops whose sides
    are multiples of 32 lost 3 points of mIoU at 360x480 (and none at 288x384) until this was done.
    """
    h, w = x_NChw.shape[2] * factor, x_NChw.shape[3] * factor
    return resize(x_NChw, (h, w))[:, :, : size_hw[0], : size_hw[1]] if (h, w) != tuple(size_hw) else resize(x_NChw, (h, w))


def resize(x_NCHW: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Bilinear to a static size, pixel centres at half (align_corners=False)."""
    if tuple(x_NCHW.shape[2:]) == size_hw:
        return x_NCHW
    return F.interpolate(x_NCHW, size_hw, mode="bilinear", align_corners=False)


def size_of(x_NCHW: Tensor) -> tuple[int, int]:
    """Rows and columns as plain integers, so that a traced graph holds constants."""
    return int(x_NCHW.shape[2]), int(x_NCHW.shape[3])


def initialise(net: nn.Module) -> None:
    """He initialisation (1502.01852) of convolutions, norms to identity; uses torch's global generator, seeded by the caller.

    By inputs and not by outputs: PyTorch's fan-out ignores groups, and would start depthwise weights sqrt(C) too small.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def fold(net: nn.Module) -> nn.Module:
    """Copy `net` as it ships: evaluation mode, norms folded into convolutions, auxiliary layers gone; the original is untouched."""
    folded = copy.deepcopy(net).eval()
    if isinstance(folded, Network):
        for name in folded.aux_layers:
            delattr(folded, name)
        folded.aux_layers = ()
    with torch.no_grad():
        for module in folded.modules():
            for conv, norm in getattr(module, "folds", ()):
                if isinstance(getattr(module, norm), nn.BatchNorm2d):
                    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                    setattr(module, norm, nn.Identity())
            if isinstance(module, NormAct) and isinstance(module.norm, nn.BatchNorm2d):
                module.norm = _as_depthwise(module.norm)
            fold_its_own = getattr(module, "fold_norms", None)  # a network of Keras layers
            if fold_its_own is not None:
                fold_its_own()
    return folded


def _as_depthwise(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The same affine map a channel as a 1x1 depthwise convolution."""
    assert norm.running_mean is not None and norm.running_var is not None
    convolution = nn.Conv2d(norm.num_features, norm.num_features, 1, groups=norm.num_features)
    assert convolution.bias is not None
    scale_C = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    convolution.weight.copy_(scale_C.view(-1, 1, 1, 1))
    convolution.bias.copy_(norm.bias - norm.running_mean * scale_C)
    return convolution.to(norm.weight.device).eval()


def count_parameters(net: nn.Module) -> int:
    """Number of trained values that ship: neither running statistics of norms nor auxiliary layers count."""
    aux = net.aux_layers if isinstance(net, Network) else ()
    return sum(parameter.numel() for name, parameter in net.named_parameters() if name.split(".")[0] not in aux)
