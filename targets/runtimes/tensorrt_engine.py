"""TensorRT engines: built on the board from the bundle's ONNX file, kept in this user's cache, and never taken from anywhere else.

An engine is machine code for one GPU, one TensorRT and one driver, and cannot be looked into. So it has a folder of its own for exactly
those facts (`targets.runtimes.cache`), its hash beside it, and what is not as it was written is not loaded but built anew. ADR 0019.

The build follows NVIDIA's documentation of TensorRT 10 and 11 and has not been run: its libraries cannot be had without a GPU's software.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import RuntimeFailure, TargetError
from edgeseg.core.files import read_json, sha256_bytes, write_bytes, write_json
from targets.runtimes.cache import check_own, told

_ENGINE, _FACTS = "model.engine", "engine.json"
RECIPE: Final = "1"
"""What `build_engine` asks TensorRT for. Another number where that changes, so that engines of the old way are not used."""
Log = list[str]
"""What TensorRT said that was an error, in order."""


def kept_or_built(folder: Path, facts: Mapping[str, str], build: Callable[[], bytes]) -> tuple[bytes, bool]:
    """Give the engine kept in `folder`, or build and keep it; and whether it was built now.

    Raises:
        NoPermissionError: others may write to what is kept.
        OutputError: the disk is full.
    """
    with told(folder):
        engine = _read(folder, facts)
    if engine is not None:
        return engine, False
    engine = build()
    with told(folder):
        drop(folder)
        try:
            write_bytes(folder / _ENGINE, engine)
            (folder / _ENGINE).chmod(0o600)
            # last: without it, no engine
            write_json(folder / _FACTS, {"engine_sha256": sha256_bytes(engine), "facts": dict(facts)})
            (folder / _FACTS).chmod(0o600)
        except BaseException:
            drop(folder)  # an engine without facts is never used, and fills the disk
            raise
    return engine, True


def drop(folder: Path) -> None:
    """Forget the engine in a folder."""
    (folder / _FACTS).unlink(missing_ok=True)
    (folder / _ENGINE).unlink(missing_ok=True)


def _read(folder: Path, facts: Mapping[str, str]) -> bytes | None:
    """The engine's bytes if they are what was written for these facts: the bytes that were hashed, not the file's name."""
    if not (folder / _FACTS).exists() or not (folder / _ENGINE).exists():
        return None
    check_own(folder / _FACTS)
    check_own(folder / _ENGINE)
    descriptor = os.open(folder / _ENGINE, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as stream:
        engine = stream.read()
    try:
        said = read_json(folder / _FACTS)
    except ValueError:
        return None
    whole = {"engine_sha256": sha256_bytes(engine), "facts": dict(facts)}
    return engine if said == whole else None


def build_engine(trt: Any, log: Any, bundle: Bundle, precision_hint: str) -> bytes:  # noqa: ANN401 - an SDK
    """Build an engine from a bundle's ONNX file: minutes on a small board.

    In f32 the network is strongly typed: each tensor has the type the file gives it, int8 is where QuantizeLinear says so, and TF32 is off.
    In f16 the float parts may be computed in fp16, which TensorRT up to 10 takes as flags of a weakly typed network; 11 has none.

    Raises:
        TargetError: this TensorRT has no f16 mode.
        RuntimeFailure: the file could not be read, or no engine came out of it; the first thing TensorRT complained about is in it.
    """
    flags = trt.BuilderFlag
    if precision_hint == "f16" and not hasattr(flags, "FP16"):
        raise TargetError(f"TensorRT {trt.__version__} takes the arithmetic from the file alone and has no f16 mode; ask for f32")
    builder = trt.Builder(log)
    typed = 0 if precision_hint == "f16" else 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(bundle.model_path.read_bytes()):
        said = [str(parser.get_error(index).desc()) for index in range(parser.num_errors)]
        raise RuntimeFailure(f"TensorRT {trt.__version__} cannot read {bundle.manifest.entry} ({_first(said)}); "
                             "choose onnxruntime with provider cuda")
    config = builder.create_builder_config()
    config.clear_flag(flags.TF32)
    if precision_hint == "f16":
        config.set_flag(flags.FP16)
        if bundle.manifest.precision in ("int8", "mixed"):
            config.set_flag(flags.INT8)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeFailure(f"TensorRT {trt.__version__} made no engine of {bundle.manifest.entry} ({_first(log.errors)}); "
                             "choose onnxruntime with provider cuda")
    return bytes(plan)


def _first(said: list[str]) -> str:
    lines = [line.strip() for text in said for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "it does not say why"


def make_log(trt: Any) -> Any:  # noqa: ANN401 - an SDK
    """A logger in TensorRT's sense that keeps what was an error in `errors` and shows nothing."""
    severe: Final = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

    class _Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: Log = []

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            if severity in severe:
                self.errors.append(msg)

    return _Log()
