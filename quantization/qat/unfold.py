"""Back from folded weights to the network as it was built, the inverse of `edgeseg.models.fold`: a checkpoint like any other."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgeseg.core.errors import ConfigError
from edgeseg.models.blocks import NormAct


def check_unfolds(net: nn.Module) -> None:
    """Refuse networks whose folding cannot be undone.

    Raises:
        ConfigError: a network that folds its norms by a way of its own (Keras).
    """
    if any(hasattr(module, "fold_norms") for module in net.modules()):
        raise ConfigError("the norms of a Keras network are folded in a way of their own that cannot be undone, so it cannot be trained "
                          'for int8; set [quantize] rescue = "mixed"')


@torch.no_grad()
def unfold(net: nn.Module, folded: nn.Module) -> nn.Module:
    """Give a copy of `net` that folds to `folded`, but for float rounding: norms become a bias a channel. Evaluation mode.

    Layers that `fold` takes away (auxiliary heads) are as in `net`.
    """
    copied = copy.deepcopy(net).eval()
    values = dict(folded.state_dict())
    for name, module in copied.named_modules():
        prefix = f"{name}." if name else ""
        for conv, norm in getattr(module, "folds", ()):
            child = getattr(module, norm)
            if isinstance(child, nn.BatchNorm2d) and f"{prefix}{conv}.weight" in values:
                bias = values.pop(f"{prefix}{conv}.bias")
                layer = getattr(module, conv)
                layer.weight.copy_(values.pop(f"{prefix}{conv}.weight"))
                if layer.bias is not None:
                    layer.bias.zero_()
                _make(child, torch.ones_like(bias), bias)
        if isinstance(module, NormAct) and isinstance(module.norm, nn.BatchNorm2d) and f"{prefix}norm.weight" in values:
            _make(module.norm, values.pop(f"{prefix}norm.weight").flatten(), values.pop(f"{prefix}norm.bias"))
    missing = copied.load_state_dict(values, strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys
    return copied


def _make(norm: nn.BatchNorm2d, scale_C: Tensor, shift_C: Tensor) -> None:
    """Let a norm compute scale x + shift."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.copy_(scale_C)
    norm.bias.copy_(shift_C)
