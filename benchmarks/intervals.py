"""How often intervals over images hold what they ought to: test sets are drawn from the images of a real one, whose value is known.

    python -m benchmarks.intervals runs/NAME --format onnx --sizes 10,20,60 --draws 200 --json FILE

Counts, for the drop of mIoU and of each class between the run's float reference and its int8 bundle, how often the upper end of a 95 %
interval is at or above the drop on all images (wanted: 97.5 %): percentile, percentile stretched as `edgeseg.core.bootstrap` does it, and
BCa (Efron and Tibshirani 1993, chapter 14). ADR 0014 leans on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration import confusions
from benchmarks.int8_accuracy import facts, open_finished
from edgeseg.core.errors import InputMissingError
from edgeseg.core.files import write_json
from edgeseg.core.stats import small_sample_factor
from edgeseg.workflow.learn.reference import read_confusions

Array = NDArray[np.float64]
WAYS = ("percentile", "stretched", "bca")
RESAMPLES = 1000


def drops(before_NCC: NDArray[np.int64], after_NCC: NDArray[np.int64], weights_BN: Array) -> Array:
    """Drop of each class and, last, of mIoU, for each draw: float64 [B, C + 1]; NaN where a draw does not hold the class."""

    def iou(confusions_NCC: NDArray[np.int64]) -> Array:
        hit = np.diagonal(confusions_NCC, axis1=1, axis2=2)
        labelled = confusions_NCC.sum(axis=2)
        hits, unions, there = (weights_BN @ one.astype(float) for one in (hit, labelled + confusions_NCC.sum(axis=1) - hit, labelled))
        found: Array = np.where(there > 0, hits / np.maximum(unions, 1), np.nan)
        return found

    lost = iou(before_NCC) - iou(after_NCC)
    return np.column_stack([lost, np.nanmean(lost, axis=1)])


def upper_ends(value: float, drawn_B: Array, jackknife_N: Array, num_frames: int) -> dict[str, float]:
    """Upper ends of the three intervals."""
    normal, z = NormalDist(), NormalDist().inv_cdf(0.975)
    high = float(np.percentile(drawn_B, 97.5))
    middle = float(np.mean(drawn_B < value) + np.mean(drawn_B == value) / 2)
    bias = normal.inv_cdf(min(max(middle, 1e-3), 1 - 1e-3))
    from_mean = jackknife_N.mean() - jackknife_N
    skew = float((from_mean**3).sum() / (6 * max(float((from_mean**2).sum()), 1e-30) ** 1.5))
    percent = 100 * normal.cdf(bias + (bias + z) / (1 - skew * (bias + z)))
    return {
        "percentile": high, "stretched": value + small_sample_factor(num_frames) * max(0.0, high - value),
        "bca": float(np.percentile(drawn_B, percent)),
    }


def coverage(before_NCC: NDArray[np.int64], after_NCC: NDArray[np.int64], size: int, draws: int) -> dict[str, list[float | None]]:
    """Share of draws of `size` images in which each way's upper end is at or above the truth: each class, then mIoU."""
    generator = np.random.Generator(np.random.Philox(size))
    truth = drops(before_NCC, after_NCC, np.ones((1, len(before_NCC))))[0]
    held = {way: np.zeros(len(truth)) for way in WAYS}
    cases = np.zeros(len(truth))
    for _ in range(draws):
        pick = generator.integers(0, len(before_NCC), size)
        before, after = before_NCC[pick], after_NCC[pick]
        drawn = drops(before, after, generator.multinomial(size, np.full(size, 1 / size), size=RESAMPLES).astype(float))
        value = drops(before, after, np.ones((1, size)))[0]
        left_out = drops(before, after, np.ones((size, size)) - np.eye(size))
        frames = [*(before.sum(axis=2) > 0).sum(axis=0).tolist(), size]
        for i, num_frames in enumerate(frames):
            known, others = drawn[:, i][~np.isnan(drawn[:, i])], left_out[:, i][~np.isnan(left_out[:, i])]
            if num_frames < 2 or np.isnan(value[i]):
                continue
            cases[i] += 1
            for way, end in upper_ends(float(value[i]), known, others, num_frames).items():
                held[way][i] += truth[i] <= end + 1e-12
    return {way: [round(float(h / n), 4) if n else None for h, n in zip(held[way], cases, strict=True)] for way in WAYS}


def main() -> None:
    """Draw, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--format", default="onnx")
    parser.add_argument("--sizes", default="10,20,60")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    run = open_finished(args.run, frames=0)
    bundle = run.bundle(args.format, "int8") or run.bundle(args.format, "mixed")
    if bundle is None:
        raise InputMissingError(f"{args.run} has no int8 bundle of format {args.format}; type: edgeseg run")
    before, after = read_confusions(args.run / "reference"), confusions(bundle, run)
    rows: list[dict[str, Any]] = []
    for size in map(int, args.sizes.split(",")):
        held = coverage(before, after, size, args.draws)
        rows.append({"size": size, "draws": args.draws, "held": held})
        for way in WAYS:
            print(f"{run.config.name} {args.format} {size:4} images  {way:10}  mIoU {held[way][-1]}  classes {held[way][:-1]}", flush=True)
    if args.json:
        write_json(args.json, {**facts([run]), "classes": list(bundle.manifest.classes), "rows": rows})


if __name__ == "__main__":
    main()
