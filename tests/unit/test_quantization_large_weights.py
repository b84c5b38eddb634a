"""Weights above 32 MiB come out of ai-edge-quantizer as small ones do."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_quantizer import qtyping
from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor

from quantization.large_weights import large_weights


@pytest.mark.parametrize(("shape", "axis"), [((96, 3, 3, 10240), 0), ((1, 3, 3, 983040), 3), ((4, 3, 3, 8), 0)])
def test_each_output_channel_has_its_own_scale(shape: tuple[int, ...], axis: int) -> None:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    scale = np.abs(data).max(axis=tuple(i for i in range(4) if i != axis), keepdims=True) / np.float32(127)
    params = qtyping.UniformQuantParams(
        num_bits=8, quantized_dimension=axis, scale=scale, zero_point=np.zeros(scale.shape, np.int32), symmetric=True,
    )
    with large_weights():
        got = uniform_quantize_tensor.uniform_quantize(data, params)
    assert got.dtype == np.int8
    assert got.shape == shape
    assert np.abs(got * scale - data).max() <= 0.5001 * scale.max()
    assert np.all(np.abs(got - data / scale) <= 0.501)
