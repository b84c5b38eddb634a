"""An operator that no quantizer knows, and its runtime neither, is one line that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models

from edgeseg.core.errors import EdgesegError, RuntimeFailure
from edgeseg.workflow.compress.judging import judge_by_agreement
from quantization import QUANTIZERS


def write_onnx(folder: Path, height: int, width: int) -> tuple[str, ...]:
    import onnx

    tiny_models.write_onnx(folder, height, width)
    model = onnx.load(folder / "model.onnx")
    model.graph.node[2].op_type, model.graph.node[2].domain = "Sharpen", "of.mine"
    model.opset_import.append(onnx.helper.make_opsetid("of.mine", 1))
    onnx.save(model, folder / "model.onnx")
    return ("model.onnx",)


def write_openvino(folder: Path, height: int, width: int) -> tuple[str, ...]:
    files = tiny_models.write_openvino(folder, height, width)
    xml = (folder / "model.xml").read_text()
    assert 'type="Convolution"' in xml
    (folder / "model.xml").write_text(xml.replace('type="Convolution" version="opset1"', 'type="Sharpen" version="of_mine"'))
    return files


def named_in_one_line(error: EdgesegError) -> bool:
    return "Sharpen" in str(error) and "\n" not in str(error)


def test_openvino_names_the_operator(tmp_path: Path) -> None:
    bundle = tiny_models.tiny_bundle(tmp_path, "openvino", write=write_openvino)
    with pytest.raises(RuntimeFailure) as raised:
        QUANTIZERS["openvino"](bundle, [np.zeros((24, 32, 3), np.uint8)], tmp_path)
    assert named_in_one_line(raised.value)


def test_onnx_runtime_names_the_operator_before_anything_is_calibrated(tmp_path: Path) -> None:
    bundle = tiny_models.tiny_bundle(tmp_path, "onnx", write=write_onnx)
    with pytest.raises(EdgesegError) as raised:  # the ladder's judge asks the float bundle first
        judge_by_agreement(bundle, [np.zeros((24, 32, 3), np.uint8)])
    assert named_in_one_line(raised.value)
