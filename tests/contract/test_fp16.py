"""fp16 bundles of every format: half the size, the same answers, and what does not fit stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import FORMATS
from quantization.fp16 import FP16
from targets.runtimes import RuntimeOptions, open_session
from tests.export_tools import RUNTIME_OF, exported, frames_of, reference, seal


def halved(format: str, folder: Path) -> Bundle:
    (folder / "work").mkdir(parents=True)
    return seal("fast_scnn", FP16[format](exported(format, "fast_scnn"), folder / "work"))


@pytest.mark.parametrize("format", list(FP16))
def test_half_the_size_and_the_same_answers(format: str, tmp_path: Path) -> None:
    assert format in FORMATS
    assert FP16[format].format == format
    bundle = halved(format, tmp_path)
    assert bundle.manifest.precision == "fp16"
    assert bundle.manifest.scheme["method"] == "weights-only"
    assert bundle.size_bytes < 0.7 * exported(format, "fast_scnn").size_bytes
    frames = frames_of("fast_scnn", 4, first=9000)
    session = open_session(bundle, RUNTIME_OF[format], RuntimeOptions(num_threads=1))
    answers = [session.run(frame) for frame in frames]
    session.close()
    assert np.mean([np.mean(a == b) for a, b in zip(answers, reference("fast_scnn", frames), strict=True)]) > 0.998
    again = FP16[format](exported(format, "fast_scnn"), tmp_path)
    for name in again.files:
        assert (tmp_path / name).read_bytes() == (bundle.folder / name).read_bytes()


@pytest.mark.parametrize("format", list(FP16))
def test_only_fp32_of_its_own_format_is_halved(format: str, tmp_path: Path) -> None:
    other = next(one for one in FP16 if one != format)
    with pytest.raises(ConfigError, match=f"makes fp16 of {format}"):
        FP16[format](exported(other, "fast_scnn"), tmp_path)
    bundle = exported(format, "fast_scnn")
    int8 = Bundle(bundle.folder, dataclasses.replace(bundle.manifest, precision="int8"))
    with pytest.raises(ConfigError, match="is int8; fp16 is made of an fp32 bundle"):
        FP16[format](int8, tmp_path)


def test_weights_that_fp16_cannot_hold_stay(tmp_path: Path) -> None:
    import onnx

    bundle = exported("onnx", "fast_scnn")
    model = onnx.load(str(bundle.model_path))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == conv.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1e12), weight.name))
    (tmp_path / "large").mkdir()
    onnx.save(model, tmp_path / "large" / bundle.manifest.entry)
    made = FP16["onnx"](Bundle(tmp_path / "large", bundle.manifest), tmp_path)
    assert made.scheme["kept_fp32"] == [conv.input[1]]
