"""Every kind of model that can be imported becomes a bundle of every format it can become: same answers, verified, quantized, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from import_tools import CLASSES, MODELS, SIZE

from edgeseg.core.bundle import open_bundle
from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import FORMATS
from edgeseg.data.synthetic import write_field
from edgeseg.workflow import bundles
from edgeseg.workflow.bundle.importing import ImportRequest, import_model
from edgeseg.workflow.compress.quantizing import quantize_bundle
from edgeseg.workflow.measure import benching
from edgeseg.workflow.ui import Silent
from exporters.imported import SOURCES
from quantization import QUANTIZERS

NEEDS_TENSORFLOW = {("TensorFlow SavedModel", "tflite")}
PAIRS = [(kind, format_) for kind, source in SOURCES.items() for format_, reason in source.formats.items() if not reason]


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("field")
    write_field(folder, seed=3, counts={"train": 8, "val": 3, "test": 4}, size_hw=SIZE)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model files, each written once."""
    folder, known = tmp_path_factory.mktemp("models"), {}

    def write(kind: str) -> Path:
        if kind not in known:
            name, writer = MODELS[kind]
            known[kind] = writer(folder / name)
        return known[kind]

    return write


def test_every_kind_has_an_example_and_says_what_it_can_become() -> None:
    assert set(MODELS) == set(SOURCES)
    for source in SOURCES.values():
        assert set(source.formats) <= set(FORMATS)
        assert set(source.formats) == {"onnx", "openvino", "tflite"}
        assert not next(iter(source.formats.values())), "the first format is the default"


@pytest.mark.parametrize(("kind", "format_"), PAIRS)
def test_becomes_a_bundle_that_answers_as_the_original(kind: str, format_: str, made: Any, field: Path, tmp_path: Path) -> None:
    if (kind, format_) in NEEDS_TENSORFLOW:
        pytest.importorskip("tensorflow", reason="making a TFLite file of a SavedModel needs TensorFlow")
    request = ImportRequest(model=made(kind), out=tmp_path / "b", data=field, mean=(127.5,), scale=(127.5,), format=format_)
    outcome = import_model(request, ui=Silent())
    assert outcome.facts["agreement"] >= 0.999
    assert outcome.facts["miou"] == pytest.approx(outcome.facts["miou_original"], abs=1e-3)
    bundle = open_bundle(tmp_path / "b")
    assert (bundle.manifest.format, bundle.manifest.precision) == (format_, "fp32")
    assert bundle.manifest.classes == CLASSES
    assert bundle.manifest.reference is not None
    assert bundle.manifest.reference.split == "test"
    assert len({class_map.tobytes() for _, class_map in bundle.golden_pairs()}) > 1, "it answers one thing only"
    verified = bundles.verify(tmp_path / "b", data=field, config=None, target="host", ui=Silent())
    assert verified.passed
    assert verified.facts["miou_drop"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("kind", "format_"), [(kind, next(iter(source.formats))) for kind, source in SOURCES.items()])
def test_quantizes_measures_and_predicts_like_our_own(kind: str, format_: str, made: Any, field: Path, tmp_path: Path) -> None:
    import_model(ImportRequest(model=made(kind), out=tmp_path / "b", data=field, mean=(0.0,), scale=(128.0,)), ui=Silent())
    if format_ != "tflite" and kind != "Keras":  # a mean of 0 fits a border of zeros
        assert open_bundle(tmp_path / "b").manifest.scheme["normalisation"] == "in the first convolution"
    outcome = quantize_bundle(tmp_path / "b", data=field, out=None, num_frames=6, force=False, ui=Silent())
    assert outcome.facts["agreement_with_float"] > 0.9
    int8 = open_bundle(tmp_path / "b-int8").manifest
    assert (int8.format, int8.precision) == (format_, "int8")
    assert int8.scheme["imported"]["kind"] == kind
    assert int8.scheme["calibration"]["num_frames"] == 6
    assert bundles.verify(tmp_path / "b-int8", data=None, config=None, target="host", ui=Silent()).passed
    measured = benching.bench(benching.BenchRequest(folder=tmp_path / "b-int8", quick=True, threads=1), Silent())
    assert measured.facts["inference"]["p50_ms"] > 0
    predicted = bundles.predict(
        tmp_path / "b-int8", field / "images" / "test", tmp_path / "out", target="host", overlay=False, force=False, ui=Silent(),
    )
    assert predicted.facts["num_frames"] == 4


@pytest.mark.parametrize(
    ("kind", "format_"), [(kind, format_) for kind, source in SOURCES.items() for format_, reason in source.formats.items() if reason],
)
def test_refuses_a_format_with_the_reason(kind: str, format_: str, made: Any, tmp_path: Path) -> None:
    request = ImportRequest(model=made(kind), out=tmp_path / "b", classes=CLASSES, format=format_)
    with pytest.raises(ConfigError, match="cannot become") as caught:
        import_model(request, ui=Silent())
    assert SOURCES[kind].formats[format_] in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_every_format_of_a_bundle_has_a_quantizer() -> None:
    assert {format_ for _, format_ in PAIRS} <= set(QUANTIZERS)
