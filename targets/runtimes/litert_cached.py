"""LiteRT with a cache for the weights that XNNPACK packs: not offered by `Interpreter`, so the same file goes through `CompiledModel`.

Both drive the same XNNPACK and give the same answers. The file is mapped into memory, so processes with the same model share it. Opening
itself is no faster on small models: `CompiledModel` looks for GPU and NPU drivers first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import TargetError
from edgeseg.core.files import atomic_path
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME, OUTPUT_NAME
from edgeseg.core.vendors import quiet
from targets.runtimes.base import (
    Answers,
    CheckedSession,
    Port,
    RuntimeOptions,
    check_ports,
    contract_outputs,
    installed_version,
    load_errors,
)
from targets.runtimes.cache import cache_folder, check_own, processor_facts
from targets.runtimes.options import refuse_options

_FILE = "weights.xnnpack"


def open_cached(bundle: Bundle, options: RuntimeOptions) -> CheckedSession:
    """Open a TFLite bundle whose packed weights are kept in `options.cache_dir`; see `Runtime.open` for what is raised."""
    if options.provider != "cpu":
        raise TargetError(f"litert runs on cpu, not on {options.provider}; choose provider cpu")
    if options.precision_hint != "f32":
        raise TargetError(f"litert computes in f32, not in {options.precision_hint}; leave the precision hint out")
    refuse_options("litert with a cache", options, has=("cache_dir",))
    version = installed_version("ai-edge-litert") or ""
    facts = {"model_sha256": bundle.manifest.sha256, "litert": version, **processor_facts()}
    with load_errors("litert", bundle):
        file = cache_folder(options.cache_dir, "litert", facts) / _FILE
        if file.exists():
            check_own(file)
            model = _compile(bundle, options, str(file))
        else:
            with atomic_path(file) as making:  # packed while it is opened; a process that is killed leaves no half of it
                model = _compile(bundle, options, str(making))
                if not making.exists():
                    raise TargetError(f"litert packs no weights of {bundle.manifest.entry}, nothing is to be kept; leave the cache out")
                making.chmod(0o600)
        outputs = _check(bundle, model)
        settings = {
            "runtime": "litert", "provider": "cpu", "num_threads": str(options.num_threads), "precision_hint": "f32",
            "delegate": "XNNPACK" if model.is_fully_accelerated() else "XNNPACK (part of the model)", "weight_cache": str(file),
        }
        return _bind(bundle, model, outputs, settings)


def _compile(bundle: Bundle, options: RuntimeOptions, cache: str) -> Any:  # noqa: ANN401 - an SDK object
    try:
        compiled, settings = require("ai_edge_litert.compiled_model", extra="pi"), require("ai_edge_litert.options", extra="pi")
        cpu = settings.CpuOptions(num_threads=options.num_threads, xnnpack_weight_cache_path=cache)
    except (AttributeError, TypeError) as error:
        raise TargetError("this ai-edge-litert has no weight cache; leave the cache out, or: pip install 'ai-edge-litert>=2.3'") from error
    with quiet():  # it tells of every driver it looks for
        return compiled.CompiledModel.from_file(str(bundle.model_path), options=settings.Options(cpu_options=cpu))


def _check(bundle: Bundle, model: Any) -> tuple[int, ...]:  # noqa: ANN401 - an SDK object
    """Compare with the contract; give the places of the contract's outputs among the model's."""
    signature, names = next(iter(model.get_signature_list().items()))
    ins, outs = model.get_input_tensor_details(signature), model.get_output_tensor_details(signature)
    alone = {"inputs": INPUT_NAME, "outputs": OUTPUT_NAME}

    def ports(kind: str, details: dict[str, Any]) -> list[Port]:
        """The only port of its kind may have any name."""
        found = []
        for name in names[kind]:
            known = None if len(names[kind]) == 1 and name != alone[kind] else name
            found.append(Port(name=known, dtype=str(details[name]["dtype"]), shape=tuple(int(d) for d in details[name]["shape"])))
        return found

    return check_ports(bundle, ports("inputs", ins), ports("outputs", outs))


def _bind(bundle: Bundle, model: Any, outputs: tuple[int, ...], settings: dict[str, str]) -> CheckedSession:  # noqa: ANN401 - an SDK object
    with quiet():
        held = [model, model.create_input_buffers(0), model.create_output_buffers(0)]
    sizes = [int(np.prod([int(n) for n in port.shape])) for port in contract_outputs(bundle.manifest.contract)]

    def execute(frame_HWC: Frame, answers: Answers) -> None:
        compiled, frames, results = held
        frames[0].write(frame_HWC)
        compiled.run_by_index(0, frames, results)
        for answer, place, size in zip(answers, outputs, sizes, strict=True):
            np.copyto(answer, results[place].read(size, answer.dtype).reshape(answer.shape))

    def release() -> None:
        with quiet():  # it tells of every driver it lets go
            held.clear()

    return CheckedSession("litert", bundle.manifest, settings, execute, release)
