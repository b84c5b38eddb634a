"""What is traced of a network that gives a class a pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.core.manifest import OUTPUT_NAME, Contract
from edgeseg.models import normalise
from exporters.base import Exportable
from exporters.head import NO_BYTES, head_for
from exporters.stem import fold_normalisation


class SemanticExportable(Exportable):
    """Gives the uint8 class map [1, H, W]: normalisation, network, decision head.

    Where the frame goes into one convolution and nowhere else, the normalisation is folded into that convolution
    (`exporters.stem`); else it stays in front of the network.
    """

    output_names = (OUTPUT_NAME,)

    def __init__(self, net: nn.Module, contract: Contract, format: str) -> None:
        super().__init__(net, contract)
        self.floats_first = format in NO_BYTES
        self.stem = fold_normalisation(self.net, self.example()[0])
        with torch.no_grad():
            scores = self.scores(self.example()[0])
        self.head = head_for(format, tuple(scores.shape), contract)
        self.freeze()

    def scores(self, frame: Tensor) -> Tensor:
        """Class scores [1, C, h, w] of a frame."""
        if self.floats_first:
            frame = frame.to(torch.float32)
        scores: Tensor = self.net(normalise(frame) if self.stem is None else self.stem(frame))
        return scores

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Answer one frame."""
        return (self.head(self.scores(frame)),)
