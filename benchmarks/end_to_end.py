"""What the way from a frame to its mask costs over the network alone: from memory, from files, in bytes, and against OpenVINO Model API.

    python -m benchmarks.end_to_end [--bundles runs/NAME/bundles] [--model-api DIR] [--full] [--json FILE]

Without `--bundles`, Fast-SCNN of random weights is exported and quantized at 360x480 (speed does not depend on what was learnt). One
runtime thread. All sides of a figure take turns in blocks, there and back, in one process; a ratio is the median over the rounds with its
95 % bootstrap interval.

    memory      uint8 frame of the model's size in memory -> mask at frame size, over the bare SDK call with everything bound before
    model api   time of `model_api.models.SegmentationModel` over ours, on the same int8 weights (the scores before our decision head,
                enlarged in the graph, as such models are); `pip install --target DIR --no-deps openvino-model-api opencv-python-headless`
    files       frames per second of files -> masks on disk (the pipeline of `predict`), over the slower of decoding and resizing alone
                and of the bare SDK call alone; on two processors, which then everything is measured on (on more, several threads of the
                pipeline would be compared with one that decodes). Beside it the same over the SDK call while another thread decodes,
                since two processors that share one core are slower together than alone, and the processor time of each part
    resizer     a JPEG twice as large as the model takes, bytes to model input: time by Pillow's filter over that by OpenCV's, of resizing
                alone and of all of it; and of a frame that is 1.4 times as large (not judged; extra `opencv`)
    rss         peak memory of our runner in a fresh process over a script with the SDK alone, as its users import it

Exit code 1 where less was reached than asked for.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks.bare import BARE, Call, keeping_bytecode
from benchmarks.int8_speed import made
from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.files import write_json
from edgeseg.core.images import Frame, picture_to_model, read_picture
from edgeseg.core.lazy import require
from edgeseg.core.resizers import RESIZERS
from edgeseg.core.vendors import versions
from targets.boards import plan
from targets.machine import describe_machine
from targets.measure.loop import bootstrap_ratio
from targets.predict import PredictOptions, predict_frame, predict_source
from targets.runtimes import open_session
from targets.runtimes.base import Session

LIMITS: Final = {"memory": 1.15, "model api": 2.0, "files": 0.90, "rss": 1.10}
AT_MOST: Final = frozenset({"memory", "rss"})
OPENVINO_PINNED: Final = {
    "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
}
PACKAGES: Final = ("numpy", "pillow", "onnxruntime", "openvino", "ai-edge-litert", "openvino-model-api", "opencv-python-headless")


def scores_model(bundle: Bundle, folder: Path) -> Path:
    """The same int8 network up to its class scores, then enlarged to the model's size: what Model API's wrapper takes.

    The scores are the nearest value before the answer that a convolution (and what is added to it) gives for every class.
    """
    ov = require("openvino", extra="intel")
    from openvino import opset13 as ops

    model, contract = ov.Core().read_model(str(bundle.model_path)), bundle.manifest.contract
    waiting, seen, node = [model.get_results()[0].input_value(0).get_node()], set(), None
    while waiting and node is None:
        candidate = waiting.pop(0)
        if candidate.get_type_name() == "Convolution":
            node = candidate
        elif candidate.get_friendly_name() not in seen:
            seen.add(candidate.get_friendly_name())
            waiting += [value.get_node() for value in candidate.input_values()]
    assert node is not None, "no convolution before the answer"
    for consumer in node.output(0).get_target_inputs():
        if consumer.get_node().get_type_name() == "Add":
            node = consumer.get_node()
    size = np.array([contract.height, contract.width], np.int64)
    scores = ops.interpolate(
        node.output(0), size, "linear_onnx", "sizes", axes=np.array([2, 3], np.int64), coordinate_transformation_mode="half_pixel",
    )
    scores.output(0).set_names({"scores"})
    cut = ov.Model([scores.output(0)], model.get_parameters(), "scores")
    path = folder / f"{bundle.manifest.name}-scores.xml"
    ov.save_model(cut, path, compress_to_fp16=False)
    return path


def model_api_calls(bundle: Bundle, frame: Frame, folder: Path) -> dict[str, Callable[[], Any]]:
    """The wrapper as it comes, and with everything its parameters can save it."""
    adapters, models = require("model_api.adapters", extra="dev"), require("model_api.models", extra="dev")
    path, contract = scores_model(bundle, folder), bundle.manifest.contract
    best = {"return_soft_prediction": False, "input_frame_height": contract.height, "input_frame_width": contract.width}
    calls = {}
    for name, configuration in (("as it comes", {}), ("hard prediction only, static frame", best)):
        adapter = adapters.OpenvinoAdapter(
            adapters.create_core(), str(path), device="CPU", plugin_config=dict(OPENVINO_PINNED), max_num_requests=1,
            model_parameters={"input_layouts": "NHWC"},
        )
        wrapper = models.SegmentationModel(adapter, configuration=configuration, preload=True)
        calls[name] = lambda wrapper=wrapper: wrapper(frame)
    return calls


def take_turns(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Values of each side, a value a round; every second round goes backwards."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else list(reversed(sides)):
            values[name].append(sides[name]())
    return values


def block(call: Call, seconds: float) -> Callable[[], float]:
    """A block: the median milliseconds of a call over about `seconds`."""
    for _ in range(5):
        call()
    start = time.perf_counter()
    call()
    count = max(5, round(seconds / max(time.perf_counter() - start, 1e-6)))

    def run() -> float:
        times = []
        for _ in range(count):
            before = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - before) / 1e6)
        return statistics.median(times)

    return run


def ratio_row(figure: str, about: str, over: Sequence[float], under: Sequence[float], **more: object) -> dict[str, Any]:
    """One ratio with its interval."""
    value, low, high = bootstrap_ratio(over, under)
    return {"figure": figure, "about": about, "ratio": round(value, 4), "low": round(low, 4), "high": round(high, 4), **more}


def in_memory(bundle: Bundle, session: Session, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Frame to mask over the bare call; frames of the model's size, and twice as large for comparison (not judged)."""
    frame = next(iter(bundle.golden_pairs()))[0]
    large = np.asarray(Image.fromarray(frame).resize((frame.shape[1] * 2, frame.shape[0] * 2)))
    frame, large = frame.copy(), large.copy()
    values = take_turns({
        "bare": block(BARE[bundle.manifest.format][1](bundle, 1, [frame]), seconds),
        "ours": block(lambda: predict_frame(session, bundle, frame), seconds),
        "large": block(lambda: predict_frame(session, bundle, large), seconds),
    }, rounds)
    return [
        ratio_row("memory", bundle.manifest.name, values["ours"], values["bare"]),
        ratio_row("memory, frames twice as large", bundle.manifest.name, values["large"], values["bare"]),
    ]


def against_model_api(bundle: Bundle, session: Session, folder: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Times of Model API's wrapper over ours."""
    frame = next(iter(bundle.golden_pairs()))[0].copy()
    calls = model_api_calls(bundle, frame, folder)
    sides: dict[str, Call] = {"ours": lambda: predict_frame(session, bundle, frame), **calls}
    values = take_turns({name: block(call, seconds) for name, call in sides.items()}, rounds)
    ours, rows = predict_frame(session, bundle, frame), []
    for name, call in calls.items():
        answer = call()
        theirs = np.asarray(getattr(answer, "resultImage", answer))
        figure = "model api" if name == "as it comes" else "model api, trimmed"
        rows.append(ratio_row(figure, f"{bundle.manifest.name}; {name}", values[name], values["ours"],
                              same_pixels=round(float((theirs == ours).mean()), 5)))
    return rows


def by_resizer(bundle: Bundle, times: float, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Time of Pillow's filter over OpenCV's for a JPEG `times` as large as the model: from its pixels, and from its bytes."""
    contract, frame = bundle.manifest.contract, next(iter(bundle.golden_pairs()))[0]
    height, width = round(contract.height * times), round(contract.width * times)
    stream = io.BytesIO()
    Image.fromarray(frame).resize((width, height)).save(stream, "JPEG", quality=92)
    data = stream.getvalue()
    picture = read_picture(data)
    placements = {resizer: replace(contract, resizer=resizer).place(picture.frame_hw) for resizer in RESIZERS}
    sides: dict[str, Call] = {name: partial(picture_to_model, picture, placed) for name, placed in placements.items()}
    sides |= {f"{name}, all": lambda placed=placed: picture_to_model(read_picture(data), placed) for name, placed in placements.items()}
    values = take_turns({name: block(call, seconds) for name, call in sides.items()}, rounds)
    ms = {name: round(statistics.median(found), 3) for name, found in values.items()}
    about = f"{height}x{width} to {contract.height}x{contract.width}"
    return [
        ratio_row("resizer, resizing alone", about, values["pillow"], values["opencv"], ms=ms),
        ratio_row("resizer, bytes to model input", about, values["pillow, all"], values["opencv, all"]),
    ]


def write_files(bundle: Bundle, folder: Path, suffix: str, count: int) -> list[Path]:
    """Golden frames of the bundle as files, again and again under other names."""
    folder.mkdir(parents=True)
    encoded = []
    for frame, _ in bundle.golden_pairs():
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "JPEG" if suffix == ".jpg" else "PNG", **({"quality": 92} if suffix == ".jpg" else {}))
        encoded.append(stream.getvalue())
    paths = [folder / f"{i:05}{suffix}" for i in range(count)]
    for path, data in zip(paths, islice(cycle(encoded), count), strict=True):
        path.write_bytes(data)
    return paths


def from_files(bundle: Bundle, session: Session, folder: Path, suffix: str, rounds: int, count: int) -> list[dict[str, Any]]:
    """Frames per second of the pipeline over those of its slower part."""
    contract = bundle.manifest.contract
    paths = write_files(bundle, folder / f"{bundle.manifest.name}{suffix}", suffix, count)

    def decode(path: Path) -> list[Frame]:
        picture = read_picture(path)
        return picture_to_model(picture, contract.place(picture.frame_hw))

    bare = BARE[bundle.manifest.format][1](bundle, 1, [frame for path in paths[:len(bundle.manifest.golden)] for frame in decode(path)[:1]])
    cpu_ms: dict[str, list[float]] = {"decode": [], "infer": [], "pipeline": []}

    def rate(steps: Callable[[], object], name: str) -> float:
        start, cpu_s = time.perf_counter(), time.process_time()
        steps()
        cpu_ms[name].append((time.process_time() - cpu_s) / count * 1e3)
        return count / (time.perf_counter() - start)

    def beside_decoding() -> float:
        over = threading.Event()

        def busy() -> None:
            for path in cycle(paths):
                if over.is_set():
                    return
                decode(path)

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            start = time.perf_counter()
            for _ in range(count):
                bare()
            return count / (time.perf_counter() - start)
        finally:
            over.set()
            thread.join()

    def pipeline() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            return rate(lambda: predict_source(session, bundle, paths[0].parent, Path(out), PredictOptions(overlays=False)), "pipeline")

    values = take_turns({
        "decode": lambda: rate(lambda: [decode(path) for path in paths], "decode"),
        "infer": lambda: rate(lambda: [bare() for _ in range(count)], "infer"),
        "beside": beside_decoding, "pipeline": pipeline,
    }, rounds)
    slower = [min(pair) for pair in zip(values["decode"], values["infer"], strict=True)]
    beside = [min(pair) for pair in zip(values["decode"], values["beside"], strict=True)]
    facts = {
        "rates": {name: round(statistics.median(found), 1) for name, found in values.items()},
        "processor_ms_per_frame": {name: round(statistics.median(found), 2) for name, found in cpu_ms.items()},
    }
    about = f"{bundle.manifest.name}, {suffix[1:]}"
    return [
        ratio_row("files", about, values["pipeline"], slower, **facts),
        ratio_row("files, over the call beside decoding", about, values["pipeline"], beside, **facts),
    ]


_PEAK: Final = "print([int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
_BARE: Final = {
    "onnx": """
import sys, numpy as np, onnxruntime as ort
o = ort.SessionOptions(); o.intra_op_num_threads = o.inter_op_num_threads = 1; o.log_severity_level = 3
s = ort.InferenceSession(sys.argv[1], o, providers=["CPUExecutionProvider"])
x = np.zeros([int(n) for n in sys.argv[2].split(",")], np.uint8)
for _ in range(20): s.run(None, {"frame": x})
""",
    "openvino": """
import sys, numpy as np, openvino as ov
c = ov.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1,
    "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1})
x = np.zeros([int(n) for n in sys.argv[2].split(",")], np.uint8)
r = c.create_infer_request()
for _ in range(20): r.infer({0: x})
""",
    "tflite": """
import sys, numpy as np
from ai_edge_litert.interpreter import Interpreter
i = Interpreter(model_path=sys.argv[1], num_threads=1); i.allocate_tensors()
x = np.zeros([int(n) for n in sys.argv[2].split(",")], np.uint8)
for _ in range(20):
    i.set_tensor(i.get_input_details()[0]["index"], x); i.invoke(); i.get_tensor(i.get_output_details()[0]["index"])
""",
}
_OURS: Final = """
import sys, numpy as np
from pathlib import Path
from edgeseg.core.bundle import open_bundle
from targets.boards import plan
from targets.runtimes import open_session
b = open_bundle(Path(sys.argv[1])); m = b.manifest
how = plan("host", m.format, m.precision, num_threads=1)
s = open_session(b, how.runtime, how.options)
x = np.zeros([int(n) for n in sys.argv[2].split(",")][1:], np.uint8)
for _ in range(20): s.run(x)
"""


def peak_kb(code: str, environment: dict[str, str], *arguments: str) -> int:
    """Peak resident memory of a fresh interpreter that runs `code`."""
    done = subprocess.run([sys.executable, "-c", code + _PEAK, *arguments], capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout.split()[-1])


def memory(bundle: Bundle, rounds: int) -> list[dict[str, Any]]:
    """Peak memory of our runner over the SDK alone."""
    contract = bundle.manifest.contract
    shape = f"1,{contract.height},{contract.width},3"
    with tempfile.TemporaryDirectory() as bytecode:
        environment = keeping_bytecode(Path(bytecode))
        sides = {
            "bare": lambda: float(peak_kb(_BARE[bundle.manifest.format], environment, str(bundle.model_path), shape)),
            "ours": lambda: float(peak_kb(_OURS, environment, str(bundle.folder), shape)),
        }
        for compiles in sides.values():
            compiles()
        values = take_turns(sides, rounds)
    mb = {name: round(statistics.median(found) / 1024, 1) for name, found in values.items()}
    return [ratio_row("rss", bundle.manifest.name, values["ours"], values["bare"], mb=mb)]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, help="folder of bundles; those of int8 are taken")
    parser.add_argument("--formats", nargs="*", default=["onnx", "openvino", "tflite"])
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480))
    parser.add_argument("--figures", nargs="*", default=["memory", "model api", "files", "resizer", "rss"])
    parser.add_argument("--model-api", type=Path, help="folder that openvino-model-api was installed into")
    parser.add_argument("--full", action="store_true", help="long, for a machine that is idle")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.model_api:
        sys.path.append(str(arguments.model_api.resolve()))
    if "files" in arguments.figures:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    # Decoding the first file and syncing the last take 7 to 10 ms: 3 % of 40 frames, which is no rate of a stream.
    rounds, seconds, count = (30, 0.5, 300) if arguments.full else (6, 0.15, 200)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.bundles:
            bundles = [open_bundle(path.parent) for path in sorted(arguments.bundles.glob("*/manifest.json"))]
        else:
            bundles = [int8 for _, _, int8 in made(["fast_scnn"], tuple(arguments.size), arguments.formats, folder)]
        for bundle in bundles:
            manifest = bundle.manifest
            if manifest.precision != "int8" or manifest.format not in arguments.formats:
                continue
            how = plan("host", manifest.format, manifest.precision, num_threads=1)
            session = open_session(bundle, how.runtime, how.options)
            found: list[dict[str, Any]] = []
            if "memory" in arguments.figures:
                found += in_memory(bundle, session, rounds, seconds)
            if "model api" in arguments.figures and arguments.model_api and manifest.format == "openvino":
                found += against_model_api(bundle, session, folder, rounds, seconds)
            for suffix in (".jpg", ".png") if "files" in arguments.figures else ():
                found += from_files(bundle, session, folder, suffix, rounds, count)
            session.close()
            if "resizer" in arguments.figures and manifest.format == arguments.formats[0]:  # no runtime has a part in it
                found += [row for times in (2.0, 1.4) for row in by_resizer(bundle, times, rounds, seconds)]
            if "rss" in arguments.figures:
                found += memory(bundle, max(3, rounds // 4))
            for row in found:
                show(row)
            rows += found
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.end_to_end", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": versions(*PACKAGES), "threads": 1, "processors": sorted(os.sched_getaffinity(0)), "rounds": rounds,
            "limits": LIMITS, "rows": rows,
        })
    sys.exit(int(any(missed(row) for row in rows)))


def missed(row: dict[str, Any]) -> bool:
    """Whether a judged ratio misses its limit."""
    limit = LIMITS.get(row["figure"])
    return limit is not None and (row["ratio"] > limit if row["figure"] in AT_MOST else row["ratio"] < limit)


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    limit = LIMITS.get(row["figure"])
    wanted = "at most" if row["figure"] in AT_MOST else "at least"
    judged = "" if limit is None else f"  {wanted} {limit:g}{': MISSED' if missed(row) else ''}"
    more = {key: value for key, value in row.items() if key not in ("figure", "about", "ratio", "low", "high")}
    interval = f"{row['ratio']:7.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    print(f"{row['figure']:38} {row['about']:46} {interval}{judged}  {more or ''}", flush=True)


if __name__ == "__main__":
    main()
