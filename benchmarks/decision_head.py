"""Time the decision head alone, in every form and every runtime: one thread, interleaved, class maps compared with torch.

    python -m benchmarks.decision_head [--classes 11 --scores 45 60 --size 360 480] [--runtime onnx]

Prints one row a form: median and minimum in ms, and the share of pixels that equal torch. The table in `exporters/head.py` is from here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.core.errors import EdgesegError, vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract
from edgeseg.core.vendors import quiet
from exporters.head import BAND_BYTES, DECISIONS, BandedHead, ResizeHead

Run = Callable[[], NDArray[np.uint8]]


def run_onnx(head: nn.Module, scores: Tensor, folder: Path) -> Run:
    """Open the head in ONNX Runtime."""
    ort = require("onnxruntime", extra="export")
    path = folder / "head.onnx"
    torch.onnx.export(head, (scores,), path, dynamo=True, verbose=False, external_data=False, input_names=["scores"], output_names=["map"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"scores": scores.numpy()}
    return lambda: np.asarray(session.run(None, feed)[0])


def run_openvino(head: nn.Module, scores: Tensor, folder: Path) -> Run:
    """Open the head in OpenVINO with float32 arithmetic."""
    ov = require("openvino", extra="export")
    model = ov.convert_model(head, example_input=(scores,), input=[tuple(scores.shape)])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda: np.asarray(request.infer({0: scores.numpy()}, share_inputs=True)[0])


def run_tflite(head: nn.Module, scores: Tensor, folder: Path) -> Run:
    """Open the head in LiteRT."""
    litert_torch = require("litert_torch", extra="export")
    interpreter_module = require("ai_edge_litert.interpreter", extra="export")
    path = folder / "head.tflite"
    litert_torch.convert(head, (scores,)).export(str(path))
    interpreter = interpreter_module.Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    source, answer = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run() -> NDArray[np.uint8]:
        interpreter.set_tensor(source, scores.numpy())
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(answer))

    return run


RUNTIMES = {"onnx": run_onnx, "openvino": run_openvino, "tflite": run_tflite}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--scores", type=int, nargs=2, default=(45, 60))
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480))
    parser.add_argument("--runtime", choices=RUNTIMES, nargs="*", default=list(RUNTIMES))
    parser.add_argument("--repeats", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    (h, w), (height, width) = arguments.scores, arguments.size
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, arguments.classes, h // 4 + 1, w // 4 + 1, generator=generator)
    scores = F.interpolate(coarse, (h, w), mode="bicubic", align_corners=False)
    plain = ResizeHead((height, width))
    expected = plain(scores).numpy()
    forms: dict[str, nn.Module] = {"resize + argmax": plain}
    for decision in DECISIONS:
        for bands, band_bytes in (("one band", 1 << 40), ("banded", BAND_BYTES)):
            contract = Contract(height=height, width=width)
            forms[f"{decision}, {bands}"] = BandedHead(arguments.classes, (h, w), contract, decision, band_bytes=band_bytes)
    for runtime in arguments.runtime:
        runs: dict[str, Run] = {}
        for name, head in forms.items():
            try:
                with tempfile.TemporaryDirectory() as folder, vendor_errors(runtime), quiet(), torch.no_grad():
                    run = RUNTIMES[runtime](head.eval(), scores, Path(folder))
                    run()
                runs[name] = run
            except EdgesegError as error:
                print(f"{runtime:9} {name:28} cannot: {error}")
        times_ms: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.repeats):
            for name, run in runs.items():
                start = time.perf_counter_ns()
                run()
                times_ms[name].append((time.perf_counter_ns() - start) / 1e6)
        for name, run in runs.items():
            same = float(np.mean(run().reshape(expected.shape) == expected))
            median, least = statistics.median(times_ms[name]), min(times_ms[name])
            print(f"{runtime:9} {name:28} median {median:6.2f} ms  min {least:6.2f} ms  same {same:.6f}")


if __name__ == "__main__":
    main()
