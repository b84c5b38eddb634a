"""A report with everything in it: three formats, two targets, a class that is absent, drawn without running anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeseg.report.model import (
    CurvePoint,
    DatasetFacts,
    FloatReference,
    GoalResult,
    Picture,
    PruningFacts,
    Ratio,
    ReportData,
    ResultRow,
    TrainingFacts,
)
from edgeseg.report.recommend import mark

CLASSES = ("soil", "crop", "weed", "stone")
PALETTE = ((117, 76, 36), (64, 156, 64), (220, 60, 120), (130, 130, 140))
CONFUSION = ((78_000, 1_200, 800, 0), (900, 15_000, 100, 0), (400, 137, 5_463, 0), (0, 0, 0, 0))
FLOAT_IOU = (0.961, 0.902, 0.811, None)


def row(fmt: str, precision: str, p50_ms: float, **changes: object) -> ResultRow:
    runtime = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "litert"}[fmt]
    drop = 0.0 if precision == "fp32" else 0.004
    plain = ResultRow(
        target="host", bundle=f"{fmt}-{precision}", bundle_sha256=("ab" * 32), format=fmt, precision=precision, runtime=runtime,
        runtime_version="1.31.1", device="local", measured_on="Intel Xeon 2.10 GHz", is_target_machine=True, quick=False, threads=2,
        size_bytes=1_530_000 if precision == "fp32" else 480_000, settings={"intra_op_num_threads": "2", "precision hint": "f32"},
        miou=0.8913 - drop, miou_float=0.8913, iou=(0.961, 0.902 - drop / 2, 0.811 - 4 * drop, None), worst_class="weed",
        worst_class_drop=4 * drop, agreement=0.99998 if precision == "fp32" else 0.9874, p50_ms=p50_ms, p90_ms=p50_ms * 1.08,
        p99_ms=p50_ms * 1.3, fps=1000 / p50_ms / 1.02, peak_rss_bytes=91_000_000, load_ms=38.0, decode_ms=1.9, resize_ms=0.6,
        inference_ms=p50_ms, resize_back_ms=0.2, end_to_end_ms=p50_ms + 2.75, pixel_accuracy=0.9701, mean_dice=0.9402 - drop / 2,
        dice=(0.98, 0.947, 0.894, None), mean_boundary_f1=0.8204 - drop, boundary_f1=(0.9, 0.84, 0.722, None), confusion=CONFUSION,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def rows() -> tuple[ResultRow, ...]:
    host = [
        row("onnx", "fp32", 10.0), row("onnx", "int8", 11.9, speedup_vs_fp32=Ratio(value=0.84, low=0.81, high=0.87)),
        row("openvino", "fp32", 8.1), row("openvino", "int8", 4.6, speedup_vs_fp32=Ratio(value=1.76, low=1.71, high=1.80)),
        row("tflite", "fp32", 9.4), row("tflite", "int8", 6.2, speedup_vs_fp32=Ratio(value=1.52, low=1.48, high=1.55)),
    ]
    away = {"target": "raspberry-pi-5", "is_target_machine": False, "quick": True, "threads": 4}
    board = [row("tflite", "fp32", 6.1, **away), row("tflite", "int8", 6.6, speedup_vs_fp32=Ratio(value=0.92, low=0.9, high=0.97), **away)]
    return mark([*host, *board])


def field_pictures(count: int = 4) -> tuple[Picture, ...]:
    pictures = []
    yy, xx = np.mgrid[0:180, 0:240]
    for i in range(count):
        rng = np.random.default_rng(i)
        label = np.zeros((180, 240), np.uint8)
        for _ in range(14):
            y, x, r, c = rng.integers(0, 180), rng.integers(0, 240), rng.integers(8, 26), rng.integers(1, 3)
            label[(yy - y) ** 2 + (xx - x) ** 2 < r * r] = c
        label[:6] = 255
        frame = np.asarray(PALETTE, np.int16)[np.minimum(label, 3)] + rng.integers(-25, 25, (180, 240, 1))
        answers = []
        for k in range(4):
            moved = np.roll(label, k + i, axis=1)
            answers.append(np.where(moved == 255, 0, moved).astype(np.uint8))
        maps = dict(zip(("onnx-int8", "openvino-int8", "tflite-int8"), answers[1:], strict=True))
        pictures.append(Picture(
            id=f"field_{i:03}", frame=np.clip(frame, 0, 255).astype(np.uint8), label=label, float_map=answers[0], bundle_maps=maps,
            note="Small weeds between the rows." if i == 0 else "",
        ))
    return tuple(pictures)


def report(**changes: object) -> ReportData:
    curve = tuple(CurvePoint(epoch=e, loss=1.4 * 0.93**e + 0.12 + 0.03 * np.sin(e), score=0.89 - 0.6 * 0.9**e if e % 5 == 0 else None)
                  for e in range(1, 61))
    data = ReportData(
        run_name="field-demo", created_utc="2026-11-22T21:58:00Z", edgeseg_version="0.1.0",
        machine={"cpu": "Intel Xeon 2.10 GHz", "cores": "2", "memory": "8.2 GB", "os": "Linux 6.1", "python": "3.11.7"},
        dataset=DatasetFacts(
            name="synthetic field", root="edgeseg-demo", sha256="cd" * 32, classes=CLASSES, palette=PALETTE,
            counts={"train": 240, "val": 40, "test": 60}, split_rule="as the folders are",
            warnings=("class stone is absent in every split",),
            pixel_shares=dict.fromkeys(("train", "val", "test"), (0.78, 0.16, 0.06, 0.0)),
        ),
        training=TrainingFacts(network="fast_scnn", params=1_140_000, macs=570_000_000, size_hw=(192, 256), epochs=60, minutes=6.4,
                               best_val_score=0.893, curve=curve, device="cpu", precision="bf16", seed=0),
        pruning=PruningFacts(params_before=1_140_000, params_after=610_000, macs_before=570_000_000, macs_after=310_000_000,
                             latency_before_ms=10.0, latency_after_ms=7.2, miou_before=0.893, miou_after=0.8913,
                             latency_where="ONNX Runtime on Intel Xeon 2.10 GHz",
                             verdict="Pruning kept 54 % of the MACs and made a frame 28 % faster.",
                             method="Channels by taylor, all layers weighed at once, multiples of 16, cuts: 2.",
                             layers=(("downsample.0.conv", 32, 16), ("extract.0.body.0.conv", 384, 208))),
        float_reference=FloatReference(
            split="test", num_frames=60, miou=0.8913, iou=FLOAT_IOU, pixel_accuracy=0.971, mean_dice=0.9412,
            dice=(0.98, 0.948, 0.896, None), mean_boundary_f1=0.8234, boundary_f1=(0.9, 0.84, 0.731, None), confusion=CONFUSION,
        ),
        rows=rows(), pictures=field_pictures(),
        goals=(
            GoalResult(goal="agreement", limit=0.999, got=0.99998, passed=True, where="onnx fp32"),
            GoalResult(goal="miou_drop", limit=0.01, got=0.004, passed=True, where="onnx int8"),
            GoalResult(goal="p90_ms", limit=25, got=6.7, passed=True, where="raspberry-pi-5"),
        ),
        not_verified=("No Raspberry Pi 5 was at hand: its answers were computed here, its speed is not known.",
                      "The class stone does not occur in the test split and is not evaluated."),
        versions={"edgeseg": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.31.1"},
        config_toml='name = "field-demo"\n\n[train]\nepochs = 60\n',
        settings={"calibration": "90 frames of train, SHA-256 1234abcd"},
    )
    return replace(data, **changes)  # type: ignore[arg-type]
