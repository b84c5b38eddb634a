"""Normalisation folded into the first convolution gives the same scores, borders included, and is left alone where it cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeseg.models import normalise
from edgeseg.models.encoders.base import SamePadConv2d
from exporters.stem import fold_normalisation

FRAME = torch.randint(0, 256, (1, 33, 46, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "bias"), [
    (3, 2, 1, 1, False), (3, 1, 1, 1, True), (5, 2, 2, 1, True), (1, 1, 0, 1, True), (3, 1, 2, 2, True), (3, 3, 1, 1, False),
])
def test_scores_stay_the_same(kernel: int, stride: int, padding: int, dilation: int, bias: bool) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 6, kernel, stride, padding, dilation, bias=bias), nn.ReLU(), nn.Conv2d(6, 2, 1))
    with torch.no_grad():
        before = net(normalise(FRAME))
        stem = fold_normalisation(net, FRAME)
        assert stem is not None
        torch.testing.assert_close(net(stem(FRAME)), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size_hw", [(33, 46), (32, 46), (31, 45)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1)])
def test_borders_of_tensorflow_are_the_means_too(kernel: int, stride: int, size_hw: tuple[int, int]) -> None:
    torch.manual_seed(1)
    frame = FRAME[:, : size_hw[0], : size_hw[1]] if size_hw != (33, 46) else FRAME
    net = nn.Sequential(SamePadConv2d(3, 6, kernel, stride=stride), nn.ReLU(), nn.Conv2d(6, 2, 1))
    with torch.no_grad():
        before = net(normalise(frame))
        assert before.shape[2:] == (-(-size_hw[0] // stride), -(-size_hw[1] // stride))
        stem = fold_normalisation(net, frame)
        assert stem is not None
        torch.testing.assert_close(net(stem(frame)), before, rtol=1e-4, atol=1e-4)


class TwoAlike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 6, 3, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(x)], dim=1)


def test_two_convolutions_of_one_geometry_share_the_raw_frame() -> None:
    torch.manual_seed(1)
    net = TwoAlike()
    with torch.no_grad():
        before = net(normalise(FRAME))
        stem = fold_normalisation(net, FRAME)
        assert stem is not None
        torch.testing.assert_close(net(stem(FRAME)), before, rtol=1e-4, atol=1e-4)


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


class AlsoReadsTheFrame(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + x


class ReadsItsMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + x.mean()


@pytest.mark.parametrize("make", [
    TwoReaders, AlsoReadsTheFrame, ReadsItsMean, lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    lambda: nn.Conv2d(3, 4, 3, padding="same"), lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1)),
])
def test_what_cannot_be_folded_is_left_as_it_was(make: type[nn.Module]) -> None:
    torch.manual_seed(2)
    net = make()
    with torch.no_grad():
        before = net(normalise(FRAME))
        assert fold_normalisation(net, FRAME) is None
        assert torch.equal(net(normalise(FRAME)), before)
