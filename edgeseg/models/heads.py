"""Networks with auxiliary heads: they learn from more outputs than they ship."""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.models.blocks import ConvBnAct, Network
from edgeseg.models.outputs import Outputs


class NetworkWithHeads(Network):
    """Gives `Outputs` in training mode, class scores alone in evaluation mode and once `fold` has taken the heads away."""

    def run(self, x_NCHW: Tensor, *, heads: bool, loose: list[Tensor] | None = None) -> Outputs:
        """Map normalised frames to the scores, with those of the auxiliary heads where `heads` asks for them.

        `loose` is given by pruning: gates of one channel, which multiply maps of many, must then be detached (the tracer takes
        both sides of a product for the same channels), and the many-channel maps they came from appended here.
        """
        raise NotImplementedError

    def forward(self, x_NCHW: Tensor) -> Tensor | Outputs:
        """Map normalised frames [N, 3, H, W] to class scores, or to `Outputs` in training mode."""
        heads = self.training and bool(self.aux_layers)
        outputs = self.run(x_NCHW, heads=heads)
        return outputs if heads else outputs.main

    def graph_outputs(self, x_NCHW: Tensor) -> list[Tensor]:
        """See `Network.graph_outputs`."""
        loose: list[Tensor] = []
        outputs = self.run(x_NCHW, heads=bool(self.aux_layers), loose=loose)
        boundary = [] if outputs.boundary is None else [outputs.boundary]
        return [outputs.main, *outputs.aux, *boundary, *loose]


class ConvHead(nn.Module):
    """A 3x3 convolution with norm and ReLU, dropout, scores by a 1x1 convolution."""

    def __init__(self, in_channels: int, inner: int, num_scores: int) -> None:
        super().__init__()
        self.features = ConvBnAct(in_channels, inner, 3)
        self.dropout = nn.Dropout(0.1)
        self.scores = nn.Conv2d(inner, num_scores, 1)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, scores, h, w]."""
        y_NChw: Tensor = self.scores(self.dropout(self.features(x_NChw)))
        return y_NChw
