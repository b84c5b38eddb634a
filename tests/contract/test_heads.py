"""The decision head of every format, in its real runtime, decides score maps of all kinds as bilinear resize and argmax of torch do."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract
from edgeseg.core.vendors import quiet
from edgeseg.models import decide, upsample_logits
from exporters import EXPORTERS
from exporters.head import CellHead, head_for

CLASSES, SCORES_HW = 11, (6, 8)
CONTRACT = Contract(height=48, width=64)
pytestmark = pytest.mark.parametrize("format", EXPORTERS)

Head = Callable[[Tensor], np.ndarray[Any, Any]]


@functools.cache
def opened(format: str) -> Head:
    """The head that is shipped, converted by itself and opened."""
    head = head_for(format, (1, CLASSES, *SCORES_HW), CONTRACT)
    assert isinstance(head, CellHead) == (format == "onnx")
    example = torch.randn(1, CLASSES, *SCORES_HW, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder, quiet(), torch.no_grad():
        path = str(Path(folder) / "head")
        if format in ("onnx", "tensorrt"):
            import onnxruntime

            torch.onnx.export(head, (example,), path, dynamo=True, verbose=False, external_data=False, opset_version=18,
                              input_names=["scores"], output_names=["map"])
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            return lambda scores: np.asarray(session.run(None, {"scores": scores.numpy()})[0])
        if format == "openvino":
            ov = require("openvino", extra="export", converter=True)
            model = ov.convert_model(head, example_input=(example,), input=[tuple(example.shape)])
            compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            return lambda scores: np.asarray(compiled(scores.numpy())[0])
        require("litert_torch", extra="export").convert(head, (example,)).export(path)
        interpreter = require("ai_edge_litert.interpreter", extra="export").Interpreter(path)
        interpreter.allocate_tensors()

    def run(scores: Tensor) -> np.ndarray[Any, Any]:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], scores.numpy())
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))

    return run


def maps() -> dict[str, Tensor]:
    """Kinds of score maps: borders in some cells, in all, in none, and ties of the best two classes everywhere."""
    generator = torch.Generator().manual_seed(2)
    one, tied = torch.zeros(1, CLASSES, *SCORES_HW), torch.zeros(1, CLASSES, *SCORES_HW)
    one[:, 7] = 1.0
    tied[:, 4:6] = 2.5
    return {
        "regions": F.interpolate(torch.randn(1, CLASSES, 2, 3, generator=generator), SCORES_HW, mode="bicubic", align_corners=False),
        "noise": torch.randn(1, CLASSES, *SCORES_HW, generator=generator), "one class": one, "ties": tied,
    }


@pytest.mark.parametrize("kind", maps())
def test_decides_as_torch(format: str, kind: str) -> None:
    scores = maps()[kind]
    expected = decide(upsample_logits(scores, (CONTRACT.height, CONTRACT.width)), CONTRACT).numpy()
    got = opened(format)(scores).reshape(expected.shape)
    assert got.dtype == np.uint8
    if kind in ("one class", "ties"):  # 0.1 s + 0.9 s may round to more than s in one class and not in the other: the first must win
        assert set(np.unique(got)) == set(np.unique(expected)) == {7 if kind == "one class" else 4}
    assert float(np.mean(got != expected)) <= 1e-3
