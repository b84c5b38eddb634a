"""The SDKs with nothing of ours around them: the least a caller of each binding has to do, with buffers bound once.

What a network answers takes its time, too: ONNX Runtime's int8 Fast-SCNN was 6 % slower on a camera's frames than on noise. So a call is
compared with one of ours on the same `frames`, which take turns; without any it answers one frame of noise.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from edgeseg.core.vendors import quiet
from targets.runtimes.base import contract_outputs

Call = Callable[[], object]
Outputs = list[tuple[str, np.ndarray[Any, Any]]]


def keeping_bytecode(folder: Path) -> dict[str, str]:
    """Give the environment of fresh processes that are compared: bytecode of edgeseg and the SDKs alike is kept in `folder`.

    Installers compile what they install, unless they are told not to; so after a first process, which is not counted, none compiles.
    """
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}, "PYTHONPYCACHEPREFIX": str(folder)}


def _frames(bundle: Bundle, frames: Sequence[Frame]) -> list[np.ndarray[Any, Any]]:
    """What is answered, as uint8 1HWC in memory of its own."""
    contract = bundle.manifest.contract
    noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (contract.height, contract.width, 3), dtype=np.uint8)
    return [np.array(frame)[np.newaxis] for frame in frames or [noise]]


def _outputs(bundle: Bundle) -> Outputs:
    return [(str(port.name), np.zeros([int(n) for n in port.shape], port.dtype)) for port in contract_outputs(bundle.manifest.contract)]


def bare_onnxruntime(bundle: Bundle, num_threads: int, frames: Sequence[Frame] = ()) -> Call:
    """ONNX Runtime with IO binding, one binding a frame: the same buffers at each turn, nothing copied."""
    ort = require("onnxruntime", extra="onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = num_threads, 1, 3
    session = ort.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
    bindings, held = [], []
    for frame_NHWC in _frames(bundle, frames):
        binding, outputs = session.io_binding(), _outputs(bundle)
        binding.bind_input(INPUT_NAME, "cpu", 0, np.uint8, frame_NHWC.shape, frame_NHWC.ctypes.data)
        for name, buffer in outputs:
            binding.bind_output(name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)
        bindings.append(binding)
        held.append((frame_NHWC, outputs))
    turns = itertools.cycle(bindings)
    return lambda: (session.run_with_iobinding(next(turns)), held)


def bare_openvino(bundle: Bundle, num_threads: int, frames: Sequence[Frame] = ()) -> Call:
    """OpenVINO with one request; the tensors of several frames take turns at its input."""
    ov = require("openvino", extra="intel")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": num_threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = ov.Core().compile_model(str(bundle.model_path), "CPU", settings).create_infer_request()
    frames_NHWC, outputs = _frames(bundle, frames), _outputs(bundle)
    tensors = [ov.Tensor(frame_NHWC, shared_memory=True) for frame_NHWC in frames_NHWC]
    for name, buffer in outputs:
        request.set_tensor(name, ov.Tensor(buffer, shared_memory=True))
    request.set_tensor(INPUT_NAME, tensors[0])
    held = (frames_NHWC, outputs)  # a tensor does not keep the memory it shares
    if len(tensors) == 1:
        return lambda: (request.infer(share_outputs=True), held)
    turns = itertools.cycle(tensors)
    return lambda: (request.set_tensor(INPUT_NAME, next(turns)), request.infer(share_outputs=True), held)


def bare_litert(bundle: Bundle, num_threads: int, frames: Sequence[Frame] = ()) -> Call:
    """LiteRT's Interpreter, whose binding has no buffers of the caller's: copied in, copied out."""
    with quiet():
        interpreter = require("ai_edge_litert.interpreter", extra="pi").Interpreter(str(bundle.model_path), num_threads=num_threads)
        interpreter.allocate_tensors()
    turns = itertools.cycle(_frames(bundle, frames))
    index = interpreter.get_input_details()[0]["index"]
    outputs = [details["index"] for details in interpreter.get_output_details()]

    def call() -> object:
        interpreter.set_tensor(index, next(turns))
        interpreter.invoke()
        return [interpreter.get_tensor(output) for output in outputs]

    return call


BARE: Final[dict[str, tuple[str, Callable[..., Call]]]] = {
    "onnx": ("onnxruntime", bare_onnxruntime),
    "openvino": ("openvino", bare_openvino),
    "tflite": ("litert", bare_litert),
}
"""Format -> runtime, and its bare call: `(bundle, num_threads, frames)`."""
