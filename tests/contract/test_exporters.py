"""Every exporter obeys the contract of DESIGN.md, section 3, on every kind of network; run by the real runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_tools import CASES, RUNTIME_OF, exported, frames_of, reference, trained

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import RuntimeFailure
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract
from exporters import EXPORTERS
from targets.runtimes import RuntimeOptions, open_session

pytestmark = [pytest.mark.parametrize("format", EXPORTERS)]
on_every_case = pytest.mark.parametrize("name", CASES)

Signature = tuple[str, str, tuple[int, ...]]


def signature_of(bundle: Bundle) -> tuple[list[Signature], list[Signature]]:
    """Inputs and outputs of a model file as its SDK reads them: name, type, shape."""
    path = str(bundle.model_path)
    if bundle.manifest.format in ("onnx", "tensorrt"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return tuple([(v.name, v.type[7:-1], tuple(v.shape)) for v in values] for values in (session.get_inputs(), session.get_outputs()))
    if bundle.manifest.format == "openvino":
        model = require("openvino", extra="export").Core().read_model(path)
        types = {"u8": "uint8"}
        return tuple(
            [(p.any_name, types.get(p.element_type.to_string(), "?"), tuple(p.get_shape())) for p in ports]
            for ports in (model.inputs, model.outputs)
        )
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    (signature,) = interpreter.get_signature_list().values()
    details: tuple[list[Any], list[Any]] = (interpreter.get_input_details(), interpreter.get_output_details())
    return tuple(
        [(name, np.dtype(d["dtype"]).name, tuple(int(n) for n in d["shape"])) for name, d in zip(signature[kind], values, strict=True)]
        for kind, values in zip(("inputs", "outputs"), details, strict=True)
    )


def same(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    return float(np.mean([np.mean(a == b) for a, b in zip(first, second, strict=True)]))


@on_every_case
def test_names_types_and_shapes(format: str, name: str) -> None:
    contract = CASES[name].contract
    inputs, outputs = signature_of(exported(format, name))
    assert inputs == [("frame", "uint8", (1, contract.height, contract.width, 3))]
    assert outputs == [("class_map", "uint8", (1, contract.height, contract.width))]


@on_every_case
def test_answers_as_torch(format: str, name: str) -> None:
    frames = frames_of(name, 6, first=9000)
    session = open_session(exported(format, name), RUNTIME_OF[format], RuntimeOptions())
    expected = reference(name, frames)
    assert len(np.unique(np.stack(expected))) > 1, "the network must answer more than one class for this to mean anything"
    assert same([session.run(frame) for frame in frames], expected) >= 0.999
    session.close()


def test_says_what_it_made(format: str) -> None:
    manifest = exported(format, "fast_scnn").manifest
    assert (manifest.format, manifest.precision, manifest.scheme) == (format, "fp32", {})
    assert "torch" in manifest.tools and len(manifest.tools) >= 2


def test_a_model_holds_no_path_of_this_machine(format: str) -> None:
    bundle = exported(format, "fast_scnn")
    here = str(Path(__file__).resolve().parents[2]).encode()
    for entry in bundle.manifest.files:
        data = (bundle.folder / entry.path).read_bytes()
        assert here not in data and b"site-packages" not in data, entry.path


def test_the_network_is_not_changed_and_nothing_is_printed(format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if format == "tflite":  # the slowest converter; its silence is tested on a network that fails below
        pytest.skip("converted once already")
    net = trained("unet-threshold").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    EXPORTERS[format](net, CASES["unet-threshold"].contract, tmp_path)
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    net.eval()
    assert capfd.readouterr() == ("", "")


class Unconvertible(torch.nn.Module):
    """Sorts by a data-dependent number of rows, which no converter can trace."""

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        if float(x_NCHW.std()) > 1e9:
            raise ValueError("cannot happen")
        rows = torch.nonzero(x_NCHW[0, 0] > x_NCHW[0, 0].mean())
        return x_NCHW[:, :, : max(1, int(rows[0, 0]) + 1)]


def test_a_network_that_does_not_convert_is_a_runtime_failure(format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if format == "openvino":
        pytest.skip("OpenVINO traces by example and takes anything that runs")
    with pytest.raises(RuntimeFailure, match="failed"):
        EXPORTERS[format](Unconvertible(), Contract(height=16, width=16), tmp_path)
    assert capfd.readouterr() == ("", "")
