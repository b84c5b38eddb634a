"""Options of single runtimes: devices, streams, delegates, caches. What all runtimes have is in tests/contract/test_runtimes.py."""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_models import strongest_channel, tiny_bundle, tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import NoPermissionError, OutputError, TargetError
from edgeseg.core.files import sha256_file
from targets.runtimes import RuntimeOptions, cache, onnxruntime, open_session
from targets.runtimes.base import installed_version
from targets.runtimes.cache import cache_folder, intact, keeping, processor_facts
from targets.runtimes.cuda import Cuda


@pytest.fixture(scope="module")
def openvino(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("openvino"), "openvino")


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("tflite"), "tflite")


def answers_right(bundle: Bundle, runtime: str, options: RuntimeOptions) -> dict[str, str]:
    session = open_session(bundle, runtime, options)
    for seed in range(2):
        np.testing.assert_array_equal(session.run(tiny_frame(seed)), strongest_channel(tiny_frame(seed)))
    settings = dict(session.settings)
    session.close()
    return settings


@pytest.mark.parametrize(("provider", "device"), [("gpu", ""), ("npu", ""), ("gpu", "GPU.7")])
def test_a_device_that_is_not_there_is_refused_with_what_is(openvino: Bundle, provider: str, device: str) -> None:
    import openvino as ov

    if any(name.startswith(provider.upper()) for name in ov.Core().available_devices):
        pytest.skip(f"there is a {provider} here")
    with pytest.raises(TargetError, match=rf"sees no {device or provider.upper()} on this machine; it sees CPU"):
        open_session(openvino, "openvino", RuntimeOptions(provider=provider, device=device))


@pytest.mark.parametrize("device", ["AUTO", "MULTI:CPU", "HETERO:CPU,GPU", "GPU"])
def test_openvino_never_chooses_the_device_itself(openvino: Bundle, device: str) -> None:
    with pytest.raises(TargetError, match="is no CPU device"):
        open_session(openvino, "openvino", RuntimeOptions(device=device))


TWO_PROCESSORS = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a stream needs a processor of its own")


@TWO_PROCESSORS
def test_openvino_takes_streams_and_its_own_settings(openvino: Bundle) -> None:
    settings = answers_right(openvino, "openvino", RuntimeOptions(num_threads=2, streams=2, extra={"ENABLE_CPU_PINNING": "NO"}))
    assert settings["NUM_STREAMS"] == "2"
    assert settings["ENABLE_CPU_PINNING"] in ("NO", "False")
    assert settings["device"] == "CPU"


def test_more_streams_than_processors_are_refused(openvino: Bundle) -> None:
    many = len(os.sched_getaffinity(0)) + 1
    with pytest.raises(TargetError, match=f"where {many} were asked for"):
        open_session(openvino, "openvino", RuntimeOptions(num_threads=many, streams=many))


@TWO_PROCESSORS
def test_as_many_threads_as_streams_get_their_own_answers(openvino: Bundle) -> None:
    session = open_session(openvino, "openvino", RuntimeOptions(num_threads=2, streams=2))
    frames = [tiny_frame(seed) for seed in range(40)]
    with ThreadPoolExecutor(2) as pool:
        for frame, answer in zip(frames, pool.map(session.run, frames), strict=True):
            np.testing.assert_array_equal(answer, strongest_channel(frame))
    session.close()


def test_openvino_keeps_compiled_models_apart(openvino: Bundle, tmp_path: Path) -> None:
    options = RuntimeOptions(cache_dir=str(tmp_path))
    answers_right(openvino, "openvino", options)
    made = sorted(tmp_path.rglob("*.blob"))
    assert len(made) == 1
    facts = json.loads((made[0].parent / "facts.json").read_text())
    assert facts["model_sha256"] == openvino.manifest.sha256
    answers_right(openvino, "openvino", options)  # taken from there
    assert sorted(tmp_path.rglob("*.blob")) == made
    answers_right(openvino, "openvino", RuntimeOptions(cache_dir=str(tmp_path), extra={"ENABLE_CPU_PINNING": "NO"}))
    assert len(list(tmp_path.rglob("*.blob"))) == 2


class GpuBinding:
    """What ONNX Runtime's binding does where the provider has memory of its own: an input is copied when it is bound, not when it runs."""

    def bind_ortvalue_input(self, name: str, value: np.ndarray) -> None:
        self.frame = value.copy()

    def bind_ortvalue_output(self, name: str, value: np.ndarray) -> None:
        self.answer = value


class GpuOnnx:
    """Stands for the SDK and its session on a GPU, which no machine of the tests has."""

    class OrtValue:
        @staticmethod
        def ortvalue_from_numpy(array: np.ndarray) -> np.ndarray:
            return array

    def io_binding(self) -> GpuBinding:
        return GpuBinding()

    def run_with_iobinding(self, binding: GpuBinding) -> None:
        binding.answer[:] = strongest_channel(binding.frame[0])


def test_a_gpu_answers_what_is_in_a_buffer_now(tmp_path: Path) -> None:
    gpu = GpuOnnx()
    session = onnxruntime._bind(tiny_bundle(tmp_path, "onnx"), gpu, gpu, {"provider": "cuda"}, shared=False)
    buffer, out = tiny_frame(0), np.zeros((24, 32), np.uint8)  # as a camera's: the same array with other pixels in it
    for seed in range(3):
        buffer[:] = tiny_frame(seed)
        np.testing.assert_array_equal(session.run(buffer, out), strongest_channel(tiny_frame(seed)))


def test_litert_without_its_delegate(tflite: Bundle) -> None:
    assert "XNNPACK" in answers_right(tflite, "litert", RuntimeOptions())["delegate"]
    assert answers_right(tflite, "litert", RuntimeOptions(delegate=False))["delegate"] == "none"


def test_a_compiled_model_that_changed_is_not_taken(openvino: Bundle, tmp_path: Path) -> None:
    options = RuntimeOptions(cache_dir=str(tmp_path))
    answers_right(openvino, "openvino", options)
    (blob,) = tmp_path.rglob("*.blob")
    whole, hashes = blob.read_bytes(), blob.with_name("sha256.json")
    blob.write_bytes(whole[:-64] + b"\x7f" * 64)
    answers_right(openvino, "openvino", options)
    assert json.loads(hashes.read_text()) == {blob.name: sha256_file(blob)}
    assert b"\x7f" * 64 not in blob.read_bytes()
    made = blob.stat().st_ino, blob.stat().st_mtime_ns
    answers_right(openvino, "openvino", options)
    assert (blob.stat().st_ino, blob.stat().st_mtime_ns) == made  # taken from there
    hashes.write_text("[]")  # harmed itself: nothing is known of what lies there
    answers_right(openvino, "openvino", options)
    assert json.loads(hashes.read_text()) == {blob.name: sha256_file(blob)}


def test_a_kept_file_that_nothing_is_known_of_and_that_cannot_be_read_goes(tmp_path: Path) -> None:
    (tmp_path / "a.blob").symlink_to("/proc/self/mem")  # reading it is an input/output error, as with a bad block
    with pytest.raises(OSError, match="Input/output error"):
        (tmp_path / "a.blob").read_bytes()
    with intact(tmp_path):
        assert not (tmp_path / "a.blob").is_symlink()


def test_what_is_kept_is_said(tmp_path: Path) -> None:
    plain, root = RuntimeOptions(), tmp_path / "not" / "there"
    environment = {"EDGESEG_CACHE": str(root)}
    assert keeping("litert", plain, environment) == keeping("onnxruntime", plain, environment) == (plain, "")
    assert not (tmp_path / "not").exists()
    assert keeping("openvino", plain, environment) == (RuntimeOptions(cache_dir=str(root)), f"compiled model kept in {root}")
    assert list(root.iterdir()) == []
    for bad in (Path("/proc/cache"), Path("/dev/null/cache")):  # where not even the superuser can write
        options, words = keeping("openvino", plain, {"EDGESEG_CACHE": str(bad)})
        assert options == plain
        assert re.fullmatch(rf"compiled model not kept: {bad} cannot be used \(.+\); set EDGESEG_CACHE to a folder that can", words)
        engine = RuntimeOptions(provider="tensorrt")  # always kept; opening says what is wrong
        assert keeping("tensorrt", engine, {"EDGESEG_CACHE": str(bad)}) == (engine, "")


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_cache_that_cannot_be_locked_is_said_and_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system of another machine that gives no locks."""
    monkeypatch.setattr(fcntl, "flock", no_locks)
    words = f"compiled model not kept: {tmp_path} cannot be used (No locks available); set EDGESEG_CACHE to a folder that can"
    assert keeping("openvino", RuntimeOptions(), {"EDGESEG_CACHE": str(tmp_path)}) == (RuntimeOptions(), words)


def test_a_cache_that_fails_when_it_is_used_is_not_the_bundles_fault(
    openvino: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RuntimeOptions(cache_dir=str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(OutputError, match=rf"^No locks available while writing the cache {tmp_path}/openvino/\w+$"):
            open_session(openvino, "openvino", options)
    monkeypatch.setattr(cache, "write_json", no_room)
    with pytest.raises(OutputError, match=rf"^disk full while writing the cache {tmp_path}/openvino/\w+; free some space"):
        open_session(openvino, "openvino", options)


def test_a_cache_that_others_may_write_is_refused(openvino: Bundle, tmp_path: Path) -> None:
    facts = {"model_sha256": "0", "driver": "1"}
    folder = cache_folder(str(tmp_path), "some", facts)
    assert folder == cache_folder(str(tmp_path), "some", dict(reversed(facts.items())))
    assert folder != cache_folder(str(tmp_path), "some", {**facts, "driver": "2"})
    folder.chmod(0o777)
    with pytest.raises(NoPermissionError, match="is not this user's alone to write"):
        cache_folder(str(tmp_path), "some", facts)
    elsewhere = cache_folder(str(tmp_path), "some", {"model_sha256": "1"})
    for file in elsewhere.iterdir():
        file.unlink()
    elsewhere.rmdir()
    elsewhere.symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(NoPermissionError):
        cache_folder(str(tmp_path), "some", {"model_sha256": "1"})


def test_a_processor_is_its_kind_and_instructions_not_its_clock(tmp_path: Path) -> None:
    text = "processor : 0\nmodel name : A\ncpu MHz : {}\nflags : fpu avx2\n"
    (tmp_path / "a").write_text(text.format(1000))
    (tmp_path / "b").write_text(text.format(2000))
    (tmp_path / "c").write_text(text.format(1000).replace("avx2", "avx2 avx512f"))
    a, b, c = (processor_facts(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c


def test_no_gpu_is_said_before_an_sdk_is_asked() -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is an NVIDIA driver here")
    with pytest.raises(TargetError, match="there is no NVIDIA driver here"):
        Cuda()


def test_the_version_is_that_of_the_record_whatever_its_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_version("no-such-package", "numpy") == importlib.metadata.version("numpy") == np.__version__
    (tmp_path / "some_sdk_extra-7.dist-info").mkdir()
    for left in ("some_sdk-1.1.dist-info", "gone_sdk-4.dist-info"):  # when it was removed
        (tmp_path / left).mkdir()
    (tmp_path / "some_sdk-1.2+cu12.dist-info").mkdir()
    (tmp_path / "some_sdk-1.2+cu12.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: some-sdk\nVersion: 1.2+cu12\n")
    (tmp_path / "old_sdk-3.1.egg-info").mkdir()
    (tmp_path / "old_sdk-3.1.egg-info" / "PKG-INFO").write_text("Metadata-Version: 1.2\nName: old-sdk\nVersion: 3.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "absent")
    assert [installed_version(name) for name in ("some-sdk", "old-sdk", "gone-sdk", "sdk")] == ["1.2+cu12", "3.1", None, None]
