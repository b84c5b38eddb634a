"""Time the decision head alone, Resize + ArgMax against ours in every runtime: one thread, interleaved, class maps compared with torch.

    python -m benchmarks.decision_head [--json FILE]                       360x480x11 and 512x1024x19, the forms that are shipped
    python -m benchmarks.decision_head --all-forms [--runtime onnx] [--shape 3 24 32 192 256]

Maps: `regions` has regions about 8 scores wide, as a trained network's maps have; in `noise` every score is drawn anew, so that borders
are everywhere: the worst case of the form that interpolates cells with a border only. The ratio is the median over the rounds of one
form's time in a round, with a 95 % bootstrap interval. On a busy machine long calls are interrupted and short ones are not, which
flatters the short; so the ratio of the least times stands beside it, and the smaller of the two is judged.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.core.errors import EdgesegError, vendor_errors
from edgeseg.core.files import write_json
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract
from edgeseg.core.vendors import quiet, versions
from exporters.head import DECISIONS, BandedHead, CellHead, ResizeHead, cells_fit, head_for
from targets.machine import describe_machine
from targets.measure.loop import bootstrap_ratio

Run = Callable[[], NDArray[np.uint8]]

SHAPES: Final = ((11, 45, 60, 360, 480), (19, 64, 128, 512, 1024))
"""Classes, rows and columns of the scores, rows and columns of the frame."""
ASKED: Final = {"onnx": 2.0, "openvino": 6.0, "tflite": 3.0}
"""Times faster than Resize + ArgMax."""
REFERENCE: Final = "resize + argmax"
PACKAGES: Final = ("torch", "onnxruntime", "openvino", "litert-torch", "ai-edge-litert")


def run_onnx(head: nn.Module, scores: Tensor, folder: Path) -> Run:
    """Open the head in ONNX Runtime."""
    ort = require("onnxruntime", extra="export")
    path = folder / "head.onnx"
    torch.onnx.export(head, (scores,), path, dynamo=True, verbose=False, external_data=False, input_names=["scores"], output_names=["map"],
                      opset_version=18)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"scores": scores.numpy()}
    return lambda: np.asarray(session.run(None, feed)[0])


def run_openvino(head: nn.Module, scores: Tensor, folder: Path) -> Run:
    """Open the head in OpenVINO with float32 arithmetic."""
    ov = require("openvino", extra="export", converter=True)
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


def maps_of(classes: int, h: int, w: int) -> dict[str, Tensor]:
    """Score maps to decide; see the head of this module."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, classes, h // 8 + 1, w // 8 + 1, generator=generator)
    return {"regions": F.interpolate(coarse, (h, w), mode="bicubic", align_corners=False),
            "noise": torch.randn(1, classes, h, w, generator=generator)}


def border_share(scores: Tensor) -> float:
    """Share of the cells between four scores whose corners are not all of one class."""
    classes = scores[0].argmax(0)
    corners = torch.stack([classes[:-1, :-1], classes[:-1, 1:], classes[1:, :-1], classes[1:, 1:]])
    return float((corners.amax(0) != corners.amin(0)).float().mean())


def forms_of(runtime: str, shape: tuple[int, ...], *, all_forms: bool) -> dict[str, nn.Module]:
    """The reference, what is shipped, and on request every other form."""
    classes, h, w, height, width = shape
    contract = Contract(height=height, width=width)
    forms: dict[str, nn.Module] = {REFERENCE: ResizeHead((height, width)), "shipped": head_for(runtime, (1, classes, h, w), contract)}
    if all_forms:
        forms |= {f"bands, {name}": BandedHead(classes, (h, w), contract, name) for name in DECISIONS}
        if cells_fit((h, w), contract, classes):
            forms["cells"] = CellHead(classes, (h, w), contract)
    return forms


def time_forms(runtime: str, shape: tuple[int, ...], scores: Tensor, *, all_forms: bool, rounds: int) -> dict[str, dict[str, Any]]:
    """Times and ratios of every form that this runtime takes, its calls taking turns."""
    runs: dict[str, Run] = {}
    for name, head in forms_of(runtime, shape, all_forms=all_forms).items():
        try:
            with tempfile.TemporaryDirectory() as folder, vendor_errors(runtime), quiet(), torch.no_grad():
                run = RUNTIMES[runtime](head.eval(), scores, Path(folder))
                run()
            runs[name] = run
        except EdgesegError as error:
            print(f"{runtime:9} {name:28} cannot: {error}")
    times_ms: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            start = time.perf_counter_ns()
            runs[name]()
            times_ms[name].append((time.perf_counter_ns() - start) / 1e6)
    expected = runs[REFERENCE]()
    with torch.no_grad():
        answer = ResizeHead(shape[-2:])(scores).numpy()  # type: ignore[arg-type]
    rows = {}
    for name, run in runs.items():
        ratio, low, high = bootstrap_ratio(times_ms[REFERENCE], times_ms[name])
        rows[name] = {
            "times_faster": round(ratio, 3), "low": round(low, 3), "high": round(high, 3),
            "median_ms": round(statistics.median(times_ms[name]), 4), "least_ms": round(min(times_ms[name]), 4),
            "times_faster_least": round(min(times_ms[REFERENCE]) / min(times_ms[name]), 3),
            "same_as_torch": float(np.mean(run().reshape(answer.shape) == answer)),
            "same_as_resize": float(np.mean(run().reshape(expected.shape) == expected)),
        }
    return rows


def show(shape: tuple[int, ...], runtime: str, kind: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print a line a form."""
    size = "x".join(map(str, (*shape[3:], shape[0])))
    for name, row in rows.items():
        print(f"{size:12} {runtime:9} {kind:8} {name:24} {row['times_faster']:6.2f} times [{row['low']:.2f}, {row['high']:.2f}]  "
              f"least {row['least_ms']:7.3f} ms ({row['times_faster_least']:.2f} times)  same {row['same_as_torch']:.6f}", flush=True)


def main() -> None:
    """Parse, measure, print; exit code 1 where what was asked for is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=5, action="append", metavar=("C", "h", "w", "H", "W"))
    parser.add_argument("--runtime", choices=RUNTIMES, nargs="*", default=list(RUNTIMES))
    parser.add_argument("--all-forms", action="store_true")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results, missed = [], False
    for shape in [tuple(one) for one in arguments.shape or SHAPES]:
        for runtime in arguments.runtime:
            for kind, scores in maps_of(*shape[:3]).items():
                if kind == "noise" and runtime != "onnx":
                    continue  # what the others run does not depend on the values
                rows = time_forms(runtime, shape, scores, all_forms=arguments.all_forms, rounds=arguments.rounds)
                show(shape, runtime, kind, rows)
                results.append({
                    "shape": shape, "runtime": runtime, "maps": kind, "border_share": round(border_share(scores), 4), "forms": rows,
                })
                reached = min(rows["shipped"]["times_faster"], rows["shipped"]["times_faster_least"])
                missed |= kind == "regions" and reached < ASKED[runtime]
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.decision_head", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": versions(*PACKAGES), "threads": 1, "rounds": arguments.rounds, "seed": 0, "asked": ASKED, "results": results,
        })
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
