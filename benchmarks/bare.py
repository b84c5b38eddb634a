"""The SDKs with nothing of ours around them: the least a caller of each binding has to do, with buffers bound once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from edgeseg.core.vendors import quiet
from targets.runtimes.base import contract_outputs

Call = Callable[[], object]


def _buffers(bundle: Bundle) -> tuple[np.ndarray[Any, Any], list[tuple[str, np.ndarray[Any, Any]]]]:
    contract = bundle.manifest.contract
    frame_NHWC = np.random.Generator(np.random.Philox(0)).integers(0, 256, (1, contract.height, contract.width, 3), dtype=np.uint8)
    return frame_NHWC, [(str(port.name), np.zeros([int(n) for n in port.shape], port.dtype)) for port in contract_outputs(contract)]


def bare_onnxruntime(bundle: Bundle, num_threads: int) -> Call:
    """ONNX Runtime with IO binding: the same buffers at each call, nothing copied."""
    ort = require("onnxruntime", extra="onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = num_threads, 1, 3
    session = ort.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
    frame_NHWC, outputs = _buffers(bundle)
    binding = session.io_binding()
    binding.bind_input(INPUT_NAME, "cpu", 0, np.uint8, frame_NHWC.shape, frame_NHWC.ctypes.data)
    for name, buffer in outputs:
        binding.bind_output(name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)
    held = (frame_NHWC, outputs)
    return lambda: (session.run_with_iobinding(binding), held)


def bare_openvino(bundle: Bundle, num_threads: int) -> Call:
    """OpenVINO with one request and tensors bound once."""
    ov = require("openvino", extra="intel")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": num_threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = ov.Core().compile_model(str(bundle.model_path), "CPU", settings).create_infer_request()
    frame_NHWC, outputs = _buffers(bundle)
    request.set_tensor(INPUT_NAME, ov.Tensor(frame_NHWC, shared_memory=True))
    for name, buffer in outputs:
        request.set_tensor(name, ov.Tensor(buffer, shared_memory=True))
    held = (frame_NHWC, outputs)  # a tensor does not keep the memory it shares
    return lambda: (request.infer(share_outputs=True), held)


def bare_litert(bundle: Bundle, num_threads: int) -> Call:
    """LiteRT's Interpreter, whose binding has no buffers of the caller's: copied in, copied out."""
    with quiet():
        interpreter = require("ai_edge_litert.interpreter", extra="pi").Interpreter(str(bundle.model_path), num_threads=num_threads)
        interpreter.allocate_tensors()
    frame_NHWC, _ = _buffers(bundle)
    index = interpreter.get_input_details()[0]["index"]
    outputs = [details["index"] for details in interpreter.get_output_details()]

    def call() -> object:
        interpreter.set_tensor(index, frame_NHWC)
        interpreter.invoke()
        return [interpreter.get_tensor(output) for output in outputs]

    return call


BARE: Final[dict[str, tuple[str, Callable[[Bundle, int], Call]]]] = {
    "onnx": ("onnxruntime", bare_onnxruntime),
    "openvino": ("openvino", bare_openvino),
    "tflite": ("litert", bare_litert),
}
"""Format -> runtime, and its bare call."""
