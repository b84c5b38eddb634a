"""TensorRT by itself, as far as it goes without a GPU.

The names the run side uses are looked up in the real classes of TensorRT's lean runtime where that is installed (`pip install
tensorrt-lean-cu12`). Everything around them (when an engine is built, kept, refused) runs against stand-ins: a driver that keeps the GPU's
memory in this process's, and a TensorRT whose engine is the ONNX file, executed by ONNX Runtime.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sshd_tools import small_disk
from tiny_models import strongest_channel, tiny_bundle, tiny_frame

import targets.runtimes.tensorrt as room
from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import MissingExtraError, NoPermissionError, OutputError, RuntimeFailure, TargetError
from targets.runtimes import CheckedSession, RuntimeOptions, open_session
from targets.runtimes import cuda as cuda_room
from targets.runtimes import onnxruntime as onnxruntime_room
from targets.runtimes.cuda import Cuda
from targets.runtimes.tensorrt_model import check_model

OPTIONS = RuntimeOptions(provider="tensorrt")


class Driver:
    """Plays libcuda: addresses are this process's own."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.contexts = self.streams = 0
        self.version = 12060
        self.capability = {75: 8, 76: 7}

    def cuInit(self, flags: Any) -> int:
        return 0

    def cuDeviceGetCount(self, out: Any) -> int:
        out._obj.value = 1
        return 0

    def cuDeviceGet(self, out: Any, ordinal: Any) -> int:
        out._obj.value = ordinal.value
        return 0

    def cuDriverGetVersion(self, out: Any) -> int:
        out._obj.value = self.version
        return 0

    def cuDeviceGetName(self, name: Any, length: Any, device: Any) -> int:
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, out: Any, what: Any, device: Any) -> int:
        out._obj.value = self.capability[what.value]
        return 0

    def cuDevicePrimaryCtxRetain(self, out: Any, device: Any) -> int:
        out._obj.value = 1
        self.contexts += 1
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:
        self.contexts -= 1
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        return 0 if context.value else 201

    def cuStreamCreate(self, out: Any, flags: Any) -> int:
        out._obj.value = 5
        self.streams += 1
        return 0

    def cuStreamDestroy_v2(self, stream: Any) -> int:
        self.streams -= 1
        return 0

    def cuStreamSynchronize(self, stream: Any) -> int:
        return 0

    def cuMemAlloc_v2(self, out: Any, size: Any) -> int:
        block = ctypes.create_string_buffer(size.value)
        out._obj.value = ctypes.addressof(block)
        self.memory[out._obj.value] = block
        return 0

    def cuMemFree_v2(self, address: Any) -> int:
        return 0 if self.memory.pop(address.value, None) is not None else 1

    def cuMemcpyHtoDAsync_v2(self, address: Any, source: Any, size: Any, stream: Any) -> int:
        assert size.value <= len(self.memory[address.value])
        ctypes.memmove(address.value, source.value, size.value)
        return 0

    def cuMemcpyDtoHAsync_v2(self, target: Any, address: Any, size: Any, stream: Any) -> int:
        assert size.value <= len(self.memory[address.value])
        ctypes.memmove(target.value, address.value, size.value)
        return 0

    def cuGetErrorName(self, code: Any, out: Any) -> int:
        out._obj.value = b"CUDA_ERROR_%d" % code.value
        return 0


class StandIn:
    """Plays the module `tensorrt`."""

    TensorIOMode = SimpleNamespace(INPUT=1, OUTPUT=2)
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1)

    def __init__(self, version: str = "10.3.0") -> None:
        self.__version__ = version
        self.built: list[dict[str, Any]] = []
        self.wrong = self.unreadable = False
        modern = version.startswith("11")
        self.BuilderFlag = SimpleNamespace(TF32=3) if modern else SimpleNamespace(TF32=3, FP16=0, INT8=1)

    def Builder(self, log: Any) -> Any:
        flags, facts = {self.BuilderFlag.TF32}, {}
        network = SimpleNamespace(file=b"")

        def create_network(typed: int) -> Any:
            facts["strongly_typed"] = bool(typed)
            return network

        def build(of: Any, config: Any) -> bytes:
            self.built.append({**facts, "flags": set(flags)})
            return b"ENGINE" + of.file

        config = SimpleNamespace(set_flag=flags.add, clear_flag=flags.remove)
        return SimpleNamespace(create_network=create_network, create_builder_config=lambda: config, build_serialized_network=build)

    def OnnxParser(self, network: Any, log: Any) -> Any:
        def parse(file: bytes) -> bool:
            network.file = file
            return not self.unreadable

        error = SimpleNamespace(desc=lambda: "Assertion failed: no importer for Foo")
        return SimpleNamespace(parse=parse, num_errors=1, get_error=lambda index: error)

    def Runtime(self, log: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda blob: _Engine(blob[6:], self.wrong) if blob[:6] == b"ENGINE" else None)


class _Engine:
    def __init__(self, file: bytes, wrong: bool) -> None:
        session = onnxruntime.InferenceSession(file)
        self.ports = {port.name: port for port in (*session.get_inputs(), *session.get_outputs())}
        self.num_io_tensors, self.names, self.addresses = len(self.ports), list(self.ports), {}
        self.session, self.wrong = session, wrong

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name={"tensor(uint8)": "UINT8"}[self.ports[name].type])

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.ports[name].shape)

    def get_tensor_mode(self, name: str) -> int:
        return 1 if name == "frame" else 2

    def create_execution_context(self) -> Any:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        shape = self.ports["frame"].shape
        frame = np.frombuffer((ctypes.c_uint8 * int(np.prod(shape))).from_address(self.addresses["frame"]), np.uint8).reshape(shape)
        answer = self.session.run(["class_map"], {"frame": frame})[0]
        answer = answer[..., ::-1].copy() if self.wrong else answer
        ctypes.memmove(self.addresses["class_map"], answer.ctypes.data, answer.nbytes)
        return stream == 5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("onnx"), "onnx")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    playing = Driver()
    monkeypatch.setattr(cuda_room, "load_driver", lambda: playing)
    return playing


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, driver: Driver, tmp_path: Path) -> Iterator[StandIn]:
    playing = StandIn()
    monkeypatch.setitem(sys.modules, "tensorrt", playing)  # type: ignore[arg-type]
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path))
    yield playing
    assert not driver.memory, "memory of the GPU was not freed"
    assert (driver.contexts, driver.streams) == (0, 0)


def opened(bundle: Bundle, options: RuntimeOptions = OPTIONS) -> CheckedSession:
    return open_session(bundle, "tensorrt", options)


def engine_was(bundle: Bundle, options: RuntimeOptions = OPTIONS) -> str:
    session = opened(bundle, options)
    session.close()
    session.close()  # twice is allowed
    return session.settings["engine_was"]


def test_answers_through_an_engine_of_its_own(bundle: Bundle, trt: StandIn, tmp_path: Path) -> None:
    session = opened(bundle)
    out = np.zeros((24, 32), np.uint8)
    for seed in range(3):
        np.testing.assert_array_equal(session.run(tiny_frame(seed), out), strongest_channel(tiny_frame(seed)))
    assert session.settings["compute_capability"] == "8.7"
    session.close()
    assert trt.built == [{"strongly_typed": True, "flags": set()}]  # no TF32 either
    engines = list((tmp_path / "tensorrt").rglob("*.engine"))
    assert [engine.stat().st_mode & 0o777 for engine in engines] == [0o600]


def test_an_engine_is_kept_for_exactly_the_same_facts(bundle: Bundle, trt: StandIn, driver: Driver, tmp_path: Path) -> None:
    assert [engine_was(bundle), engine_was(bundle)] == ["built now", "kept"]
    driver.version = 13000  # another driver
    assert [engine_was(bundle), engine_was(bundle)] == ["built now", "kept"]
    driver.capability[76] = 6  # another GPU
    assert engine_was(bundle) == "built now"
    trt.__version__ = "10.4.0"
    assert engine_was(bundle) == "built now"
    assert engine_was(tiny_bundle(tmp_path / "other", "onnx", height=48)) == "built now"
    driver.version, driver.capability[76], trt.__version__ = 12060, 7, "10.3.0"
    assert engine_was(bundle) == "kept"


@pytest.mark.parametrize("harm", ["engine", "facts", "no facts", "hash"])
def test_what_is_not_as_it_was_written_is_built_anew(bundle: Bundle, trt: StandIn, tmp_path: Path, harm: str) -> None:
    engine_was(bundle)
    (engine,) = tmp_path.rglob("*.engine")
    facts = engine.with_name("engine.json")
    if harm == "engine":
        engine.write_bytes(engine.read_bytes()[:-1] + b"x")
    elif harm == "facts":
        facts.write_text("{")
    elif harm == "no facts":
        facts.unlink()
    else:
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "engine_sha256": "0" * 64}))
    assert [engine_was(bundle), engine_was(bundle)] == ["built now", "kept"]


def test_an_engine_that_others_may_write_is_refused(bundle: Bundle, trt: StandIn, tmp_path: Path) -> None:
    engine_was(bundle)
    (engine,) = tmp_path.rglob("*.engine")
    engine.chmod(0o666)
    with pytest.raises(NoPermissionError, match="is not this user's alone to write"):
        opened(bundle)


def test_a_full_disk_is_said_and_nothing_stays_half_written(
    bundle: Bundle, trt: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, pages = 4096, 32
    with small_disk(tmp_path / "cache", page * pages) as cache:
        monkeypatch.setenv("EDGESEG_CACHE", str(cache))
        rest, free, told = cache / "rest", 0, 0
        while True:
            rest.write_bytes(bytes(page * (pages - free)))
            try:
                assert engine_was(bundle) == "built now"
                break
            except OutputError as error:
                assert "disk full while writing the cache" in str(error)
            assert not [path for pattern in ("*.engine", "engine.json", "*.tmp") for path in cache.rglob(pattern)]
            rest.unlink()
            free, told = free + 1, told + 1
        assert told >= 3  # neither the facts, nor the engine, nor its hash
        assert engine_was(bundle) == "kept"


def test_an_engine_with_other_answers_is_not_used_and_not_kept(bundle: Bundle, trt: StandIn, tmp_path: Path) -> None:
    trt.wrong = True
    with pytest.raises(TargetError, match=r"of its golden frames as they were sealed where 99\.90% are asked for; it is not used"):
        opened(bundle)
    assert not list(tmp_path.rglob("*.engine"))


def test_an_engine_outlives_what_breaks_off_its_check(bundle: Bundle, trt: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, "_check_golden", stopped)
        with pytest.raises(KeyboardInterrupt):
            opened(bundle)
    assert engine_was(bundle) == "kept"


def test_an_engine_of_another_recipe_is_not_used(bundle: Bundle, trt: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_was(bundle)
    monkeypatch.setattr(room, "RECIPE", "of old")
    assert [engine_was(bundle), engine_was(bundle)] == ["built now", "kept"]


def test_onnxruntime_keeps_no_engines_of_an_unknown_tensorrt(bundle: Bundle, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_room, "tensorrt_version", lambda: None)
    with pytest.raises(TargetError, match="the version of TensorRT is not known"):
        onnxruntime_room._engine_folder(bundle, RuntimeOptions(provider="tensorrt", cache_dir="cache"))


def test_f16_is_a_flag_up_to_tensorrt_10_and_refused_after(bundle: Bundle, trt: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    f16 = RuntimeOptions(provider="tensorrt", precision_hint="f16")
    assert engine_was(bundle, f16) == "built now"
    assert trt.built == [{"strongly_typed": False, "flags": {trt.BuilderFlag.FP16}}]
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn("11.4.0"))  # type: ignore[arg-type]
    with pytest.raises(TargetError, match=r"TensorRT 11\.4\.0 takes the arithmetic from the file alone"):
        opened(bundle, f16)
    assert engine_was(bundle) == "built now"


def test_what_the_parser_says_is_passed_on(bundle: Bundle, trt: StandIn) -> None:
    trt.unreadable = True
    with pytest.raises(RuntimeFailure, match=r"cannot read model\.onnx \(Assertion failed: no importer for Foo\)"):
        opened(bundle)


def test_refuses_what_it_does_not_have(bundle: Bundle, trt: StandIn) -> None:
    for options, words in ((RuntimeOptions(), "choose provider tensorrt"), (RuntimeOptions(provider="tensorrt", streams=2), "no streams"),
                           (RuntimeOptions(provider="tensorrt", precision_hint="bf16"), "not for bf16"),
                           (RuntimeOptions(provider="tensorrt", device="1"), "there is no GPU 1 on this machine; it has 1")):
        with pytest.raises(TargetError, match=words):
            opened(bundle, options)


def test_without_tensorrt_it_is_said_where_it_comes_from(bundle: Bundle, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match="tensorrt is not installed; type: python3 -m venv --system-site-packages FOLDER"):
        opened(bundle)


def test_without_a_driver_nothing_is_tried(bundle: Bundle) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is an NVIDIA driver here")
    with pytest.raises(TargetError, match="there is no NVIDIA driver here"):  # TensorRT itself would end the process
        opened(bundle)


def test_a_driver_that_fails_says_what(driver: Driver) -> None:
    cuda = Cuda()
    with pytest.raises(RuntimeFailure, match="cuCtxSetCurrent of the NVIDIA driver failed: CUDA_ERROR_201"):
        cuda.enter()


def _write(folder: Path, nodes: list[Any], constants: list[Any]) -> tuple[str, ...]:
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 24, 32, 3])],
        [helper.make_tensor_value_info("class_map", TensorProto.UINT8, [1, 24, 32])], constants,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
    return ("model.onnx",)


@pytest.mark.parametrize(("form", "words"), [
    ("symmetric", ""),
    ("weights", ""),
    ("frame", "Transpose 'early' reads the uint8 frame, which must be cast to floats first"),
    ("inside", "Cast 'early' gives uint8 inside the network"),
    ("asymmetric", "QuantizeLinear 'early' quantizes to other than int8"),
    ("bytes by default", "QuantizeLinear 'early' quantizes to other than int8"),
    ("off zero", "QuantizeLinear 'early' has a zero point other than 0; TensorRT takes int8"),
    ("weights off zero", "DequantizeLinear 'early' has a zero point other than 0; TensorRT takes int8"),
    ("byte weights", "DequantizeLinear 'early' quantizes to other than int8"),
    ("unknown zero", "QuantizeLinear 'early' has a zero point other than 0; TensorRT takes int8"),
])
def test_what_tensorrt_cannot_take_is_said_before_an_engine_is_tried(tmp_path: Path, form: str, words: str) -> None:
    from onnx import TensorProto, helper, numpy_helper

    cast = helper.make_node("Cast", ["frame"], ["real"], to=TensorProto.FLOAT)
    last = helper.make_node("Cast", ["index"], ["class_map"], to=TensorProto.UINT8)
    best = helper.make_node("ArgMax", ["scores"], ["index"], axis=3, keepdims=0)
    constants = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in (
            ("scale", np.float32(0.1)), ("zero", np.uint8(3)), ("five", np.int8(5)), ("none", np.int8(0)),
            ("weights", np.zeros((1, 24, 32, 3), np.int8)), ("bytes", np.zeros((1, 24, 32, 3), np.uint8)),
            ("scales", np.full(3, 0.1, np.float32)), ("zeros", np.array([0, 0, -1], np.int8)),
        )
    ]

    def pair(*zero: str, **attributes: int) -> list[Any]:
        return [cast, helper.make_node("QuantizeLinear", ["real", "scale", *zero], ["q"], "early", **attributes),
                helper.make_node("DequantizeLinear", ["q", "scale", *zero], ["scores"]), best, last]

    def weighted(weights: str, *zero: str) -> list[Any]:
        return [cast, helper.make_node("DequantizeLinear", [weights, "scales", *zero], ["w"], "early", axis=3),
                helper.make_node("Add", ["real", "w"], ["scores"]), best, last]

    nodes = {
        "frame": [helper.make_node("Transpose", ["frame"], ["turned"], "early", perm=[0, 1, 2, 3]),
                  helper.make_node("Cast", ["turned"], ["scores"], to=TensorProto.FLOAT), best, last],
        "inside": [cast, helper.make_node("Cast", ["real"], ["bytes"], "early", to=TensorProto.UINT8),
                   helper.make_node("Cast", ["bytes"], ["scores"], to=TensorProto.FLOAT), best, last],
        "asymmetric": pair("zero"), "bytes by default": pair(), "off zero": pair("five"), "symmetric": pair("none"),
        "weights off zero": weighted("weights", "zeros"), "byte weights": weighted("bytes"), "weights": weighted("weights"),
        "unknown zero": [helper.make_node("Identity", ["none"], ["made"]), *pair("made")],
    }[form]
    made = tiny_bundle(tmp_path, "onnx", write=lambda folder, h, w: _write(folder, nodes, constants))
    if not words:
        check_model(made)
        return
    with pytest.raises(TargetError, match=words):
        check_model(made)


USED = {  # what the run side uses of an object of this class, by the name it has in targets/runtimes/tensorrt.py
    "runtime": "Runtime", "engine": "ICudaEngine", "context": "IExecutionContext",
}


def test_the_names_used_exist_in_the_real_classes() -> None:
    lean = pytest.importorskip("tensorrt_lean", reason="pip install tensorrt-lean-cu12 (needs no GPU)")
    tree = ast.parse(Path(room.__file__).read_text())
    used = {(node.value.id, node.attr) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    of_classes = [(USED[name], attribute) for name, attribute in used if name in USED]
    of_module = [attribute for name, attribute in used if name == "trt" and attribute != "__version__"]
    assert len(of_classes) >= 7
    for name, attribute in (*of_classes, ("IExecutionContext", "execute_async_v3")):
        assert hasattr(getattr(lean, name), attribute), f"{name}.{attribute}"
    for attribute in of_module:
        assert hasattr(lean, attribute), attribute
    assert {"UINT8", "FLOAT", "INT32", "INT64", "HALF", "BOOL"} <= set(lean.DataType.__members__)
    log = importlib.import_module("targets.runtimes.tensorrt_engine").make_log(lean)
    log.log(lean.ILogger.Severity.ERROR, "said")
    log.log(lean.ILogger.Severity.INFO, "not kept")
    assert log.errors == ["said"]
