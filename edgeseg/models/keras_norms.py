"""Batch norms of a Keras model folded into the convolutions before them, as `edgeseg.models.fold` does for our own networks.

In inference y = s x + t a channel, with s = gamma / sqrt(variance + epsilon) and t = beta - s mean (Ioffe and Szegedy 2015,
arXiv:1502.03167, section 3.1). Keras writes it as a difference, a product and a sum, which no runtime puts into the convolution by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

_KERNEL_AXES: Final = {"Conv2D": (-1,), "DepthwiseConv2D": (2, 3), "Conv2DTranspose": (2,)}
"""Layer -> the axes of its kernel that its output channels are."""


def fold_norms(model: Any) -> None:  # noqa: ANN401 - keras.Model, which is not installed everywhere
    """Change a built Keras model in place, for inference only.

    Every batch norm becomes one sum; a product and a sum where it does not follow a convolution that nothing else reads.
    """
    layers = list(model._flatten_layers(include_self=False))
    answers = {id(tensor) for part in (model, *layers) for tensor in getattr(part, "outputs", None) or ()}
    with torch.no_grad():
        for layer in layers:
            if type(layer).__name__ == "BatchNormalization" and type(layer).__module__.startswith("keras."):
                _fold(layer, answers)


def _fold(norm: Any, answers: set[int]) -> None:  # noqa: ANN401
    scale_C = torch.rsqrt(norm.moving_variance.value + norm.epsilon)
    scale_C = scale_C * norm.gamma.value if norm.scale else scale_C
    shift_C = -norm.moving_mean.value * scale_C
    shift_C = shift_C + norm.beta.value if norm.center else shift_C
    axis = norm.axis[0] if isinstance(norm.axis, (list, tuple)) else norm.axis
    convolution = _own_convolution(norm, answers)
    if convolution is not None:
        axes = _KERNEL_AXES[type(convolution).__name__]
        kernel = convolution.kernel.value
        shape = [1] * kernel.ndim
        for kernel_axis in axes:
            shape[kernel_axis] = kernel.shape[kernel_axis]
        kernel.mul_(scale_C.view(shape))
        if convolution.use_bias:
            convolution.bias.value.mul_(scale_C)
    norm.call = _affine(None if convolution is not None else scale_C.clone(), shift_C.clone(), axis)


def _affine(scale_C: Tensor | None, shift_C: Tensor, axis: int) -> Callable[..., Tensor]:
    def call(inputs: Tensor, training: bool | None = None, mask: object = None) -> Tensor:
        shape = [1] * inputs.ndim
        shape[axis] = -1
        scaled = inputs if scale_C is None else inputs * scale_C.view(shape)
        return scaled + shift_C.view(shape)

    return call


def _own_convolution(norm: Any, answers: set[int]) -> Any:  # noqa: ANN401
    """The convolution that feeds this norm and nothing else; `None` where there is none."""
    if len(norm._inbound_nodes) != 1 or len(norm._inbound_nodes[0].input_tensors) != 1:
        return None
    tensor = norm._inbound_nodes[0].input_tensors[0]
    source = tensor._keras_history.operation
    alone = len(getattr(source, "_inbound_nodes", ())) == 1 and len(source._outbound_nodes) == 1
    if not alone or id(tensor) in answers or type(source).__name__ not in _KERNEL_AXES or not type(source).__module__.startswith("keras."):
        return None
    return source if getattr(source.activation, "__name__", "") == "linear" else None
