"""Where a bundle's time goes: least microseconds of each kind of operator over many calls, one thread, as the runtime itself reports them.

    python -m benchmarks.layer_times BUNDLE [BUNDLE ...] [--precision-hint bf16] [--layers 20] [--json FILE]

For ONNX Runtime (its profile) and OpenVINO (its performance counters); LiteRT's package gives none. Least, since a busy machine makes a
call longer and never shorter.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import write_json
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from edgeseg.core.vendors import versions
from targets.machine import describe_machine

Times = dict[tuple[str, str], float]
"""(kind, name) of an operator -> microseconds."""


def of_onnx(bundle: Bundle, frames: list[np.ndarray[Any, Any]], _hint: str) -> Times:
    """Least time of each node that ONNX Runtime executes, after its own optimisation."""
    ort = require("onnxruntime", extra="onnx")
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = ort.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
        for frame in frames:
            session.run(None, {INPUT_NAME: frame})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: Times = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = (str(event["args"]["op_name"]), event["name"].removesuffix("_kernel_time"))
            times[key] = min(times.get(key, float("inf")), float(event["dur"]))
    return times


def of_openvino(bundle: Bundle, frames: list[np.ndarray[Any, Any]], hint: str) -> Times:
    """Least time of each operator that OpenVINO executes; the kind holds the kernel, and with it the precision."""
    ov = require("openvino", extra="intel")
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
    request = ov.Core().compile_model(str(bundle.model_path), "CPU", settings).create_infer_request()
    times: Times = {}
    for frame in frames:
        request.infer({0: frame})
        for info in request.profiling_info:
            if info.real_time.total_seconds() > 0:
                key = (f"{info.node_type} {info.exec_type}", str(info.node_name))
                times[key] = min(times.get(key, float("inf")), info.real_time.total_seconds() * 1e6)
    return times


READERS: Final = {"onnx": of_onnx, "openvino": of_openvino}


def by_kind(times: Mapping[tuple[str, str], float]) -> dict[str, tuple[int, float]]:
    """Number and total of each kind, the dearest first."""
    totals: dict[str, list[float]] = defaultdict(list)
    for (kind, _), value in times.items():
        totals[kind].append(value)
    return {kind: (len(values), sum(values)) for kind, values in sorted(totals.items(), key=lambda item: -sum(item[1]))}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--precision-hint", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--layers", type=int, default=0, help="also the so many dearest operators")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for folder in arguments.bundles:
        bundle = open_bundle(folder)
        if bundle.manifest.format not in READERS:
            raise ConfigError(f"{folder} is {bundle.manifest.format}; times of layers can be read of {' and '.join(READERS)}")
        golden = [frame[None] for frame, _ in bundle.golden_pairs()]
        times = READERS[bundle.manifest.format](bundle, [golden[i % len(golden)] for i in range(arguments.calls)], arguments.precision_hint)
        kinds = by_kind(times)
        print(f"{folder}: {sum(total for _, total in kinds.values()):.0f} us in {len(times)} operators")
        for kind, (number, total) in kinds.items():
            print(f"  {kind:48} {number:4} {total:9.0f}")
        for (kind, name), value in sorted(times.items(), key=lambda item: -item[1])[: arguments.layers]:
            print(f"    {value:8.0f}  {kind:40} {name[-70:]}")
        found[folder.name] = {"kinds_us": {kind: [number, round(total, 1)] for kind, (number, total) in kinds.items()}}
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.layer_times", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": versions("onnxruntime", "openvino"), "threads": 1, "calls": arguments.calls, "bundles": found,
        })


if __name__ == "__main__":
    main()
