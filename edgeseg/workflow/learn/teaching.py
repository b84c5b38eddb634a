"""Where a teacher is found, and what of it a training depends on: `[train] teacher`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.config import DISTILLING, TrainSection
from edgeseg.core.errors import ConfigError, InputMissingError
from edgeseg.core.files import read_json, sha256_json

if TYPE_CHECKING:
    from torch import nn

_META: Final = "checkpoint.json"
_OF_RUN: Final = "checkpoints/trained"


def learning_values(section: TrainSection, teacher_sha256: str | None = None) -> dict[str, Any]:
    """Values of `[train]` that the weights depend on. A teacher (another than that of `[train]`, too) is known by its hash.

    Without one no key of it is there.
    """
    values = asdict(section)
    if not section.teacher and teacher_sha256 is None:
        return {key: value for key, value in values.items() if key not in DISTILLING}
    return {**values, "teacher": teacher_sha256 or Path(section.teacher).name}


def teacher_sha256(section: TrainSection, *, run_folder: Path | None = None) -> str | None:
    """Identity of the checkpoint in `[train] teacher`; `None` where there is no teacher. Needs no torch.

    Raises:
        InputMissingError: no checkpoint there.
        ConfigError: it is `run_folder`'s own, which the training is about to replace.
    """
    if not section.teacher:
        return None
    folder = _checkpoint(section)
    if run_folder is not None and folder.resolve().is_relative_to(run_folder.resolve()):
        raise ConfigError(f"[train] teacher = {section.teacher} is this run's own checkpoint; give the student another name: name = ...")
    return sha256_json(read_json(folder / _META))


def load_teacher(section: TrainSection, classes: tuple[str, ...]) -> nn.Module | None:
    """Give the network of `[train] teacher`; `None` where there is no teacher.

    Raises:
        InputMissingError: no checkpoint there.
        TrainingError: it is damaged.
        ConfigError: it tells other classes apart than `classes`, or finds objects.
    """
    if not section.teacher:
        return None
    from edgeseg.training.checkpoint import load_checkpoint, open_checkpoint

    folder = _checkpoint(section)
    meta = open_checkpoint(folder).meta
    if meta.model.task != "semantic":
        raise ConfigError(f"[train] teacher = {section.teacher} is a {meta.model.title}, which finds objects; "
                          "choose a network that gives a class a pixel")
    if meta.classes != classes:
        raise ConfigError(f"[train] teacher = {section.teacher} knows the classes {', '.join(meta.classes)}, the data "
                          f"{', '.join(classes)}; choose a teacher that was trained on the same classes, in the same order")
    return load_checkpoint(folder)[0]


def _checkpoint(section: TrainSection) -> Path:
    """The checkpoint itself, or that of a run, as it was before any pruning."""
    given = Path(section.teacher)
    for folder in (given, given / _OF_RUN):
        if (folder / _META).is_file():
            return folder
    raise InputMissingError(f"[train] teacher = {section.teacher} is neither a run with a trained network nor a checkpoint; "
                            "train it first, or set teacher = \"\"")
