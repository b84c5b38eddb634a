"""The whole chain against the usual script, on one checkpoint: frame in to mask out, one thread, interleaved, and mIoU of both.

    python -m benchmarks.whole_chain runs/NAME [--bundle FOLDER] [--limit N] [--json FILE]

The usual script: the trained checkpoint exported plainly (float32 NCHW in, class scores at full size out), ONNX Runtime with its defaults,
resize by Pillow, normalisation and argmax by numpy. Ours: the bundle that the run recommends for this machine (or `--bundle`), in its own
runtime with the settings of the target. Both take the same decoded frame and give a class map of its size; both use one thread.

Asked for: at least 5 times as fast at 99 % of its mIoU. Exit code 1 where that is not reached.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.config import load_config
from edgeseg.core.errors import ConfigError, EdgesegError
from edgeseg.core.files import read_json, write_json
from edgeseg.core.images import ClassMap, Frame, to_frame, to_model
from edgeseg.core.instances import as_class_map
from edgeseg.core.metrics import confusion_matrix, score
from edgeseg.core.vendors import quiet, versions
from edgeseg.data.dataset import load_dataset
from edgeseg.data.store import read_sample
from targets.boards import plan
from targets.machine import describe_machine
from targets.measure.loop import StepTimes
from targets.measure.result import FULL, QUICK, Limits
from targets.measure.versus import Step, run_pairs
from targets.runtimes import open_session

Answer = Callable[[Frame], ClassMap]

TIMES: Final = 5.0
RETENTION: Final = 0.99
_TIMED_FRAMES: Final = 16


def usual_script(checkpoint: Path, work: Path) -> tuple[Answer, Path]:
    """Give what is written when a network has to run somewhere: frame uint8 [H, W, 3] -> class map uint8 [H, W]; and its ONNX file."""
    import onnxruntime
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    from edgeseg.models.decision import MEAN_RGB, STD_RGB
    from edgeseg.training.checkpoint import load_checkpoint

    mean, std = (np.array(values, dtype=np.float32) / 255 for values in (MEAN_RGB, STD_RGB))
    net, meta = load_checkpoint(checkpoint)
    if meta.contract.resize != "stretch":
        raise ConfigError(f"{checkpoint}: the usual script stretches frames to the model size, and this network was trained on "
                          f"{meta.contract.resize}")
    if meta.model.one_score:
        raise ConfigError(f"{checkpoint}: the usual script takes the argmax of one score a class, and this network has one for two")
    height, width = meta.contract.height, meta.contract.width

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x_NCHW: Tensor) -> Tensor:
            return F.interpolate(self.net(x_NCHW), (height, width), mode="bilinear", align_corners=False)

    path = work / "usual.onnx"
    with quiet(), torch.no_grad():
        torch.onnx.export(Plain().eval(), (torch.zeros(1, 3, height, width),), path, dynamo=True, verbose=False,
                          input_names=["input"], output_names=["logits"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def answer(frame: Frame) -> ClassMap:
        rows, columns = frame.shape[:2]
        image = frame if (rows, columns) == (height, width) else np.asarray(
            Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
        x = (image.astype(np.float32) / 255 - mean) / std
        x = np.ascontiguousarray(x.transpose(2, 0, 1)[None])
        (logits,) = session.run(None, {"input": x})
        mask: ClassMap = logits[0].argmax(axis=0).astype(np.uint8)
        if (rows, columns) != (height, width):
            mask = np.asarray(Image.fromarray(mask).resize((columns, rows), Image.Resampling.NEAREST))
        return mask

    return answer, path


def ours(bundle: Bundle, arithmetic: str) -> tuple[Answer, dict[str, Any]]:
    """Give the bundle in its runtime, one thread: frame -> class map, both at frame size; and how it is run."""
    manifest = bundle.manifest
    how = plan("host", manifest.format, manifest.precision, num_threads=1, precision_hint=arithmetic)
    session = open_session(bundle, how.runtime, how.options)
    contract = manifest.contract

    def answer(frame: Frame) -> ClassMap:
        placement = contract.place((frame.shape[0], frame.shape[1]))
        return to_frame([as_class_map(session.run(part)) for part in to_model(frame, placement)], placement)

    return answer, {"bundle": manifest.name, "bundle_sha256": manifest.sha256, "format": manifest.format, "precision": manifest.precision,
                    "arithmetic": how.options.precision_hint, "runtime": how.runtime, "settings": dict(session.settings),
                    "size_hw": [contract.height, contract.width]}


def recommended(run: Path) -> tuple[Path, str]:
    """The bundle that the run recommends for this machine, and the arithmetic it recommends it in.

    Raises:
        ConfigError: it recommends none.
    """
    for row in read_json(run / "results.json"):
        if row["target"] == "host" and row["recommended"]:
            return run / "bundles" / str(row["bundle"]), str(row["arithmetic"])
    raise ConfigError(f"{run} recommends no bundle for host; give one with --bundle")


def main() -> int:
    """Measure, compare, print; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run that is done (edgeseg run)")
    parser.add_argument("--bundle", type=Path, help="a bundle in place of the recommended one, in f32")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=0, help="evaluate on so many frames only; 0 = all of the split")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter blocks; stamped in the result")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    run: Path = given.run
    config = load_config(run / "edgeseg.toml")
    dataset = load_dataset(config.data, seed=config.train.seed)
    num_classes = len(dataset.classes)
    samples = dataset.splits[given.split]
    samples = samples[: given.limit] if given.limit else samples
    folder, arithmetic = (given.bundle, "f32") if given.bundle else recommended(run)
    bundle = open_bundle(folder)
    with tempfile.TemporaryDirectory(prefix="edgeseg-usual-") as work:
        usual, onnx_file = usual_script(run / "checkpoints" / "trained", Path(work))
        theirs_mb = sum(file.stat().st_size for file in onnx_file.parent.iterdir()) / 1e6
        mine, how = ours(bundle, arithmetic)
        totals = {name: np.zeros((num_classes, num_classes), dtype=np.int64) for name in ("usual", "ours")}
        frames: list[Frame] = []
        for sample in samples:
            frame, label = read_sample(sample, num_classes=num_classes)
            for name, answer in (("usual", usual), ("ours", mine)):
                totals[name] += confusion_matrix(answer(frame), label, num_classes=num_classes)
            if len(frames) < _TIMED_FRAMES:
                frames.append(frame)
        speed = _race(usual, mine, frames, QUICK if given.quick else FULL)
    found = {name: score(total) for name, total in totals.items()}
    retention = found["ours"].miou / found["usual"].miou
    reached = speed["ratio"] >= TIMES and retention >= RETENTION
    machine = describe_machine()
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.whole_chain", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "machine": machine.to_json(), "threads": 1, "seeds": [],
        "versions": versions("torch", "onnx", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "ai-edge-quantizer", "numpy", "pillow"),
        "dataset": dataset.name, "dataset_sha256": dataset.sha256, "split": given.split, "frames": len(samples),
        "checkpoint_sha256": read_json(run / "checkpoints/trained/checkpoint.json")["weights_sha256"],
        "usual": {"miou": found["usual"].miou, "p50_ms": speed["usual_ms"], "size_mb": theirs_mb},
        "ours": {"miou": found["ours"].miou, "p50_ms": speed["ours_ms"], "size_mb": bundle.size_bytes / 1e6, **how},
        "times_as_fast": speed["ratio"], "low": speed["low"], "high": speed["high"], "quick": given.quick, "miou_retention": retention,
        "asked_for": {"times_as_fast": TIMES, "miou_retention": RETENTION}, "reached": reached,
    }
    print(f"{'':14}{'mIoU':>8}{'frame to mask':>16}{'size':>11}")
    for side in ("usual", "ours"):
        row: Any = result[side]
        print(f"{side:<14}{row['miou']:>8.4f}{row['p50_ms']:>13.2f} ms{row['size_mb']:>8.2f} MB")
    print(f"usual: float ONNX, ONNX Runtime's defaults; ours: {how['bundle']} in {how['runtime']}")
    print(f"{speed['ratio']:.2f} times as fast (95 % interval {speed['low']:.2f} to {speed['high']:.2f}), {retention:.2%} of its mIoU on "
          f"{len(samples)} {given.split} frames of {dataset.name}, one thread, {machine.cpu}{', QUICK' if given.quick else ''}")
    print(f"asked for: {TIMES:g} times at {RETENTION:.0%}: {'reached' if reached else 'NOT reached'}")
    if given.json:
        write_json(given.json, result)
    return 0 if reached else 1


def _race(usual: Answer, mine: Answer, frames: Sequence[Frame], limits: Limits) -> dict[str, float]:
    """Run both in blocks ABBA over the same frames; the median ratio of the blocks with its 95 % interval."""
    for answer in (usual, mine):
        for frame in frames:  # warm
            answer(frame)
    pairs = run_pairs(_step(usual, frames), _step(mine, frames), limits, time.perf_counter_ns, lambda stage, done: None, "")
    found = pairs.ratio("end_to_end")
    usual_ms, ours_ms = (float(np.median([block.end_to_end for block in side])) / 1e6 for side in (pairs.first, pairs.second))
    return {"ratio": found.ratio, "low": found.low, "high": found.high, "usual_ms": usual_ms, "ours_ms": ours_ms}


def _step(answer: Answer, frames: Sequence[Frame]) -> Step:
    """Answer the next frame, timed as a whole."""
    turns = cycle(frames)

    def step(times: StepTimes) -> None:
        frame, start = next(turns), time.perf_counter_ns()
        answer(frame)
        times.end_to_end.append(time.perf_counter_ns() - start)
        for part in (times.decode, times.resize, times.resize_back):
            part.append(0)

    return step


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgesegError as error:
        sys.exit(f"whole_chain: {error}")
