"""Labelled data for a model that exists already: its classes and those of the data have to be the same ones."""

from __future__ import annotations

from dataclasses import replace

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError
from edgeseg.data.choice import UnknownClassError
from edgeseg.data.dataset import Dataset, load_dataset, placeholders


def load_labelled(section: DataSection, classes: tuple[str, ...], *, seed: int) -> Dataset:
    """Load the data set of `section` with labels in the index order of a model's `classes` (empty = whatever the data has).

    Data that name their classes are matched by name, whatever order they have them in; those the model does not know become background
    or are ignored, as with `[data] classes`. Data that do not name them are taken in the model's order. Where `[data] classes` is set, it
    must be what the model has. A model trained on data without names has placeholders (class_0, class_1 ...): it fits data without names
    only, since nothing says which name is which index.

    Raises:
        ConfigError: the classes are others; names both.
    """
    if not classes:
        return load_dataset(section, seed=seed, need=())
    if section.classes or section.palette:  # the palette has the order of `[data] classes`, else that of the data
        dataset = load_dataset(section, seed=seed, need=())
        if section.classes or dataset.classes != placeholders(len(dataset.classes)):
            return _same(dataset, classes, "[data] classes: " if section.classes else "")
    try:
        return _same(load_dataset(replace(section, classes=classes), seed=seed, need=()), classes, "")
    except UnknownClassError as error:
        raise _others(error.known, classes, "") from error


def _same(dataset: Dataset, classes: tuple[str, ...], where: str) -> Dataset:
    if dataset.classes != classes:
        raise _others(dataset.classes, classes, where)
    return dataset


def _others(found: tuple[str, ...], classes: tuple[str, ...], where: str) -> ConfigError:
    if classes == placeholders(len(classes)):
        do = "the model was made without names, give data without names, or make it again with [data] classes"
    elif where and set(found) == set(classes):
        do = "give them in the model's order"
    else:
        do = "give data with the model's classes, by the same names"
    return ConfigError(f"{where}the data has the classes {_shown(found)}, the model {_shown(classes)}; {do}")


def _shown(names: tuple[str, ...]) -> str:
    more = f", ... ({len(names)})" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
