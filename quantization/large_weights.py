"""Weights above 32 MiB for ai-edge-quantizer, which cuts them into pieces and does not cut their scales along.

Seen in 0.10.0 with VGG's `fc6` and the deepest layers of a full U-Net: "input operand has more dimensions than allowed by the axis
remapping". The same numbers laid out as a table, one row for each position of the kernel, go through.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.lazy import require


@contextlib.contextmanager
def large_weights() -> Iterator[None]:
    """Inside, weights of any size can be quantized per output channel."""
    module = require("ai_edge_quantizer.algorithms.uniform_quantize.uniform_quantize_tensor", extra="export")
    original = module.uniform_quantize

    def as_table(data: NDArray[Any], params: Any, blockwise: bool = False) -> NDArray[Any]:  # noqa: ANN401 - an SDK object
        if blockwise or data.ndim <= 2 or params.scale.ndim != data.ndim:
            return original(data, params, blockwise)  # type: ignore[no-any-return]
        flat = dataclasses.replace(params, scale=_flat(params.scale, data.shape), zero_point=_flat(params.zero_point, data.shape))
        table: NDArray[Any] = original(data.reshape(-1, data.shape[-1]), flat, blockwise)
        return table.reshape(data.shape)

    module.uniform_quantize = as_table
    try:
        yield
    finally:
        module.uniform_quantize = original


def _flat(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """One value a row of the table, or one a column where the last axis is that of the output channels."""
    if values.shape[-1] == 1:
        return np.ascontiguousarray(np.broadcast_to(values, (*shape[:-1], 1)).reshape(-1, 1))
    return values.reshape(1, -1) if values.size == values.shape[-1] else np.broadcast_to(values, shape).reshape(-1, shape[-1])
