"""How int8 depends on the calibration frames: how many, and how they are chosen.

    python -m benchmarks.calibration runs/NAME --formats onnx --counts 4,16,64 --frames 60 --json FILE

For each format, number of frames and way (`cover`, and `spread` with several seeds) one int8 bundle by the format's default plan, without a
ladder, scored on frames of the run's evaluation split; drops are against the fp32 bundle on the same frames, with their 95 % intervals.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.int8_accuracy import Run, facts, open_finished
from edgeseg.core.bootstrap import intervals
from edgeseg.core.bundle import Bundle
from edgeseg.core.files import write_json
from edgeseg.core.images import Frame, read_frame, to_frame, to_model
from edgeseg.core.instances import as_class_map
from edgeseg.core.metrics import confusion_matrix
from edgeseg.data.store import read_sample
from edgeseg.workflow.bundle.pictures import at_model_size
from edgeseg.workflow.compress.calibrating import choose, classes_of
from quantization import QUANTIZERS
from quantization.ladder import as_bundle
from targets.boards import plan
from targets.runtimes import open_session


def confusions(bundle: Bundle, run: Run) -> NDArray[np.int64]:
    """One confusion matrix a frame, int64 [N, C, C]."""
    manifest = bundle.manifest
    how = plan("host", manifest.format, manifest.precision, num_threads=1)
    session, found = open_session(bundle, how.runtime, how.options), []
    contract = manifest.contract
    for frame, label in run.labelled:
        placement = contract.place((frame.shape[0], frame.shape[1]))
        answers = [as_class_map(session.run(part)) for part in to_model(frame, placement)]
        found.append(confusion_matrix(to_frame(answers, placement), label, num_classes=len(manifest.classes)))
    session.close()
    return np.stack(found)


def compare(run: Run, format_: str, counts: Sequence[int], seeds: int) -> list[dict[str, Any]]:
    """A row each number of frames and way."""
    parent = run.bundle(format_, "fp32")
    if parent is None:
        return []
    manifest, train = parent.manifest, run.dataset.splits["train"]
    others = [sample.image for split in ("val", "test") for sample in run.dataset.splits.get(split, ())]
    looked: dict[int, tuple[Frame, Sequence[int]]] = {}

    def read(index: int) -> tuple[Frame, Sequence[int]]:
        if index not in looked:
            frame, label = read_sample(train[index], num_classes=len(manifest.classes))
            looked[index] = frame, classes_of(label)
        return looked[index]

    seen, rows = [read_frame(path) for path in others], []
    before = confusions(parent, run)
    for count in counts:
        for way, seed in (("cover", 0), *(("spread", seed) for seed in range(seeds))):
            choice = choose(
                [sample.id for sample in train], read, seen, count=count, way=way, seed=seed, classes=manifest.classes, judged=False
            )
            frames = [part for index in choice.calibrate for part in at_model_size(read(index)[0], manifest.contract)]
            with tempfile.TemporaryDirectory() as folder:
                quantizer = QUANTIZERS[format_]
                model = quantizer.prepare(parent, frames).write(quantizer.offers[0], Path(folder))
                drop = intervals(confusions(as_bundle(parent, model), run), before)
            assert drop.miou_drop is not None
            shown = choice.facts["covers"]["chosen"]["class_frames"]
            worst = max((one.value, name) for one, name in zip(drop.class_drop, manifest.classes, strict=True) if one is not None)
            rows.append({
                "run": run.config.name, "format": format_, "num_frames": count, "way": way, "seed": seed, "miou": round(drop.miou.value, 5),
                "miou_drop": round(drop.miou_drop.value, 5), "low": drop.miou_drop.low, "high": drop.miou_drop.high,
                "worst_class": worst[1], "worst_class_drop": round(worst[0], 5), "classes_shown": sum(map(bool, shown.values())),
                "refused": choice.facts["refused"],
            })
            row = rows[-1]
            print(f"{row['run']} {format_:9} {count:4} {way:6} {seed}  mIoU {row['miou']:.4f}  drop {row['miou_drop']:+.4f} "
                  f"({row['low']:+.4f} to {row['high']:+.4f})  {worst[1]} {worst[0]:+.4f}  classes {row['classes_shown']}", flush=True)
    return rows


def main() -> None:
    """Compare, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--formats", default="onnx,openvino,tflite")
    parser.add_argument("--counts", default="1,2,4,8,16,32,64,128")
    parser.add_argument("--seeds", type=int, default=3, help="spreads a number of frames")
    parser.add_argument("--frames", type=int, default=0, help="frames of the evaluation split; 0 = all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    runs = [open_finished(folder, frames=args.frames) for folder in args.runs]
    counts = [int(count) for count in args.counts.split(",")]
    rows = [row for run in runs for format_ in args.formats.split(",") for row in compare(run, format_, counts, args.seeds)]
    if args.json:
        write_json(args.json, {**facts(runs), "rows": rows})


if __name__ == "__main__":
    main()
