"""What a report is made of: plain, frozen facts. Whoever fills them in ran the chain; whoever shows them runs nothing.

Fractions are 0..1 (never percent), `None` is "not measured" or "not evaluated", units are in the names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from edgeseg.core.images import ClassMap, Frame
from edgeseg.core.manifest import LEAST_INT8_SHARE
from edgeseg.report.circumstances import Circumstances
from edgeseg.report.ladder import LadderFacts

ACCURACY_GOALS: Final = ("golden", "agreement", "miou", "miou_drop", "ap", "ap50", "ap_drop", "class_drop")
"""Goals a bundle must meet before its speed is looked at; the others (p90_ms, fps, size_mb) bind the recommended bundle only."""

SPEED_PARTS: Final = ("decode_ms", "resize_ms", "inference_ms", "resize_back_ms")
"""The parts a frame's time is split into, in the order they happen."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A measured ratio with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class FloatLayer:
    """A layer that a runtime does not execute in int8."""

    name: str
    kind: str
    precision: str
    """In what it is executed: `f32`, `bf16`, ..."""
    share: float
    """Of the network's multiply-accumulates."""
    reason: str


def main_name(task: str) -> str:
    """Give what accuracy is measured in: `mIoU`, or `AP` for instances."""
    return "AP" if task == "instance" else "mIoU"


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One bundle at one place of measurement."""

    target: str
    bundle: str
    """Name of the bundle in its manifest, and of its folder in `bundles/`; rows of one bundle differ in their `arithmetic`."""
    bundle_sha256: str
    format: str
    precision: str
    runtime: str
    runtime_version: str
    device: str
    """How the place was reached: `local`, `emulated`, `ssh://user@host`."""
    measured_on: str
    """The machine in words, for example its CPU model."""
    is_target_machine: bool
    """False = the speed was measured on a machine that is not the target, and is stamped so wherever it is shown."""
    quick: bool
    threads: int
    size_bytes: int
    settings: Mapping[str, str] = field(default_factory=dict)
    """Every runtime setting that was pinned."""

    miou: float | None = None
    miou_float: float | None = None
    """mIoU of the float checkpoint on the same frames."""
    iou: tuple[float | None, ...] = ()
    """IoU per class; `None` = the class does not occur in the split."""
    worst_class: str | None = None
    """The class that lost most IoU against the float checkpoint."""
    worst_class_drop: float | None = None
    agreement: float | None = None
    """Share of pixels that equal torch on the same frames."""
    pixel_accuracy: float | None = None
    mean_dice: float | None = None
    """Mean over the classes that occur, as for `miou`; so is `mean_boundary_f1`."""
    dice: tuple[float | None, ...] = ()
    mean_boundary_f1: float | None = None
    """F1 of outlines, with a tolerance of 0.75 % of the frame's diagonal."""
    boundary_f1: tuple[float | None, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    """Pixels, rows = label, columns = answer, at frame size."""
    task: str = "semantic"
    """`semantic`, or `instance`: accuracy is average precision, the agreement counts objects, and the worst class lost AP."""
    ap: float | None = None
    """Mask AP (COCO); so are the next three."""
    ap50: float | None = None
    ap_float: float | None = None
    class_ap: tuple[float | None, ...] = ()
    no_miou: str = ""
    """Why there is no mIoU."""

    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    fps: float | None = None
    peak_rss_bytes: int | None = None
    load_ms: float | None = None
    decode_ms: float | None = None
    resize_ms: float | None = None
    inference_ms: float | None = None
    resize_back_ms: float | None = None
    end_to_end_ms: float | None = None
    """Medians of the parts and of the whole, from the file's bytes to the class map at frame size."""
    speedup_vs_fp32: Ratio | None = None
    """Time of the fp32 bundle in the same runtime and place divided by this one's: above 1 = this one is faster."""
    speedup_vs_own_float: Ratio | None = None
    """The same against the fp32 bundle in the arithmetic that the runtime would choose by itself; `None` where that is f32 anyway."""
    arithmetic: str = "f32"
    """What float parts are computed in: `bf16` or `f16` where the runtime was allowed its own choice, which is then a row of its own."""
    int8_share: float | None = None
    """Share of the network's multiply-accumulates that the runtime was seen to execute in int8; `None` = not known, or a float bundle."""
    int8_source: str = ""
    """Where that was read, or why it is not known."""
    not_int8: tuple[FloatLayer, ...] = ()
    """The layers that make up the rest."""
    circumstances: Circumstances | None = None
    """What went on while it was measured; `None` = not measured, or by an edgeseg that did not record it."""

    failed_goals: tuple[str, ...] = ()
    """Names of the goals this row misses (keys of `[goals]`, and `golden`)."""
    undecided_goals: tuple[str, ...] = ()
    """Names of those that are neither reached nor missed: the frames are too few to say."""
    drop_interval: tuple[float, float] | None = None
    """95 % interval of the drop of mIoU; `None` = not known, as for AP."""
    worst_class_interval: tuple[float, float] | None = None
    """Likewise of `worst_class_drop`."""
    class_drop_intervals: tuple[tuple[float, float] | None, ...] = ()
    """Likewise of each class's drop; `None` = it does not occur, or in one frame only."""
    recommended: bool = False
    reason: str = ""
    """Why it is recommended, or why not; one sentence, filled in by `recommend.mark`."""

    @property
    def verified(self) -> bool:
        """Whether its answers were compared with torch."""
        return self.agreement is not None

    @property
    def accurate(self) -> bool:
        """Whether its answers were compared with torch and meet every accuracy goal."""
        return self.verified and not {*self.failed_goals, *self.undecided_goals} & set(ACCURACY_GOALS)

    @property
    def undecided(self) -> bool:
        """Whether more images could make it `accurate`: it misses no accuracy goal, and at least one is not decided."""
        return self.verified and not self.accurate and not set(self.failed_goals) & set(ACCURACY_GOALS)

    @property
    def passed(self) -> bool:
        """Whether it was verified and reaches every goal."""
        return self.verified and not self.failed_goals and not self.undecided_goals

    @property
    def miou_drop(self) -> float | None:
        """What was lost of the float checkpoint's mIoU; negative = gained."""
        return None if self.miou is None or self.miou_float is None else self.miou_float - self.miou

    @property
    def ap_drop(self) -> float | None:
        """What was lost of the float checkpoint's AP; negative = gained."""
        return None if self.ap is None or self.ap_float is None else self.ap_float - self.ap

    @property
    def main(self) -> float | None:
        """The number that says how accurate it is: `main_name`."""
        return self.ap if self.task == "instance" else self.miou

    @property
    def main_name(self) -> str:
        """What `main` is."""
        return main_name(self.task)

    @property
    def main_drop(self) -> float | None:
        """What was lost of the float checkpoint's `main`; negative = gained."""
        return self.ap_drop if self.task == "instance" else self.miou_drop

    @property
    def main_of_classes(self) -> tuple[float | None, ...]:
        """IoU or AP of each class."""
        return self.class_ap if self.task == "instance" else self.iou

    @property
    def name(self) -> str:
        """What tells it from the other rows of its target: the bundle, and the arithmetic where it is not f32."""
        return self.bundle if self.arithmetic == "f32" else f"{self.bundle}-{self.arithmetic}"

    @property
    def label(self) -> str:
        """Short name for tables: format and precision, and the arithmetic where it is not f32."""
        return f"{self.format} {self.precision}" + ("" if self.arithmetic == "f32" else f" in {self.arithmetic}")

    @property
    def reduced(self) -> bool:
        """Whether it computes or stores with fewer bits than fp32."""
        return self.precision != "fp32" or self.arithmetic != "f32"

    @property
    def int8_in_name_only(self) -> bool:
        """Whether it is called int8 and less than `LEAST_INT8_SHARE` of it is executed so."""
        return self.precision == "int8" and self.int8_share is not None and self.int8_share < LEAST_INT8_SHARE

    def to_json(self) -> dict[str, Any]:
        """Give the row as JSON values in a stable order; a number that is not finite becomes null (not measured)."""
        first = ("target", "format", "precision", "runtime", "device", "measured_on", "miou", "miou_float", "worst_class_drop", "agreement",
                 "p50_ms", "p90_ms", "p99_ms", "fps", "size_bytes", "peak_rss_bytes", "recommended", "passed")
        values = {**asdict(self), "passed": self.passed, "miou_drop": self.miou_drop, "ap_drop": self.ap_drop}
        order = [*first, *(key for key in values if key not in first)]
        return {key: _finite(values[key]) for key in order}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ResultRow:
        """Read back what `to_json` gave (derived values are computed anew)."""
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in raw.items() if key in known}
        values |= {key: tuple(values.get(key, ())) for key in ("iou", "dice", "boundary_f1", "class_ap")}
        values["confusion"] = tuple(tuple(row) for row in values.get("confusion", ()))
        values["undecided_goals"] = tuple(values.get("undecided_goals", ()))
        failed = values.get("failed_goals", ())  # which held the undecided ones too, before they stood beside them
        values["failed_goals"] = tuple(goal for goal in failed if goal not in values["undecided_goals"])
        for key in ("drop_interval", "worst_class_interval"):
            values[key] = None if values.get(key) is None else tuple(values[key])
        values["class_drop_intervals"] = tuple(None if pair is None else tuple(pair) for pair in values.get("class_drop_intervals", ()))
        for key in ("speedup_vs_fp32", "speedup_vs_own_float"):
            if values.get(key) is not None:
                values[key] = Ratio(**values[key])
        values["not_int8"] = tuple(FloatLayer(**layer) for layer in values.get("not_int8", ()))
        if values.get("circumstances") is not None:
            values["circumstances"] = Circumstances.from_json(values["circumstances"])
        return cls(**values)


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What was learned from."""

    name: str
    root: str
    """The folder's name, not its full path: a report is passed on."""
    sha256: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    counts: Mapping[str, int]
    """Frames per split, in the order train, val, test."""
    pixel_shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Per split, the share of labelled pixels of each class."""
    split_rule: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One epoch; `score` only where it was validated."""

    epoch: int
    loss: float
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """How it was learned."""

    network: str
    params: int
    macs: int | None
    size_hw: tuple[int, int]
    epochs: int
    minutes: float
    best_val_score: float | None
    metric: str = "mIoU"
    """What the score is."""
    curve: tuple[CurvePoint, ...]
    device: str
    precision: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class PruningFacts:
    """What the cut changed; `verdict` says in words whether it paid off on the target."""

    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    latency_before_ms: float | None
    latency_after_ms: float | None
    miou_before: float | None
    miou_after: float | None
    verdict: str
    latency_where: str = ""
    """Runtime and machine of the two latencies."""
    method: str = ""
    """How channels were chosen, and how far the cut was to go."""
    layers: tuple[tuple[str, int, int], ...] = ()
    """Layers that were cut: name, output channels before and after."""


@dataclass(frozen=True, kw_only=True)
class FloatReference:
    """What the float checkpoint reached in torch: the number every bundle is compared with."""

    split: str
    num_frames: int
    miou: float | None
    """`None` with task `instance`, as are all others up to `confusion`."""
    iou: tuple[float | None, ...]
    pixel_accuracy: float | None
    mean_dice: float | None = None
    dice: tuple[float | None, ...] = ()
    mean_boundary_f1: float | None = None
    boundary_f1: tuple[float | None, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    """Pixels, rows = label, columns = answer; empty = not kept."""
    task: str = "semantic"
    ap: float | None = None
    ap50: float | None = None
    class_ap: tuple[float | None, ...] = ()

    @property
    def main(self) -> float | None:
        """See `ResultRow.main`."""
        return self.ap if self.task == "instance" else self.miou

    @property
    def main_of_classes(self) -> tuple[float | None, ...]:
        """IoU or AP of each class."""
        return self.class_ap if self.task == "instance" else self.iou


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One frame with its answers. All arrays have the same height and width; any size, the page makes it small."""

    id: str
    frame: Frame
    """uint8 [H, W, 3] RGB."""
    label: ClassMap
    """uint8 [H, W], 255 = ignore."""
    float_map: ClassMap
    """Answer of the float checkpoint."""
    bundle_maps: Mapping[str, ClassMap]
    """Answers of bundles by name, in the order to show them (the int8 ones as a rule)."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectPicture:
    """One frame with the objects labelled and found drawn over it: frames of one size, uint8 [H, W, 3] RGB."""

    id: str
    label: Frame
    float_answer: Frame
    bundle_answers: Mapping[str, Frame]
    """By bundle, in the order to show them."""
    counts: Mapping[str, int]
    """How many objects are drawn: `label`, `float`, and by bundle."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class GoalResult:
    """One goal of `[goals]`, as it turned out where it turned out worst."""

    goal: str
    """Key in `[goals]`."""
    limit: float
    got: float | None
    """`None` = could not be evaluated, which does not pass."""
    passed: bool
    where: str
    """The bundle or target `got` comes from."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval it was judged by, by its bad side; `None` = judged as measured."""
    undecided: bool = False
    """Not passed and not missed: the interval holds the limit."""
    more_frames: int | None = None
    """About how many more frames would decide it."""
    about: str = ""
    """In words: the class it is about, what is not decided, or why there is no interval."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportData:
    """All a report shows."""

    run_name: str
    created_utc: str
    """ISO 8601, UTC."""
    edgeseg_version: str
    machine: Mapping[str, str]
    """The machine everything was run on, in words: what it is called -> what it is."""
    dataset: DatasetFacts
    training: TrainingFacts
    pruning: PruningFacts | None
    float_reference: FloatReference
    rows: tuple[ResultRow, ...]
    """As `recommend.mark` gives them."""
    pictures: tuple[Picture, ...] | tuple[ObjectPicture, ...]
    goals: tuple[GoalResult, ...]
    not_verified: tuple[str, ...]
    """Whole sentences: what this report does not show."""
    versions: Mapping[str, str]
    config_toml: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """Facts about the run that are neither configuration nor version (calibration frames and their hash, for example)."""
    parity: tuple[Mapping[str, Any], ...] = ()
    """Parity ladders of bundles, as `edgeseg.workflow.parity.ladder` writes them; empty = not climbed."""
    ladders: tuple[LadderFacts, ...] = ()
    """How int8 of each format was made."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Which frames calibrated, as the manifests of the int8 bundles say it; empty = none did."""

    @property
    def passed(self) -> bool:
        """Whether every goal was reached (vacuously so with no goals)."""
        return all(goal.passed for goal in self.goals)

    @property
    def undecided(self) -> bool:
        """Whether no goal was missed and at least one is not decided."""
        return not self.passed and all(goal.passed or goal.undecided for goal in self.goals)
