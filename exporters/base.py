"""What an exporter is, and what the modules that are traced share."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.manifest import Contract
from edgeseg.models import fold


class Exporter(Protocol):
    """Turn a network into the model files of one format."""

    format: str

    def __call__(self, net: nn.Module, contract: Contract, workdir: Path) -> ModelFiles:
        """Write an fp32 model that obeys the contract (DESIGN.md, section 3) into `workdir`.

        Args:
            net: normalised `x_NCHW` in; scores at the network's own stride out, or (task `instance`) `MaskRcnn`. It is not changed.
            contract: size, task and decision.
            workdir: an existing folder.

        Raises:
            ConfigError: the network does not fit the contract.
            RuntimeFailure: the converter failed; its own error is the cause.
            MissingExtraError: the converter is not installed.
        """
        ...


class Exportable(nn.Module):
    """uint8 frame [1, H, W, 3] in, the contract's outputs out; a copy of the network with norms folded, in evaluation mode."""

    output_names: tuple[str, ...]

    def __init__(self, net: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.net = fold(net).cpu().float().eval()
        self.frame_shape = (1, contract.height, contract.width, 3)

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Answer one frame, in the order of `output_names`."""
        raise NotImplementedError

    def example(self) -> tuple[Tensor]:
        """A frame to trace with: noise, so that no branch of a tracer can fold it away."""
        return (torch.randint(0, 256, self.frame_shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),)

    def freeze(self) -> None:
        """Make everything constant; the last thing a constructor does."""
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.eval()
