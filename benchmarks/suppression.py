"""How many steps suppression in the graph needs to be greedy suppression, beside Fast NMS and Matrix NMS: the table of docs/adr/0008.

    python -m benchmarks.suppression [--annotations coco/annotations/instances_val.json] [--sets 200]

Sets of 512 boxes by falling score. `missed` and `added` are shares of what greedy suppression keeps; `equal` is the share of sets with the
very same answer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from edgeseg.models.mask_rcnn.boxes import iou, suppress

Boxes = NDArray[np.float64]
Kept = NDArray[np.bool_]
COUNT: Final = 512


def greedy(overlap: Boxes, threshold: float) -> Kept:
    """The definition: a box stays if no box that stays before it overlaps it by more."""
    kept = np.ones(len(overlap), dtype=np.bool_)
    for i in range(len(overlap)):
        if kept[i]:
            kept[i + 1 :] &= ~(overlap[i, i + 1 :] > threshold)
    return kept


def iterated(steps: int) -> Callable[[Boxes, float], Kept]:
    """Ours with so many steps; 1 is Fast NMS (arXiv:1904.02689)."""
    return lambda overlap, threshold: suppress(torch.from_numpy(overlap), threshold, steps).numpy() > 0


def matrix_nms(overlap: Boxes, threshold: float) -> Kept:
    """Matrix NMS (arXiv:2003.10152) with linear decay, cut where a box overlapped by `threshold` alone would be cut."""
    earlier = np.triu(overlap, 1)
    decay = (1 - earlier) / (1 - earlier.max(axis=0)[:, None] + 1e-9)
    decay[np.tril_indices(len(overlap))] = 1
    return np.asarray(decay.min(axis=0) >= 1 - threshold)


METHODS: Final[dict[str, Callable[[Boxes, float], Kept]]] = {
    **{f"{steps} steps": iterated(steps) for steps in (1, 2, 3, 4, 5, 6, 8, 12)}, "Matrix NMS": matrix_nms,
}


def corners(middle: Boxes, size: Boxes) -> Boxes:
    """Boxes x0, y0, x1, y1."""
    return np.concatenate([middle - size / 2, middle + size / 2], axis=1)


def around(middle: Boxes, size: Boxes, rng: np.random.Generator) -> Boxes:
    """Boxes around objects: moved by 12 % of the size, scaled by 20 %."""
    pick = rng.integers(0, len(middle), COUNT)
    moved = middle[pick] + rng.normal(0, 0.12, (COUNT, 2)) * size[pick]
    return corners(moved, size[pick] * np.exp(rng.normal(0, 0.2, (COUNT, 2))))


def sets_of(count: int, annotations: Path | None) -> Iterator[tuple[str, Boxes]]:
    """Kinds of boxes, the same at each call."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield "random", corners(rng.uniform(0, 480, (COUNT, 2)), rng.uniform(16, 160, (COUNT, 2)))
    for _ in range(count):
        yield "around 10 objects", around(rng.uniform(60, 420, (10, 2)), rng.uniform(30, 160, (10, 2)), rng)
    if annotations is not None:
        frames: dict[int, list[list[float]]] = {}
        for entry in json.loads(annotations.read_text(encoding="utf-8"))["annotations"]:
            if not entry.get("iscrowd"):
                frames.setdefault(entry["image_id"], []).append(entry["bbox"])
        for boxes in frames.values():
            found = np.array(boxes, dtype=np.float64)
            yield "around objects of COCO", around(found[:, :2] + found[:, 2:] / 2, found[:, 2:], rng)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--sets", type=int, default=200)
    options = parser.parse_args()
    for threshold in (0.5, 0.7):
        rows: dict[str, dict[str, list[tuple[int, int, int, bool]]]] = {}
        for kind, boxes in sets_of(options.sets, options.annotations):
            tensor = torch.from_numpy(boxes.astype(np.float32))
            overlap = iou(tensor, tensor).numpy()
            wanted = greedy(overlap, threshold)
            for name, method in METHODS.items():
                got = method(overlap, threshold)
                counts = (int(wanted.sum()), int((wanted & ~got).sum()), int((got & ~wanted).sum()), bool((got == wanted).all()))
                rows.setdefault(kind, {}).setdefault(name, []).append(counts)
        for kind, methods in rows.items():
            for name, found in methods.items():
                kept, missed, added = (sum(row[i] for row in found) for i in range(3))
                print(f"IoU {threshold} {kind:24s} {name:10s} missed {missed / kept:8.3%} added {added / kept:8.3%} "
                      f"equal {np.mean([row[3] for row in found]):.3f} of {len(found)}")


if __name__ == "__main__":
    main()
