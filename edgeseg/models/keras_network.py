"""A Keras 3 model (torch backend) as a network like any other: normalised `x_NCHW` in, class scores [N, C, h, w] out.

On its torch backend a Keras model is an `nn.Module`, but it takes pictures in the layout it was built for (channels last by default) and
learns whether it trains from an argument of the call, not from `train()` and `eval()`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from edgeseg.core.errors import ConfigError
from edgeseg.models.blocks import Network
from edgeseg.models.keras_norms import fold_norms


class KerasNetwork(Network):
    """Wrap a functional or sequential Keras model with one picture in and one map of scores out.

    Args:
        model: built, on the torch backend, with an input of three channels.

    Raises:
        ConfigError: another backend, several inputs or outputs, or no axis of three channels.
    """

    class_layers = ()

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - keras.Model, which is not installed everywhere
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ConfigError("the Keras model does not run on torch; set KERAS_BACKEND=torch before keras is imported")
        inputs, outputs = (list(getattr(model, name, None) or ()) for name in ("inputs", "outputs"))
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4:
            raise ConfigError(f"the Keras model has {len(inputs)} inputs and {len(outputs)} outputs; one picture in, one map of scores out")
        shape = tuple(inputs[0].shape)
        if shape[1] != 3 and shape[3] != 3:
            raise ConfigError(f"the Keras model's input is {shape}; it needs three channels: [N, H, W, 3] or [N, 3, H, W]")
        self.channels_last = shape[3] == 3
        self.model = model

    def fold_norms(self) -> None:
        """Put the batch norms into the convolutions, in place; see `edgeseg.models.keras_norms`."""
        fold_norms(self.model)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Give scores at the model's own stride."""
        if not self.channels_last:
            first: Tensor = self.model(x_NCHW, training=self.training)
            return first
        last: Tensor = self.model(x_NCHW.permute(0, 2, 3, 1), training=self.training)
        return last.permute(0, 3, 1, 2)
