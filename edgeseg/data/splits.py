"""Splits that a data set does not come with: drawn by hash, so that the same seed gives the same splits anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from edgeseg.core.config import DataSection
from edgeseg.data.base import SPLITS, Sample, counted

SPLIT_NAMES: Final[dict[str, str]] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}
"""What folders and files call a split -> what we call it."""


def complete_splits(
    splits: Mapping[str, tuple[Sample, ...]], section: DataSection, *, seed: int
) -> tuple[dict[str, tuple[Sample, ...]], str]:
    """Give all splits and, in words, what was drawn: everything where the only split is "", val where train has none beside it."""
    if set(splits) == {""}:
        return draw_splits(splits[""], section, seed=seed)
    made = {split: samples for split, samples in splits.items() if samples}
    rule = ""
    if not made.get("val") and made.get("train"):
        made["val"], made["train"], drawn = _draw(made["train"], section.val_share, "val", seed)
        rule = f"val: {drawn} of train"
    return {split: made[split] for split in SPLITS if made.get(split)}, rule


def draw_splits(samples: Sequence[Sample], section: DataSection, *, seed: int) -> tuple[dict[str, tuple[Sample, ...]], str]:
    """Draw train, val and (where `test_share` > 0) test by the rank of SHA-256(seed:id), which moves few frames when some are added."""
    rest = tuple(samples)
    splits: dict[str, tuple[Sample, ...]] = {}
    rules = []
    total = len(rest)
    for split, share in (("test", section.test_share), ("val", section.val_share)):
        if share > 0 and len(rest) > (1 if split == "val" else 2):  # of two frames one is val: without it nothing can be trained
            splits[split], rest, drawn = _draw(rest, share * total / len(rest), split, seed)
            rules.append(f"{split}: {drawn}")
    splits["train"] = tuple(replace(sample, split="train") for sample in rest)
    drawn = "; ".join(rules) or "nothing, too few frames"
    rule = f"no splits in the folder; drawn with seed {seed}: {drawn}; train: {counted(len(rest), 'frame')}"
    return {split: splits[split] for split in SPLITS if splits.get(split)}, rule


def _draw(samples: Sequence[Sample], share: float, split: str, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...], str]:
    """Take `share` of the samples (at least one, never all) for `split`; give taken, rest and the rule in words."""
    count = min(max(1, round(len(samples) * share)), len(samples) - 1)
    ranked = sorted(samples, key=lambda sample: hashlib.sha256(f"{seed}:{sample.id}".encode()).digest())
    chosen = {sample.id for sample in ranked[:count]}
    taken = tuple(replace(sample, split=split) for sample in samples if sample.id in chosen)
    rest = tuple(sample for sample in samples if sample.id not in chosen)
    return taken, rest, f"{counted(count, 'frame')} by rank of SHA-256('{seed}:id')"
