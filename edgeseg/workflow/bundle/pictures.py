"""The frames an imported bundle is compared, sealed and calibrated on: a labelled data set, a folder of images, or drawn ones."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edgeseg.core.config import DataSection, QuantizeSection, load_config
from edgeseg.core.errors import ConfigError, DataError, InputMissingError, require_path
from edgeseg.core.images import ClassMap, Frame, read_frame, to_model
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import Confusion, SegmentationScore, score
from edgeseg.data.base import Sample
from edgeseg.data.dataset import DATASETS, Dataset, photographs
from edgeseg.data.store import read_sample
from edgeseg.data.synthetic import draw_field
from edgeseg.workflow.bundle.labelled import load_labelled

_DRAWN: Final = 6
"""Frames drawn where no data is given."""
_UNLABELLED: Final = 64
"""At most so many frames of a folder without labels are compared."""

Item = tuple[str, Frame, ClassMap | None]
"""Name, frame and (where there is one) label, at frame size."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where frames come from. Nothing is decoded until it is asked for."""

    name: str
    dataset: Dataset | None = None
    images: tuple[Path, ...] = ()
    """Of a folder without labels."""
    section: DataSection = field(default_factory=DataSection)
    seed: int = 0
    way: str = "cover"
    """How calibration frames are chosen: `[quantize] calibration`."""

    @property
    def drawn(self) -> bool:
        """Nobody gave any data."""
        return self.dataset is None and not self.images

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about labelled data (classes left out, a threshold), in words."""
        return () if self.dataset is None else self.dataset.notes

    @property
    def eval_split(self) -> str:
        """The split accuracy is measured on, "" without labels."""
        if self.dataset is None:
            return ""
        return next(split for split in (self.section.eval_split, "val", *self.dataset.splits) if self.dataset.splits.get(split))

    def evaluation(self) -> tuple[int, Iterator[Item]]:
        """Frames to compare and (with labels) to measure on: all of the split, or up to 64 without labels."""
        if self.dataset is not None:
            samples = self.dataset.splits[self.eval_split]
            return len(samples), (_labelled(sample, len(self.dataset.classes)) for sample in samples)
        if self.images:
            chosen = [self.images[i] for i in spread(len(self.images), _UNLABELLED)]
            return len(chosen), ((path.name, read_frame(path), None) for path in chosen)
        return _DRAWN, ((f"drawn {i}", _draw("test", i), None) for i in range(_DRAWN))

    def golden(self, contract: Contract, count: int) -> list[Frame]:
        """Frames at model size, spread evenly over the val split, the folder, or the drawn ones (the first tile of each)."""
        if self.dataset is not None:
            split = "val" if self.dataset.splits.get("val") else self.eval_split
            samples = self.dataset.splits[split]
            frames = (read_frame(samples[i].image) for i in spread(len(samples), count))
        elif self.images:
            frames = (read_frame(self.images[i]) for i in spread(len(self.images), count))
        else:
            frames = (_draw("val", i) for i in range(min(count, _DRAWN)))
        return [parts[0] for parts in (at_model_size(frame, contract) for frame in frames)]

    def for_int8(
        self, contract: Contract, count: int, *, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> TrainingFrames:
        """Frames to calibrate on, from the train split or the folder, and others held back to judge by.

        Raises:
            ConfigError: nobody gave any data, or it has no train split.
        """
        from edgeseg.workflow.compress.calibrating import choose, classes_of

        others: list[Path] = []
        if self.dataset is not None:
            samples = self.dataset.splits.get("train", ())
            if not samples:
                raise ConfigError(f"{self.dataset.root} has no train split, and int8 is calibrated on training frames; add one")
            ids, paths = [sample.id for sample in samples], [sample.image for sample in samples]
            others = [sample.image for split in ("val", "test") for sample in self.dataset.splits.get(split, ())]
        elif self.images:
            ids, paths = [path.name for path in self.images], list(self.images)
        else:
            raise ConfigError("int8 is calibrated on training frames; add --data DIR (labelled or not) or --data edgeseg.toml")
        dataset = self.dataset

        def item(index: int) -> Item:
            if dataset is None:
                return ids[index], read_frame(paths[index]), None
            return _labelled(dataset.splits["train"][index], len(dataset.classes))

        def read(index: int) -> tuple[Frame, Sequence[int]]:
            _, frame, label = item(index)
            return frame, () if label is None else classes_of(label)

        choice = choose(
            ids, read, (read_frame(path) for path in others), count=count, way=self.way, seed=self.seed,
            classes=() if dataset is None else dataset.classes, num_others=len(others), progress=progress,
        )
        return TrainingFrames(
            calibration={**self._record([ids[i] for i in choice.calibrate]), **choice.facts},
            frames=tuple(self._calibrating(paths, choice.calibrate, contract)),
            held_back=self._record([ids[i] for i in choice.held_back]), items=tuple(item(i) for i in choice.held_back), notes=choice.notes,
        )

    def _calibrating(self, paths: Sequence[Path], chosen: Sequence[int], contract: Contract) -> Iterator[Frame]:
        for i in chosen:
            yield from at_model_size(read_frame(paths[i]), contract)

    def _record(self, ids: Sequence[str]) -> dict[str, Any]:
        return {
            "dataset": self.name, "dataset_sha256": self.dataset.sha256 if self.dataset else "", "split": "train" if self.dataset else "",
            "num_frames": len(ids), "ids_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        }


@dataclass(frozen=True, kw_only=True)
class TrainingFrames:
    """Training frames for int8, and the records of which they are."""

    calibration: dict[str, Any]
    frames: tuple[Frame, ...]
    """At model size."""
    held_back: dict[str, Any]
    items: tuple[Item, ...]
    """At frame size; without labels where the data has none."""
    notes: tuple[str, ...] = ()
    """What the user ought to hear about the choice."""


def open_pictures(data: Path | None, classes: tuple[str, ...]) -> Pictures:
    """Open what --data names: an edgeseg.toml, a labelled data set in a layout known here, a folder of images, or nothing.

    Raises:
        ConfigError: the data has other classes than `classes`; see `load_labelled`.
        InputMissingError: no such folder, or no images in it.
    """
    if data is None:
        return Pictures(name="drawn")
    require_path(data, what="data")
    section, seed, way = DataSection(), 0, QuantizeSection().calibration
    if data.is_file():
        config = load_config(data)
        section, seed, way = config.data, config.train.seed, config.quantize.calibration
    elif not any(layout.claims(data) for layout in DATASETS.values()):
        images = tuple(photographs(data)) if data.is_dir() else ()
        if not images:
            raise InputMissingError(f"{data} holds no images; give a labelled data set, a folder of images, or an edgeseg.toml")
        return Pictures(name=data.resolve().name, images=images)
    else:
        section = replace(section, dir=str(data))
    dataset = load_labelled(section, classes, seed=seed)
    return Pictures(name=dataset.name, dataset=dataset, section=section, seed=seed, way=way)


def accuracy(confusion: Confusion, pictures: Pictures) -> SegmentationScore:
    """Accuracy on the labelled split.

    Raises:
        DataError: it holds no labelled pixel.
    """
    try:
        return score(confusion)
    except ValueError as error:
        raise DataError(f"{pictures.name}: no pixel of {pictures.eval_split} is labelled (all 255 = ignore), so nothing can be measured") \
            from error


def at_model_size(frame_HWC: Frame, contract: Contract) -> list[Frame]:
    """Model inputs of one frame."""
    return to_model(frame_HWC, contract.place((frame_HWC.shape[0], frame_HWC.shape[1])))


@functools.lru_cache(maxsize=2 * _DRAWN)
def _draw(split: str, index: int) -> Frame:
    return draw_field(seed=0, split=split, index=index)[0]


def _labelled(sample: Sample, num_classes: int) -> Item:
    frame, label = read_sample(sample, num_classes=num_classes)
    return sample.id, frame, label


def spread(total: int, wanted: int) -> Sequence[int]:
    """`wanted` indices (all, where there are fewer), evenly over `total`."""
    count = min(wanted, total)
    return sorted({round(i * (total - 1) / max(count - 1, 1)) for i in range(count)})
