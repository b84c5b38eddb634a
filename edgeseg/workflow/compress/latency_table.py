"""What each layer of a network costs on one runtime: measured on a small grid of channel counts, kept for every network to come.

A layer's milliseconds are the difference between two bundles of one layer (`edgeseg.pruning.probe`), exported and, for int8, quantized as
any bundle is, and measured in turns in one process (`targets.measure.bench.sweep`). Between the points of the grid the cost is
interpolated in both channel counts, and counts between two multiples of the kernels' step cost as much as the next multiple: kernels
compute whole vectors. Measurements are kept in the user's cache folder, one file for each machine, runtime, version and setting.
"""

from __future__ import annotations

import bisect
import math
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle, BundleInfo, seal_bundle
from edgeseg.core.files import read_json, sha256_json, write_json
from edgeseg.core.manifest import Contract
from edgeseg.core.vendors import versions
from edgeseg.workflow.bundle.bundling import EXPORT_TOOLS, QUANTIZE_TOOLS, own_answer
from targets.boards import Plan
from targets.measure.bench import sweep

if TYPE_CHECKING:
    from edgeseg.models import Network
    from edgeseg.pruning import LayerShape

_TOO_SMALL: Final = 5e-4
"""Layers with a smaller share of the MACs cost nothing here: their time is that of a call, which no cut saves."""
_APART: Final = 4
"""Points of the grid lie this factor apart; between them the cost is close to a product of straight lines."""
_BATCH: Final = 24
"""Points measured before they are written down."""
_NOISE_FRAMES: Final = 2
"""Frames an int8 probe is quantized with: ranges do not matter, speed does."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Axes:
    """Channel counts at which a layer is measured, ascending, in and out."""

    ins: tuple[int, ...]
    outs: tuple[int, ...]
    step: int
    """Counts between two multiples of this cost as much as the larger."""


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of the layers of one network, for any channel counts up to its own; a `LayerCost`."""

    axes: Mapping[str, Axes]
    ms: Mapping[str, float]
    """By `point_name`."""

    def __call__(self, name: str, shape: LayerShape) -> float:
        """Milliseconds of the layer `name` with the channels of `shape`; 0 where cutting cannot change it."""
        axes = self.axes.get(name)
        if axes is None:
            return 0.0
        rows, columns = _between(axes.ins, shape.in_channels, axes.step), _between(axes.outs, shape.out_channels, axes.step)
        if shape.depthwise:
            return math.fsum(weight * self.ms[point_name(shape.with_channels(count, count))] for count, weight in columns)
        return math.fsum(
            a * b * self.ms[point_name(shape.with_channels(row, column))] for row, a in rows for column, b in columns
        )


def _between(points: tuple[int, ...], count: int, step: int) -> tuple[tuple[int, float], ...]:
    """The points around a count with their weights."""
    if count in points:
        return ((count, 1.0),)
    count = min(points[-1], max(points[0], -(-count // step) * step))
    above = bisect.bisect_left(points, count)
    if points[above] == count:
        return ((count, 1.0),)
    low, high = points[above - 1], points[above]
    share = (count - low) / (high - low)
    return ((low, 1 - share), (high, share))


def point_name(shape: LayerShape) -> str:
    """What a layer of this shape is called in the file; a layer that keeps the size is called as its way back is."""
    few, many = shape.in_channels, shape.out_channels
    if shape.kind == "conv" and shape.in_hw == shape.out_hw and few > many:
        few, many = many, few
    groups = "depthwise " if shape.depthwise else f"groups {shape.groups} " if shape.groups > 1 else ""
    dilated = f" dilation {shape.dilation[0]}x{shape.dilation[1]}" if shape.dilation != (1, 1) else ""
    stride = f" stride {shape.stride[0]}x{shape.stride[1]}" if shape.stride != (1, 1) else ""
    return (f"{shape.kind} {groups}{shape.kernel[0]}x{shape.kernel[1]}{stride}{dilated} {few}>{many} "
            f"{shape.in_hw[0]}x{shape.in_hw[1]}>{shape.out_hw[0]}x{shape.out_hw[1]}")


def axes_of(shapes: Mapping[str, LayerShape], cuttable: Mapping[str, tuple[bool, bool]], step: int) -> dict[str, Axes]:
    """Where each layer is measured. `cuttable` = by layer, whether cutting changes its channels in and out."""
    total = sum(shape.macs for shape in shapes.values())
    found = {}
    for name, shape in shapes.items():
        ins, outs = cuttable.get(name, (False, False))
        if not (ins or outs) or shape.macs < _TOO_SMALL * total or shape.kind == "linear":
            continue
        least = step if shape.groups == 1 or shape.depthwise else math.lcm(step, shape.groups)
        found[name] = Axes(
            _axis(shape.in_channels, least) if ins else (shape.in_channels,),
            _axis(shape.out_channels, least) if outs else (shape.out_channels,), least,
        )
    return found


def _axis(most: int, step: int) -> tuple[int, ...]:
    """The step, then `_APART` times as many, and so on; the next power of the row where it is near the layer's own count."""
    points = [min(step, most)]
    while points[-1] * 2 < most:
        points.append(points[-1] * _APART)
    if points[-1] < most:
        points[-1 if len(points) > 1 else len(points):] = [-(-most // step) * step]
    return tuple(points)


def measure_table(
    shapes: Mapping[str, LayerShape], cuttable: Mapping[str, tuple[bool, bool]], *, step: int, format: str, precision: str, how: Plan,
    place: Mapping[str, Any], cache: Path, progress: Progress,
) -> LatencyTable:
    """Measure what the cache does not hold yet, and give the table. `place` = all that makes a measurement another one."""
    axes = axes_of(shapes, cuttable, step)
    wanted: dict[str, LayerShape] = {}
    for name, axis in axes.items():
        shape = shapes[name]
        pairs = [(n, n) for n in axis.outs] if shape.depthwise else [(a, b) for a in axis.ins for b in axis.outs]
        for few, many in pairs:
            point = shape.with_channels(few, many)
            wanted.setdefault(point_name(point), point)
    made_by = EXPORT_TOOLS[format] if precision == "fp32" else (*EXPORT_TOOLS[format], *QUANTIZE_TOOLS[format])
    key = {"version": 1, "format": format, "precision": precision, "made_by": versions(*made_by), **place}
    path = cache / "layers" / f"{sha256_json(key)[:16]}.json"
    known = _read(path, key)
    missing = [name for name in wanted if name not in known]
    for start in range(0, len(missing), _BATCH):
        names = missing[start : start + _BATCH]
        progress("measuring layers", start, len(missing))
        found = _measure([wanted[name] for name in names], format, precision, how)
        known = {**_read(path, key), **dict(zip(names, found, strict=True))}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"place": key, "ms": known})
    return LatencyTable(axes, {name: known[name] for name in wanted})


def _read(path: Path, key: Mapping[str, Any]) -> dict[str, float]:
    """What is known; nothing where the file is not there, not whole, or of another place."""
    try:
        raw = read_json(path)
        return {str(name): float(ms) for name, ms in raw["ms"].items()} if raw["place"] == key else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


@dataclass
class _Bundles:
    """One-layer bundles in a work folder; equal ones are made once."""

    folder: Path
    format: str
    precision: str
    made: list[Bundle] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    def add(self, net: Network, hw: tuple[int, int]) -> int:
        """Give the number of the bundle of `net` for frames of `hw`."""
        name = f"{hw} {net}"
        if name not in self.known:
            self.known[name] = len(self.made)
            self.made.append(self._make(net, Contract(height=hw[0], width=hw[1]), len(self.made)))
        return self.known[name]

    def _make(self, net: Network, contract: Contract, number: int) -> Bundle:
        from exporters import EXPORTERS

        info = BundleInfo(name=f"layer-{number}", contract=contract, classes=("a", "b"), palette=((0, 0, 0), (255, 255, 255)),
                          reference=None, parents=(), config_sha256="")
        work = self.folder / f"{number}-model"
        work.mkdir()
        bundle = seal_bundle(self.folder / str(number), EXPORTERS[self.format](net.eval(), contract, work), info, golden_frames=[],
                             answer=own_answer)
        if self.precision == "fp32":
            return bundle
        from quantization import QUANTIZERS

        rng = np.random.Generator(np.random.Philox(number))
        frames = [rng.integers(0, 256, (contract.height, contract.width, 3), dtype=np.uint8) for _ in range(_NOISE_FRAMES)]
        work = self.folder / f"{number}-int8"
        work.mkdir()
        model = QUANTIZERS[self.format](bundle, frames, work)
        return seal_bundle(self.folder / f"{number}q", model, info, golden_frames=[], answer=own_answer)


def _measure(points: Sequence[LayerShape], format: str, precision: str, how: Plan) -> list[float]:
    from edgeseg.pruning.probe import probes

    with tempfile.TemporaryDirectory(prefix="edgeseg-layers-") as folder:
        bundles = _Bundles(Path(folder), format, precision)
        plan = []
        for shape in points:
            short, long, more = probes(shape)
            plan.append((bundles.add(short, shape.in_hw), bundles.add(long, shape.in_hw), more))
        ms = sweep(bundles.made, how)
    return [max(0.0, ms[long] - ms[short]) / more for short, long, more in plan]


def cuttable_layers(touches: Collection[tuple[str, bool, bool]]) -> dict[str, tuple[bool, bool]]:
    """By layer, whether anything changes its channels in and out."""
    found: dict[str, tuple[bool, bool]] = {}
    for layer, ins, outs in touches:
        before = found.get(layer, (False, False))
        found[layer] = (before[0] or ins, before[1] or outs)
    return found
