"""Every runtime of the registry keeps the same promises; a new entry is tested the moment it is listed."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from tiny_models import ANSWERS, WRITERS, tiny_bundle, tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError, ConfigError, DataError, MissingExtraError, RuntimeFailure, TargetError
from targets.runtimes import RUNTIMES, CheckedSession, RuntimeOptions, Session, open_session
from targets.runtimes.cache import KEPT
from targets.verify import check_golden

ELSEWHERE = {"tflite_runtime", "tensorrt"}
"""The first needs numpy < 2, the second a GPU: tests/unit/test_targets_tflite_runtime.py, tests/unit/test_targets_tensorrt.py."""
PAIRS = [(name, format) for name, runtime in RUNTIMES.items() if name not in ELSEWHERE for format in sorted(runtime.formats)]
SDK_PAIRS = [pair for pair in PAIRS if pair[0] != "null"]
OPTIONS = RuntimeOptions(num_threads=1)


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, format = request.param
    assert RUNTIMES[name].version() is not None, f"{name} is not installed; type: make setup"
    return name, format


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {format: tiny_bundle(tmp_path_factory.mktemp("bundles"), format) for format in WRITERS}


@pytest.fixture
def session(pair: tuple[str, str], bundles: dict[str, Bundle]) -> Iterator[Session]:
    opened = open_session(bundles[pair[1]], pair[0], OPTIONS)
    yield opened
    opened.close()
    opened.close()  # twice is allowed


def test_answers_as_the_model_says(pair: tuple[str, str], session: Session) -> None:
    for seed in range(3):
        frame = tiny_frame(seed)
        answer = session.run(frame)
        assert answer.dtype == np.uint8
        np.testing.assert_array_equal(answer, ANSWERS[pair[1]](frame))


def test_an_answer_belongs_to_the_caller(pair: tuple[str, str], session: Session) -> None:
    first = session.run(tiny_frame(1))
    session.run(tiny_frame(2))
    np.testing.assert_array_equal(first, ANSWERS[pair[1]](tiny_frame(1)))
    first[:] = 7
    np.testing.assert_array_equal(session.run(tiny_frame(1)), ANSWERS[pair[1]](tiny_frame(1)))


def test_takes_frames_that_are_read_only_or_strided(pair: tuple[str, str], session: Session) -> None:
    frame = tiny_frame(3)
    expected = ANSWERS[pair[1]](frame)
    strided = np.repeat(frame, 2, axis=1)[:, ::2]
    frame.setflags(write=False)
    np.testing.assert_array_equal(session.run(frame), expected)
    np.testing.assert_array_equal(session.run(strided), expected)


def test_writes_into_what_it_is_given(pair: tuple[str, str], session: CheckedSession) -> None:
    outs = [np.full((24, 32), 77, dtype=np.uint8) for _ in range(2)]
    buffer = np.zeros((24, 32, 3), dtype=np.uint8)  # the same array again and again, with other pixels in it
    for seed in range(4):
        buffer[:] = tiny_frame(seed)
        out = outs[seed % 2]
        assert session.run(buffer, out) is out
        np.testing.assert_array_equal(out, ANSWERS[pair[1]](tiny_frame(seed)))
    kept = outs[0].copy()
    session.run(tiny_frame(5))  # an answer that was handed out is not touched by calls that have none
    np.testing.assert_array_equal(outs[0], kept)
    buffer.setflags(write=False)  # a frame that can no longer be shared, with new pixels all the same
    np.testing.assert_array_equal(session.run(buffer, outs[1]), ANSWERS[pair[1]](tiny_frame(3)))


def test_arrays_that_take_turns_are_read_and_written_anew_and_not_kept_alive(pair: tuple[str, str], session: CheckedSession) -> None:
    frames, outs = [tiny_frame() for _ in range(3)], [np.zeros((24, 32), np.uint8) for _ in range(2)]
    for seed in range(18):
        frame, out = frames[seed % 3], outs[seed % 2]
        frame[:] = tiny_frame(seed)
        assert session.run(frame, out) is out
        np.testing.assert_array_equal(out, ANSWERS[pair[1]](frame))
    known = [weakref.ref(array) for array in (*frames, *outs)]
    del frames, outs, frame, out
    for seed in range(100):  # new arrays at the addresses of old ones
        np.testing.assert_array_equal(session.run(tiny_frame(seed), np.zeros((24, 32), np.uint8)), ANSWERS[pair[1]](tiny_frame(seed)))
    assert [array for array in known if array() is not None] == []


@pytest.mark.parametrize("out", [
    np.zeros((24, 31), np.uint8), np.zeros((24, 32), np.int32), np.zeros((32, 24), np.uint8).T, np.zeros((1, 24, 32), np.uint8),
], ids=["size", "dtype", "order", "rank"])
def test_refuses_to_write_elsewhere(session: CheckedSession, out: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected a writeable C-contiguous array uint8"):
        session.run(tiny_frame(), out)
    sealed = np.zeros((24, 32), np.uint8)
    sealed.setflags(write=False)
    with pytest.raises(DataError, match="expected a writeable"):
        session.run(tiny_frame(), sealed)


@pytest.mark.parametrize("wrong", [
    tiny_frame(height=24, width=31), tiny_frame()[:, :, :2], tiny_frame().astype(np.float32), tiny_frame()[np.newaxis],
], ids=["size", "channels", "dtype", "rank"])
def test_refuses_what_is_not_a_frame_of_its_size(session: Session, wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match="where the model takes uint8"):
        session.run(wrong)


def test_golden_frames_come_out_as_sealed(pair: tuple[str, str], session: Session, bundles: dict[str, Bundle]) -> None:
    assert check_golden(bundles[pair[1]], session) == 1.0


def test_says_what_was_pinned(pair: tuple[str, str], session: Session) -> None:
    assert session.settings["runtime"] == pair[0]
    assert session.settings["provider"] == "cpu"
    if pair[0] != "null":
        assert session.settings["precision_hint"] == "f32"
        assert any("thread" in key.lower() and value == "1" for key, value in session.settings.items())


def test_a_model_cut_in_half_is_one_clear_line(pair: tuple[str, str], tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, pair[1])
    for name in WRITERS[pair[1]](tmp_path, 24, 32):
        path = bundle.folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((RuntimeFailure, BundleError)) as caught:
        open_session(bundle, pair[0], OPTIONS)
    message = str(caught.value)
    assert "\n" not in message
    assert bundle.manifest.entry in message


@pytest.mark.parametrize("pair", SDK_PAIRS, ids=lambda pair: "-".join(pair))
def test_a_model_of_another_size_is_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, pair[1])
    contract = replace(bundle.manifest.contract, height=20)
    with pytest.raises(BundleError, match=r"the contract says uint8 \[1, 20, 32, 3\]"):
        open_session(Bundle(bundle.folder, replace(bundle.manifest, contract=contract)), pair[0], OPTIONS)


@pytest.mark.parametrize("provider", ["gpu", "npu", "cuda", "tensorrt"])
def test_never_falls_back(pair: tuple[str, str], provider: str, bundles: dict[str, Bundle]) -> None:
    if pair[0] == "onnxruntime":
        from targets.runtimes.onnxruntime import available_providers

        if provider in available_providers():
            pytest.skip(f"{provider} is here, so nothing can fall back")
    with pytest.raises(TargetError):
        open_session(bundles[pair[1]], pair[0], RuntimeOptions(provider=provider))


@pytest.mark.parametrize("pair", SDK_PAIRS, ids=lambda pair: "-".join(pair))
@pytest.mark.parametrize("hint", ["bf16", "f16"])
def test_executes_in_the_precision_asked_for_or_refuses(pair: tuple[str, str], hint: str, bundles: dict[str, Bundle]) -> None:
    try:
        opened = open_session(bundles[pair[1]], pair[0], RuntimeOptions(precision_hint=hint))
    except TargetError as error:
        assert "f32" in str(error)
    else:
        assert opened.settings["executed_precision"] == hint
        opened.close()


def test_refuses_formats_it_does_not_run(pair: tuple[str, str], bundles: dict[str, Bundle]) -> None:
    for format, bundle in bundles.items():
        if format not in RUNTIMES[pair[0]].formats:
            with pytest.raises(TargetError, match=f"does not run {format}"):
                open_session(bundle, pair[0], OPTIONS)


def test_unknown_runtime_and_options_are_refused(bundles: dict[str, Bundle]) -> None:
    with pytest.raises(ConfigError, match="runtime 'tensorflow' is unknown"):
        open_session(bundles["null"], "tensorflow", OPTIONS)
    with pytest.raises(ConfigError, match="at least 1"):
        RuntimeOptions(num_threads=0)
    with pytest.raises(ConfigError, match="one of cpu, gpu, npu, cuda, tensorrt"):
        RuntimeOptions(provider="vulkan")
    with pytest.raises(ConfigError, match="streams = 0: expected at least 1"):
        RuntimeOptions(streams=0)
    with pytest.raises(ConfigError, match="one of f32, bf16, f16"):
        RuntimeOptions(precision_hint="fp32")


@pytest.mark.parametrize("asked", [{"device": "9"}, {"extra": {"ANSWER": "42"}}], ids=["device", "extra"])
def test_refuses_by_name_what_it_does_not_have(pair: tuple[str, str], asked: dict[str, Any], bundles: dict[str, Bundle]) -> None:
    with pytest.raises(TargetError, match=r"device|ANSWER"):
        open_session(bundles[pair[1]], pair[0], RuntimeOptions(num_threads=1, **asked))


def test_keeps_what_it_is_said_to_keep_or_refuses_a_cache(pair: tuple[str, str], bundles: dict[str, Bundle], tmp_path: Path) -> None:
    options = RuntimeOptions(num_threads=1, cache_dir=str(tmp_path))
    if (pair[0], "cpu") in KEPT:
        open_session(bundles[pair[1]], pair[0], options).close()
        assert list(tmp_path.rglob("facts.json"))
    else:
        with pytest.raises(TargetError, match="no cache"):
            open_session(bundles[pair[1]], pair[0], options)
        assert not list(tmp_path.iterdir())


def test_float_input_breaks_the_contract(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "onnx", write=lambda folder, h, w: tiny_models.write_onnx(folder, h, w, frame_dtype="float32"))
    with pytest.raises(BundleError, match=r"input 'frame' is tensor\(float\)"):
        open_session(bundle, "onnxruntime", OPTIONS)


@pytest.mark.parametrize(("runtime", "format", "module", "extra"), [
    ("onnxruntime", "onnx", "onnxruntime", "onnx"), ("openvino", "openvino", "openvino", "intel"),
    ("litert", "tflite", "ai_edge_litert.interpreter", "pi"), ("tflite_runtime", "tflite", "tflite_runtime.interpreter", "pi-legacy"),
])
def test_an_sdk_that_is_not_there_names_its_extra(
    runtime: str, format: str, module: str, extra: str, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'edgeseg\[{extra}\]'"):
        open_session(bundles[format], runtime, OPTIONS)


def test_extras_that_messages_name_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    declared = set(re.findall(r"^([a-z-]+) = \[", (root / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {
        extra for file in (root / "targets").rglob("*.py")
        for extra in re.findall(r"""(?:edgeseg\[|extra=")([a-z-]+)""", file.read_text(encoding="utf-8"))
    }
    assert {"pi", "pi-legacy", "intel", "onnx", "video"} <= named
    assert named <= declared


SDKS = ("torch", "onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime", "onnx", "nncf", "litert_torch", "av", "tensorrt", "cv2")


def _fresh(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_targets_loads_no_sdk() -> None:
    code = """
        import importlib, pkgutil, sys
        import targets
        for module in pkgutil.walk_packages(targets.__path__, "targets."):
            importlib.import_module(module.name)
        import targets.doctor
        targets.doctor.examine()
        print(sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[1:])))
    """
    assert _fresh(code, *SDKS) == "[]"


def test_predict_loads_no_torch(pair: tuple[str, str], bundles: dict[str, Bundle]) -> None:
    code = """
        import sys
        from pathlib import Path
        from edgeseg.core.bundle import open_bundle
        from targets.predict import predict_frame
        from targets.runtimes import RuntimeOptions, open_session
        bundle = open_bundle(Path(sys.argv[1]))
        session = open_session(bundle, sys.argv[2], RuntimeOptions())
        frame, class_map = bundle.golden_pairs()[0]
        assert (predict_frame(session, bundle, frame) == class_map).all()
        print(sorted({"torch", "onnx", "nncf", "litert_torch"} & set(sys.modules)))
    """
    assert _fresh(code, str(bundles[pair[1]].folder), pair[0]) == "[]"
