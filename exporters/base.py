"""What an exporter is, and what all of them share: the module that is traced."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.manifest import Contract
from edgeseg.models import fold, normalise
from exporters.head import head_for
from exporters.stem import fold_normalisation


class Exporter(Protocol):
    """Turn a network into the model files of one format."""

    format: str

    def __call__(self, net: nn.Module, contract: Contract, workdir: Path) -> ModelFiles:
        """Write an fp32 model that obeys the contract (DESIGN.md, section 3) into `workdir`.

        Args:
            net: normalised `x_NCHW` in, scores at the network's own stride out; it is not changed.
            contract: size and decision.
            workdir: an existing folder.

        Raises:
            RuntimeFailure: the converter failed; its own error is the cause.
            MissingExtraError: the converter is not installed.
        """
        ...


class Exportable(nn.Module):
    """uint8 frame [1, H, W, 3] in, uint8 class map [1, H, W] out: normalisation, the network with norms folded, decision head.

    Where the frame goes into one convolution and nowhere else, the normalisation is folded into that convolution
    (`exporters.stem`); else it stays in front of the network.
    """

    def __init__(self, net: nn.Module, contract: Contract, format: str) -> None:
        super().__init__()
        self.net = fold(net).cpu().float().eval()
        self.frame_shape = (1, contract.height, contract.width, 3)
        self.stem = fold_normalisation(self.net, self.example()[0])
        with torch.no_grad():
            scores = self.scores(self.example()[0])
        self.head = head_for(format, tuple(scores.shape), contract)
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.eval()

    def scores(self, frame: Tensor) -> Tensor:
        """Class scores [1, C, h, w] of a frame."""
        scores: Tensor = self.net(normalise(frame) if self.stem is None else self.stem(frame))
        return scores

    def forward(self, frame: Tensor) -> Tensor:
        """Answer one frame."""
        class_map: Tensor = self.head(self.scores(frame))
        return class_map

    def example(self) -> tuple[Tensor]:
        """A frame to trace with: noise, so that no branch of a tracer can fold it away."""
        return (torch.randint(0, 256, self.frame_shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),)
