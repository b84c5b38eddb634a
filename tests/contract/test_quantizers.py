"""Every quantizer keeps the contract and the answer, says all it did, and refuses what it cannot do; run by the real runtimes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from export_tools import CASES, RUNTIME_OF, exported, frames_of, quantized, reference
from test_exporters import same, signature_of

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.files import canonical_json, sha256_file
from quantization import QUANTIZERS
from quantization.tensors import TENSORS
from targets.runtimes import RuntimeOptions, open_session

pytestmark = [pytest.mark.parametrize("format", QUANTIZERS)]
on_every_case = pytest.mark.parametrize("name", CASES)


@on_every_case
def test_names_types_and_shapes_stay(format: str, name: str) -> None:
    assert signature_of(quantized(format, name)[0]) == signature_of(exported(format, name))


@on_every_case
def test_answers_nearly_as_torch(format: str, name: str) -> None:
    frames = frames_of(name, 6, first=9000)
    session = open_session(quantized(format, name)[0], RUNTIME_OF[format], RuntimeOptions())
    assert same([session.run(frame) for frame in frames], reference(name, frames)) >= 0.96
    session.close()


def test_weights_take_a_byte(format: str) -> None:
    def weights_bytes(bundle: Bundle) -> int:
        return sum(entry.size_bytes for entry in bundle.manifest.files if not entry.path.endswith(".xml"))

    assert weights_bytes(quantized(format, "fast_scnn")[0]) < 0.5 * weights_bytes(exported(format, "fast_scnn"))


def test_says_what_it_did(format: str) -> None:
    model = quantized(format, "fast_scnn")[1]
    assert (model.format, model.precision) == (format, "int8")
    assert {"method", "form", "activations", "weights", "calibrator", "num_frames", "float_ops", "float_reason"} <= set(model.scheme)
    assert model.scheme["num_frames"] == 8
    canonical_json(dict(model.scheme))
    assert model.tools


def test_says_the_truth_about_the_class_layer(format: str) -> None:
    """OpenVINO's computes in 8 bits and is a layer that a mixed bundle may keep float; in the others it is float at all times."""
    bundle, model = exported(format, "fast_scnn"), quantized(format, "fast_scnn")[1]
    everything = TENSORS[format].layers(bundle)
    (last,) = [layer.name for layer in everything if layer.weight_shape and 5 in (layer.weight_shape[0], layer.weight_shape[-1])]
    int8 = {layer.name for layer in QUANTIZERS[format].prepare(bundle, frames_of("fast_scnn", 1, first=5000)).layers}
    assert (last in int8) == (format == "openvino")
    assert ("class layer is int8" in model.scheme["float_reason"]) == (format == "openvino")


def test_same_frames_same_bytes_and_nothing_printed(format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = quantized(format, "unet-threshold")[1]
    capfd.readouterr()
    second = QUANTIZERS[format](exported(format, "unet-threshold"), frames_of("unet-threshold", 8, first=5000), tmp_path)
    assert capfd.readouterr() == ("", "")
    assert second.scheme == first.scheme
    model_files = [f for f in first.files if not f.endswith(".xml")]  # the .xml names the folder it was quantized in
    assert [sha256_file(first.folder / f) for f in model_files] == [sha256_file(second.folder / f) for f in model_files]


def test_refuses_no_frames(format: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no frames to calibrate on"):
        QUANTIZERS[format](exported(format, "unet-threshold"), [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_refuses_frames_of_another_size(format: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the bundle takes uint8"):
        QUANTIZERS[format](exported(format, "unet-threshold"), [np.zeros((8, 8, 3), np.uint8)], tmp_path)


def test_refuses_what_is_int8_already(format: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only an fp32 bundle"):
        QUANTIZERS[format](quantized(format, "unet-threshold")[0], frames_of("unet-threshold", 1, first=5000), tmp_path)


def test_refuses_another_format(format: str, tmp_path: Path) -> None:
    bundle = exported(format, "unet-threshold")
    other = Bundle(bundle.folder, dataclasses.replace(bundle.manifest, format="null"))
    with pytest.raises(ConfigError, match="this quantizer reads"):
        QUANTIZERS[format](other, frames_of("unet-threshold", 1, first=5000), tmp_path)
