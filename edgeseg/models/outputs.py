"""What a network with auxiliary heads gives while it trains; in evaluation mode there is only `main`, as a plain tensor."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """Main logits with what else is learnt from. Strides may differ: the loss brings each to the label's size."""

    main: Tensor
    """[N, C, h, w] class scores, the ones a bundle answers with."""
    aux: tuple[Tensor, ...] = ()
    """Class scores of the auxiliary heads, each [N, C, h', w']."""
    aux_weights: tuple[float, ...] = ()
    """Weight of each auxiliary head's loss."""
    boundary: Tensor | None = None
    """[N, 1, h', w'] boundary score before the sigmoid (PIDNet's D branch, 2206.02066)."""
