"""Models as people really have them: class maps, one score, gray, uint8 inputs, open sizes, already in int8; format by format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from import_tools import CLASSES, SIZE, ClassMapNet, TinyNet, example, write_ir, write_onnx, write_tflite
from torch import Tensor, nn

from edgeseg.core.bundle import open_bundle
from edgeseg.core.errors import ConfigError
from edgeseg.data.synthetic import write_field
from edgeseg.workflow.bundle.importing import ImportRequest, import_model
from edgeseg.workflow.compress.quantizing import quantize_bundle
from edgeseg.workflow.ui import Silent


class FromBytes(nn.Module):
    """uint8 NHWC in; normalises, enlarges and decides by itself: uint8 class map out. Nothing is left for the contract to do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TinyNet(nhwc=True)

    def forward(self, frame: Tensor) -> Tensor:
        scores = self.net(frame.to(torch.float32) / 255 - 0.5).permute(0, 3, 1, 2)
        return torch.nn.functional.interpolate(scores, SIZE, mode="bilinear").argmax(1).to(torch.uint8)


FORMS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "onnx, class map": (lambda folder: write_onnx(folder / "m.onnx", ClassMapNet()), {"format": "openvino"}),
    "onnx, sigmoid, open size": (
        lambda folder: write_onnx(folder / "m.onnx", TinyNet(1, last=nn.Sigmoid()), dynamic=True),
        {"classes": ("soil", "plant"), "data": None, "threshold": 0.4, "size": (48, 80)},
    ),
    "onnx, bytes in and out": (
        lambda folder: write_onnx(folder / "m.onnx", FromBytes(), sample=torch.zeros((1, *SIZE, 3), dtype=torch.uint8)),
        {"mean": (), "scale": ()},
    ),
    "openvino, logit, letterbox": (
        lambda folder: write_ir(folder / "m.xml", TinyNet(1)),
        {"classes": ("soil", "plant"), "data": None, "threshold": 0.4, "resize": "letterbox"},
    ),
    "tflite, class map": (lambda folder: write_tflite(folder / "m.tflite", ClassMapNet(), sample=example()), {}),
    "tflite, gray": (
        lambda folder: write_tflite(folder / "m.tflite", TinyNet(channels=1, nhwc=True), sample=example(1, nhwc=True)), {"resize": "tile"},
    ),
    "tflite, bytes in and out": (
        lambda folder: write_tflite(folder / "m.tflite", FromBytes(), sample=torch.zeros((1, *SIZE, 3), dtype=torch.uint8)),
        {"mean": (), "scale": ()},
    ),
}


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("field")
    write_field(folder, seed=3, counts={"train": 4, "val": 2, "test": 2}, size_hw=SIZE)
    return folder


@pytest.mark.parametrize("name", FORMS)
def test_answers_as_the_original(name: str, field: Path, tmp_path: Path) -> None:
    write, wishes = FORMS[name]
    common = {"classes": CLASSES, "data": field, "mean": (127.5,), "scale": (127.5,)}
    request = ImportRequest(model=write(tmp_path), out=tmp_path / "b", **{**common, **wishes})
    assert import_model(request, ui=Silent()).facts["agreement"] >= 0.999
    pairs = open_bundle(tmp_path / "b").golden_pairs()
    assert len({class_map.tobytes() for _, class_map in pairs}) > 1, "it answers one thing only"


def test_what_is_in_int8_already_stays_as_it_is(field: Path, tmp_path: Path) -> None:
    """An int8 model of ONNX Runtime's own quantizer, made outside of edgeseg."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"picture": example().numpy() * 2 - 1} for _ in range(3)]

        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop() if self.left else None

    quantize_static(str(write_onnx(tmp_path / "m.onnx")), str(tmp_path / "q.onnx"), Reader())
    request = ImportRequest(model=tmp_path / "q.onnx", out=tmp_path / "b", classes=CLASSES, data=field, mean=(127.5,), scale=(127.5,))
    import_model(request, ui=Silent())
    assert open_bundle(tmp_path / "b").manifest.precision == "int8"
    with pytest.raises(ConfigError, match="only an fp32 bundle"):
        quantize_bundle(tmp_path / "b", data=field, out=None, num_frames=2, force=False, ui=Silent())
