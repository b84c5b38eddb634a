"""What each calibrator of the ONNX quantizer costs in accuracy: one fp32 bundle, its training frames, its labelled test frames.

    python -m benchmarks.onnx_calibrators BUNDLE --data DIR [--frames 64]

Prints one row a calibrator: share of pixels as fp32 and mIoU on the test split (the table in docs/adr/0005 is from here).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from edgeseg.core.bundle import open_bundle
from edgeseg.core.config import DataSection
from edgeseg.core.images import ClassMap, Frame, place, to_frame, to_model
from edgeseg.core.metrics import confusion_matrix, score
from edgeseg.core.vendors import quiet
from edgeseg.data.dataset import load_dataset
from edgeseg.data.store import read_sample
from quantization.calibration import choose_calibration
from quantization.onnx_calibrators import CALIBRATORS, answers, thin
from quantization.quantize_onnx import Int8Writer


def main() -> None:
    """Calibrate on `--frames` training frames, answer every test frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=64)
    args = parser.parse_args()
    bundle = open_bundle(args.bundle)
    contract, num_classes = bundle.manifest.contract, len(bundle.manifest.classes)
    dataset = load_dataset(DataSection(dir=str(args.data), classes=bundle.manifest.classes), seed=0)
    train, test = dataset.splits["train"], dataset.splits["test"]

    def inputs(frame: Frame) -> list[Frame]:
        return to_model(frame, place(frame.shape[:2], (contract.height, contract.width), contract.resize))

    chosen = choose_calibration([sample.id for sample in train], args.frames, seed=0)
    calibration = [inputs(read_sample(train[i], num_classes=num_classes)[0])[0] for i in chosen]
    labelled = [read_sample(sample, num_classes=num_classes) for sample in test]
    frames = [frame for image, _ in labelled for frame in inputs(image)]

    def miou(got: list[ClassMap]) -> float:
        rest, total = iter(got), np.zeros((num_classes, num_classes), np.int64)
        for image, label in labelled:
            placement = place(image.shape[:2], (contract.height, contract.width), contract.resize)
            total += confusion_matrix(to_frame([next(rest) for _ in inputs(image)], placement), label, num_classes=num_classes)
        return score(total).miou

    expected = [answer[0] for answer in answers(bundle.model_path, frames)]
    print(f"{'fp32':<28} mIoU {miou(expected):.4f}  ({len(labelled)} test frames, {len(calibration)} calibration frames)")
    write = Int8Writer(bundle.model_path)
    with tempfile.TemporaryDirectory() as folder:
        for name, calibrator in CALIBRATORS.items():
            path = Path(folder) / "int8.onnx"
            with quiet():
                write(calibrator, thin(calibration, calibrator.max_pixels), path)
            got = [answer[0] for answer in answers(path, frames)]
            share = float(np.mean([np.mean(a == b) for a, b in zip(got, expected, strict=True)]))
            print(f"{name:<28} mIoU {miou(got):.4f}  pixels as fp32 {share:.4f}", flush=True)


if __name__ == "__main__":
    main()
