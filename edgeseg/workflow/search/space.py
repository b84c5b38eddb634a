"""What there is to try: a finite grid of points, each of which is a change of the user's own configuration."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any, Final

import tomllib

from edgeseg.core.config import Config, GoalsSection, ModelSection, PruneSection, SearchSection, parse_config, render_toml
from edgeseg.core.errors import ConfigError

_MULTIPLE: Final = 32
"""Sides of a scaled model size are multiples of this: what the coarsest maps of the networks need to fit without a rest."""
_ORDERED: Final = ("width", "scale", "macs_share")
_NAMES: Final = ("network", "precision")
_HOW_FAR: Final = ("macs_share", "latency_share", "p90_ms")
"""Keys of `[prune]` of which a point sets the first and leaves the others off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One thing to try."""

    network: str
    """NAME or NAME/ENCODER."""
    width: float
    scale: float
    """Share of `[data] size`."""
    macs_share: float
    precision: str

    @property
    def training(self) -> str:
        """Name of the training it needs; points that differ in pruning or precision alone share it."""
        return f"{self.network.replace('/', '-').replace(':', '-')}-w{self.width:g}-s{self.scale:g}"

    @property
    def folder(self) -> str:
        """Name of its run folder; points that differ in precision alone share it."""
        return self.training if self.macs_share >= 1 else f"{self.training}-m{self.macs_share:g}"


@dataclass(frozen=True, kw_only=True)
class Space:
    """The axes, each in ascending order where it has one."""

    network: tuple[str, ...]
    width: tuple[float, ...]
    scale: tuple[float, ...]
    macs_share: tuple[float, ...]
    precision: tuple[str, ...]

    def points(self) -> list[Point]:
        """Every point, in a fixed order."""
        axes = dataclasses.asdict(self)
        return [Point(**dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]

    def suggest(self, trial: Any) -> Point:  # noqa: ANN401 - optuna.Trial, or anything that suggests as it does
        """Let a trial choose: by name where there is no order, by position on an axis where there is one."""
        names = {axis: trial.suggest_categorical(axis, list(getattr(self, axis))) for axis in _NAMES}
        ordered = {axis: getattr(self, axis)[trial.suggest_int(axis, 0, len(getattr(self, axis)) - 1)] for axis in _ORDERED}
        return Point(**names, **ordered)

    def parameters(self, point: Point) -> dict[str, Any]:
        """What a trial has to suggest to become `point`."""
        names = {axis: getattr(point, axis) for axis in _NAMES}
        return names | {axis: getattr(self, axis).index(getattr(point, axis)) for axis in _ORDERED}

    def point_of(self, parameters: dict[str, Any]) -> Point:
        """The inverse of `parameters`."""
        return Point(**{axis: parameters[axis] for axis in _NAMES}, **{axis: getattr(self, axis)[parameters[axis]] for axis in _ORDERED})


def space_of(config: Config) -> Space:
    """Give the space of `[search]`.

    Raises:
        ConfigError: an axis is empty or names something twice, or a network finds objects.
    """
    search: SearchSection = config.search
    network = search.networks or (_own_name(config.model),)
    width = (config.model.width,) if config.model.factory and not search.networks else search.widths
    for key, values in (("networks", network), ("widths", width), ("scales", search.scales), ("macs_shares", search.macs_shares),
                        ("precisions", search.precisions)):
        if not values:
            raise ConfigError(f"[search] {key} = []: name at least one to try")
        if len(set(values)) != len(values):
            raise ConfigError(f"[search] {key} = {list(values)}: each only once")
    for name in network:
        if model_of(config.model, name, 1.0).task == "instance":
            raise ConfigError(f"the search is for networks that give a class a pixel; {name} finds objects: take it out of "
                              "[search] networks, or set another [model] name")
    return Space(network=network, width=tuple(sorted(width)), scale=tuple(sorted(search.scales)),
                 macs_share=tuple(sorted(search.macs_shares)), precision=search.precisions)


def _own_name(model: ModelSection) -> str:
    return model.factory or (f"{model.name}/{model.encoder}" if model.encoder else model.name)


def model_of(own: ModelSection, network: str, width: float) -> ModelSection:
    """`[model]` with another network; the user's own keeps its other settings, any other has the defaults."""
    if network in (_own_name(own), own.name) and (network == own.factory or not own.factory):
        return dataclasses.replace(own, width=width)
    name, _, encoder = network.partition("/")
    return ModelSection(name=name, encoder=encoder, width=width, one_score=own.one_score)


def size_of(config: Config, scale: float) -> tuple[int, int]:
    """`[data] size` times `scale`, in multiples of 32; unchanged at 1."""
    return _scaled(config.data.size, scale)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    if scale == 1:
        return size
    height, width = (max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in size)
    return height, width


def chosen_config(config: Config, point: Point) -> Config:
    """The user's configuration at `point`, trained in full; its run has a name of its own."""
    crop = config.train.crop
    how = {f.name: getattr(config.prune, f.name) for f in dataclasses.fields(PruneSection) if f.name not in _HOW_FAR}
    return dataclasses.replace(
        config,
        name=f"{config.name}-best",
        data=dataclasses.replace(config.data, size=size_of(config, point.scale)),
        model=model_of(config.model, point.network, point.width),
        train=dataclasses.replace(config.train, crop=_scaled(crop, point.scale) if crop[0] else crop),
        prune=PruneSection(**how, macs_share=point.macs_share),
        quantize=dataclasses.replace(config.quantize, int8=point.precision == "int8"),
    )


def trial_config(config: Config, point: Point, formats: tuple[str, ...]) -> Config:
    """The configuration of a trial: `point`, trained briefly, measured on val, exported to `formats`, judged by nobody.

    Raises:
        ConfigError: no such configuration could stand in a file (a size too small for the encoder).
    """
    search, chosen = config.search, chosen_config(config, point)
    epochs = search.epochs
    changed = dataclasses.replace(
        chosen,
        name=config.name,
        data=dataclasses.replace(chosen.data, eval_split="val"),
        train=dataclasses.replace(
            chosen.train, epochs=epochs, eval_every=math.ceil(epochs / 4), warmup_epochs=min(chosen.train.warmup_epochs, epochs / 10)
        ),
        prune=dataclasses.replace(chosen.prune, epochs=search.prune_epochs),
        export=dataclasses.replace(chosen.export, formats=formats, golden_frames=1),
        quantize=dataclasses.replace(chosen.quantize, rescue="post_training", fp16=False),
        bench=dataclasses.replace(chosen.bench, quick=True),
        goals=GoalsSection(),
    )
    return parse_config(tomllib.loads(render_toml(changed, defaults=True)))  # validated as one from a file is
