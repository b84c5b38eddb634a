"""Batch norm over the whole batch while several processes each hold a slice of it.

PyTorch's own `SyncBatchNorm` takes tensors on a GPU only. On a CPU (gloo) the same is done here: one sum over the processes forward, one
backward. Both come out as one process's batch norm of the whole batch, to rounding (Ioffe and Szegedy, 1502.03167).

Legend: N = frames of this process, C = channels, H/W = rows/columns.
"""

from __future__ import annotations

import sys
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from edgeseg.core.errors import ConfigError
from edgeseg.models.keras_network import KerasNetwork
from edgeseg.training.ranks import Ranks


def check_norms(net: nn.Module, ranks: Ranks) -> None:
    """Refuse norms whose statistics would differ from process to process; one process takes any.

    Kept in step is `torch.nn.BatchNorm2d` itself and nothing derived from it, which may compute something else (its activation, say).

    Raises:
        ConfigError: another norm with statistics of the batch, or a network of Keras.
    """
    if ranks.count == 1:
        return
    alone = "train it in one process: edgeseg train, without --devices and torchrun"
    keras = sys.modules.get("keras")
    for name, module in net.named_modules():
        if isinstance(module, KerasNetwork) or (keras is not None and isinstance(module, keras.layers.Layer)):
            raise ConfigError(f"the batch norms of a Keras network are not kept in step over {ranks.count} processes; {alone}")
        if _is_plain(module):
            continue
        if isinstance(module, _BatchNorm) or isinstance(getattr(module, "running_mean", None), Tensor):
            kind = type(module).__name__ if type(module) is not nn.BatchNorm2d else "BatchNorm2d with track_running_stats=False"
            raise ConfigError(f"the network's norm '{name}' is a {kind}: over {ranks.count} processes only torch.nn.BatchNorm2d itself, "
                              f"with running statistics, is kept in step; put that in its place, or {alone}")


def synchronise_norms(net: nn.Module, ranks: Ranks) -> None:
    """Let the batch norms of `net` see the whole batch in training mode, in place; their type and names stay as they are.

    The network must not be copied afterwards (its layers' `forward` are bound to it).

    Raises:
        ConfigError: see `check_norms`.
    """
    if ranks.count == 1:
        return
    check_norms(net, ranks)
    for module in net.modules():
        if _is_plain(module):
            _bind(module, ranks)


def _is_plain(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    return type(module) is nn.BatchNorm2d and module.track_running_stats


def _bind(norm: nn.BatchNorm2d, ranks: Ranks) -> None:
    plain = norm.forward
    on_gpu = nn.SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine)
    # The very same tensors, so that the optimiser, the averages and the checkpoint see one norm.
    on_gpu.weight, on_gpu.bias = norm.weight, norm.bias
    on_gpu.running_mean, on_gpu.running_var, on_gpu.num_batches_tracked = norm.running_mean, norm.running_var, norm.num_batches_tracked

    def forward(x_NCHW: Tensor) -> Tensor:
        if not norm.training:
            return plain(x_NCHW)
        if x_NCHW.device.type == "cuda":
            y_NCHW: Tensor = on_gpu(x_NCHW)
            return y_NCHW
        mean_C, var_C, count = _statistics(x_NCHW.detach().float(), ranks)
        assert norm.running_mean is not None  # tracked, see above
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean_C, share)
            norm.running_var.lerp_(var_C * (count / max(1, count - 1)), share)
        result: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x_NCHW, norm.weight, norm.bias, mean_C, var_C, norm.eps, count, ranks
        )
        return result

    norm.forward = forward  # type: ignore[method-assign, assignment]


def _statistics(x_NCHW: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, int]:
    """Mean, variance (of n, not n - 1) and number of values a channel, over all processes.

    From each process's own mean and variance, by the law of total variance: sums of squares would lose the small variance of a
    channel with a large mean. All slices are of one size.
    """
    var_C, mean_C = torch.var_mean(x_NCHW, dim=(0, 2, 3), correction=0)
    means_RC, vars_RC = ranks.gathered(torch.stack([mean_C, var_C], dim=1).unsqueeze(0)).unbind(2)
    between_C, mean_C = torch.var_mean(means_RC, dim=0, correction=0)
    return mean_C, vars_RC.mean(dim=0) + between_C, ranks.count * x_NCHW.numel() // x_NCHW.shape[1]


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, where mean and var hang on every process's x."""

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight_C: Tensor | None, bias_C: Tensor | None, mean_C: Tensor, var_C: Tensor,  # noqa: ANN401
                eps: float, count: int, ranks: Ranks) -> Tensor:
        """Normalise with the statistics given; y has the type of x."""
        ctx.save_for_backward(x_NCHW, weight_C, mean_C, var_C)
        ctx.eps, ctx.count, ctx.ranks = eps, count, ranks
        y_NCHW = F.batch_norm(x_NCHW.float(), mean_C, var_C, weight_C, bias_C, training=False, eps=eps)
        return y_NCHW.to(x_NCHW.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NCHW: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Equations of 1502.03167, section 3, with both sums over all processes; weight and bias get this process's part."""
        x_NCHW, weight_C, mean_C, var_C = ctx.saved_tensors
        grad_NCHW = grad_NCHW.float()
        scale_C = torch.rsqrt(var_C + ctx.eps)
        hat_NCHW = (x_NCHW.float() - mean_C.view(1, -1, 1, 1)) * scale_C.view(1, -1, 1, 1)
        sum_C, dot_C = grad_NCHW.sum(dim=(0, 2, 3)), (grad_NCHW * hat_NCHW).sum(dim=(0, 2, 3))
        whole_2C = ctx.ranks.total(torch.stack([sum_C, dot_C])) / ctx.count
        factor_C = scale_C if weight_C is None else scale_C * weight_C
        inner_NCHW = grad_NCHW - whole_2C[0].view(1, -1, 1, 1) - hat_NCHW * whole_2C[1].view(1, -1, 1, 1)
        grad_x_NCHW = (inner_NCHW * factor_C.view(1, -1, 1, 1)).to(x_NCHW.dtype)
        return grad_x_NCHW, None if weight_C is None else dot_C, None if weight_C is None else sum_C, None, None, None, None, None
