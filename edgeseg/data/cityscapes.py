"""The layout `cityscapes`: leftImg8bit/<split>/<city>/ beside gtFine/<split>/<city>/.

https://github.com/mcordts/cityscapesScripts (README and helpers/labels.py): *_labelIds.png hold 34 ids, 19 of which are evaluated; here
they become train ids 0..18, all others 255. *_instanceIds.png (16 bit) hold 1000 * id + number for an object, and the bare id for a region
of objects nobody told apart (a crowd). To learn instances, begin `[data] classes` with "background": class 0 is no object.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeseg.core.config import DataSection
from edgeseg.core.errors import DataError
from edgeseg.core.images import IGNORE_INDEX, ClassMap, open_image, read_class_map
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.base import SPLITS, Problem, Sample, Scan, counted, relative
from edgeseg.data.choice import Choice, choose
from edgeseg.data.objects import ObjectMask, instance_label
from edgeseg.data.splits import complete_splits

_TABLE: Final = (
    (7, "road", (128, 64, 128)), (8, "sidewalk", (244, 35, 232)), (11, "building", (70, 70, 70)), (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)), (17, "pole", (153, 153, 153)), (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)), (21, "vegetation", (107, 142, 35)), (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)), (24, "person", (220, 20, 60)), (25, "rider", (255, 0, 0)), (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)), (28, "bus", (0, 60, 100)), (31, "train", (0, 80, 100)), (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
"""Label id, name and colour of train ids 0..18."""
_FIRST_THING: Final = 24
_LAST_ID: Final = 33
_LABEL: Final = "_gtFine_labelIds.png"
_INSTANCES: Final = "_gtFine_instanceIds.png"
_IMAGE: Final = "_leftImg8bit"


@dataclass(frozen=True)
class CityscapesLabel:
    """Reads label ids and instance ids of one frame."""

    choice: Choice
    instance_ids: Path | None

    def _index_of(self) -> dict[int, int]:
        """Label id -> class index; ids that are not evaluated are absent."""
        return {row[0]: self.choice.index_of[train_id] for train_id, row in enumerate(_TABLE)}

    def __call__(self, path: Path) -> ClassMap:
        """Class map uint8 [H, W].

        Raises:
            DataError: unreadable, or an id that Cityscapes does not have.
        """
        ids = read_class_map(path)
        strange = np.unique(ids[(ids > _LAST_ID) & (ids != IGNORE_INDEX)])
        if strange.size:
            raise DataError(f"{path.name}: label id {int(strange[0])}; Cityscapes has the ids 0..{_LAST_ID}, and 255 for the licence plate")
        table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        for label_id, index in self._index_of().items():
            table[label_id] = index
        return table[ids]

    def instances(self) -> InstanceLabel:
        """Give the objects by rising id; a region of objects nobody told apart is a crowd.

        Raises:
            DataError: unreadable, or an id that Cityscapes does not have.
        """
        if self.instance_ids is None:
            raise DataError("no instance ids")
        ids = np.asarray(open_image(self.instance_ids, name=self.instance_ids.name)).astype(np.int64)
        index_of = self._index_of()
        objects = []
        for value in np.unique(ids).tolist():
            label_id, crowd = (value, True) if value < 1000 else (value // 1000, False)
            if label_id > _LAST_ID and value != IGNORE_INDEX:
                raise DataError(f"{self.instance_ids.name}: instance id {value}; Cityscapes has 1000 * id + number, ids up to {_LAST_ID}")
            index = index_of.get(label_id, IGNORE_INDEX)
            if label_id >= _FIRST_THING and index != IGNORE_INDEX:
                objects.append(ObjectMask(ids == value, index, crowd))
        height, width = ids.shape
        return instance_label((height, width), objects)


@dataclass(frozen=True)
class CityscapesLayout:
    """leftImg8bit and gtFine, as they come from cityscapes-dataset.com."""

    about: str = "Cityscapes: leftImg8bit + gtFine with labelIds (19 classes) and instanceIds"

    def claims(self, root: Path) -> bool:
        """Say whether there are folders leftImg8bit and gtFine."""
        return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()

    def scan(self, root: Path, section: DataSection, *, seed: int) -> Scan:
        """Pair images with labels; one without the other is a problem that names it.

        Raises:
            ConfigError: `[data] classes` names an unknown class.
        """
        problems: list[Problem] = []
        choice = choose(section.classes, tuple(row[1] for row in _TABLE))
        splits, rules, notes = {}, [], []
        for split in SPLITS:
            if split == "test" and not (root / "gtFine" / split).is_dir():
                notes += ["test has no labels and is left out"] if (root / "leftImg8bit" / split).is_dir() else []
                continue
            samples = _pair(root, split, choice, problems)
            if split == "test" and samples and not _any_label(samples[:3]):
                notes.append(f"labels of test hold nothing that is evaluated ({counted(len(samples), 'frame')}): test is left out")
            elif samples:
                splits[split] = samples
                rules.append(f"gtFine/{split}")
        splits, drawn = complete_splits(splits, section, seed=seed)
        folders = f"folders {', '.join(rules)}" if rules else ""
        notes += [choice.note] if choice.note else []
        return Scan(
            name=root.resolve().name, splits=splits, split_rule="; ".join(filter(None, (folders, drawn))),
            classes=choice.classes, palette=choice.palette(tuple(row[2] for row in _TABLE)), names_applied=True, fixed_classes=True,
            problems=tuple(problems), notes=(*notes, "label ids are read as the 19 train ids, all others as 255"),
        )


def _pair(root: Path, split: str, choice: Choice, problems: list[Problem]) -> tuple[Sample, ...]:
    images = {_key(path, _IMAGE): path for path in sorted((root / "leftImg8bit" / split).glob(f"*/*{_IMAGE}.*"))}
    labels = {_key(path, "_gtFine_labelIds"): path for path in sorted((root / "gtFine" / split).glob(f"*/*{_LABEL}"))}
    train_ids = sorted((root / "gtFine" / split).glob("*/*_labelTrainIds.png"))
    if images and train_ids and not labels:  # one problem, not one an image
        problems.append(Problem(file=f"leftImg8bit/{split}", kind="missing-label",
                                message=f"{counted(len(images), 'image')}, and gtFine/{split}/ holds no *{_LABEL} ({train_ids[0].name} "
                                        "is there, but train ids are not read: edgeseg makes them of label ids); unpack them from "
                                        "gtFine_trainvaltest.zip"))
        return ()
    for key in sorted(images.keys() - labels.keys()):
        problems.append(Problem(file=relative(root, images[key]), kind="missing-label", message=f"no label gtFine/{split}/{key}{_LABEL}"))
    for key in sorted(labels.keys() - images.keys()):
        problems.append(Problem(file=relative(root, labels[key]), kind="missing-image",
                                message=f"no image leftImg8bit/{split}/{key}{_IMAGE}.png"))
    samples = []
    for key in sorted(images.keys() & labels.keys()):
        beside = labels[key].with_name(labels[key].name.replace(_LABEL, _INSTANCES))
        label = CityscapesLabel(choice, beside if beside.is_file() else None)
        samples.append(Sample(
            id=f"{split}/{key}", split=split, image=images[key], label=labels[key], read_label=label,
            read_instances=label.instances if beside.is_file() else None, reading=f"cityscapes classes {choice.index_of}",
            label_files=(labels[key], *((beside,) if beside.is_file() else ())),
        ))
    return tuple(samples)


def _key(path: Path, ending: str) -> str:
    return f"{path.parent.name}/{path.stem.removesuffix(ending)}"


def _any_label(samples: tuple[Sample, ...]) -> bool:
    """Whether any of the samples is labelled with something that is evaluated; what cannot be read counts as labelled."""
    for sample in samples:
        try:
            if (sample.read_label(sample.label) != IGNORE_INDEX).any():
                return True
        except (DataError, OSError):
            return True
    return False
