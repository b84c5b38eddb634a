"""`edgeseg.toml`: what the user decides and nothing else. One frozen dataclass a section; validated once, here.

A key's default, type and meaning stand in one place, its field below; `edgeseg init --all` prints them from there.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgeseg.core.encoders import IMAGENET, encoder_of, smallest_side
from edgeseg.core.errors import ConfigError, InputMissingError
from edgeseg.core.files import sha256_json
from edgeseg.core.images import RESIZE_POLICIES
from edgeseg.core.resizers import RESIZERS
from edgeseg.core.toml import parse_toml, toml_text


def opt(default: Any, doc: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()) -> Any:  # noqa: ANN401
    """Declare a key: its default, one line of help, and the range or choices it is checked against."""
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices}
    if isinstance(default, (list, dict)):
        raise TypeError("defaults are immutable; use a tuple")
    return field(default=default, metadata=metadata)


def weights(default: Mapping[str, float], doc: str, *, names: tuple[str, ...]) -> Any:  # noqa: ANN401
    """Declare a key that is a table of weights, each at least 0: its default, one line of help, and the names it knows."""
    metadata = {"doc": doc, "low": 0.0, "high": None, "choices": names}
    return field(default_factory=lambda: dict(default), metadata=metadata)


def names(doc: str) -> Any:  # noqa: ANN401
    """Declare a key that is a table of names: empty by default, and one line of help."""
    return field(default_factory=dict, metadata={"doc": doc, "low": None, "high": None, "choices": ()})


LOSS_NAMES: Final = ("ce", "dice", "bce", "focal", "iou", "tversky", "lovasz", "boundary")
"""Names of `edgeseg.training.losses.LOSSES`, which a board without torch has to know to read a config; a test compares the two."""

DISTILLER_NAMES: Final = ("cwd", "kd")
"""Names of `edgeseg.training.distill.DISTILLERS`; a test compares the two."""

DISTILLING: Final = ("teacher", "distiller", "distill_weight", "distill_temperature")
"""Keys of `[train]` that say nothing where there is no teacher."""

IMPORTANCE_NAMES: Final = ("magnitude", "bn_scale", "taylor")
"""Names of `edgeseg.pruning.IMPORTANCES`, likewise."""

PRUNE_SCOPES: Final = ("per_layer", "global")
"""Names of `edgeseg.pruning.SCOPES`, likewise."""

_MOVED: Final = {
    ("train", "ce"): "weights of losses stand in one table: loss = {ce = 1.0, dice = 0.5}",
    ("train", "dice"): "weights of losses stand in one table: loss = {ce = 1.0, dice = 0.5}",
}
"""Keys of former versions and what to write in their place."""


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """`[data]`: where the labelled images are and how frames come to model size."""

    dir: str = opt("", "folder with the labelled images, relative to this file")
    layout: str = opt("auto", "how the folder is laid out", choices=("auto", "folder", "voc", "coco", "cityscapes"))
    classes: tuple[str, ...] = opt((), "class names in index order, or a choice among those the data names; empty = as the data says")
    annotations: tuple[str, ...] = opt((), "COCO: annotation files, relative to dir; empty = the set that covers most splits")
    masks: str = opt("auto", "folder: what masks hold; binary = cut at the middle", choices=("auto", "index", "binary"))
    palette: tuple[str, ...] = opt((), "colour of each class as #rrggbb, for colour masks; empty = from dataset.json")
    ignore_colour: str = opt("", "colour that means ignore in colour masks, as #rrggbb")
    size: tuple[int, int] = opt((360, 480), "model size [height, width] in pixels", low=16, high=4096)
    resize: str = opt("stretch", "how a frame comes to model size", choices=RESIZE_POLICIES)
    resizer: str = opt("pillow", "by whose filter, in training and on every board alike; opencv = several times faster, "
                                 "needs the extra opencv wherever a bundle runs", choices=RESIZERS)
    val_share: float = opt(0.15, "share of frames for val where the folder has no splits", low=0.01, high=0.5)
    test_share: float = opt(0.15, "share of frames for test where the folder has no splits", low=0.0, high=0.5)
    eval_split: str = opt("test", "split that verify and the report use", choices=("val", "test"))
    memory_limit_mb: int = opt(2048, "decoded frames above this are memory-mapped from disk", low=1)

    @property
    def resizer_key(self) -> dict[str, str]:
        """What the key of a step says of the resizer: nothing of Pillow, so that what was done before there was a choice stays done."""
        return {} if self.resizer == "pillow" else {"resizer": self.resizer}


INSTANCE_MODELS: Final = ("mask_rcnn",)
"""Networks of `edgeseg.models.MODELS` whose task is `instance`, which a board without torch has to know; a test compares the two."""


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """`[model]`: the network."""

    name: str = opt("fast_scnn", "network (edgeseg models)")
    width: float = opt(1.0, "channel multiplier", low=0.05, high=8)
    depth: int = opt(4, "levels of a U-Net without encoder", low=1, high=6)
    encoder: str = opt("", "encoder of a network that takes one (edgeseg models); empty = the network's own")
    encoder_weights: str = opt("", "what the encoder starts from: empty = random; imagenet = an installed package; or FILE.pth, "
                                   "FILE.safetensors with torchvision's key names, relative to this file")
    factory: str = opt("", "network of your own in place of name: \"package.module:function\", called with the number of classes")
    one_score: bool = opt(False, "two classes as one score a pixel (sigmoid) in place of two (softmax)")
    max_instances: int = opt(100, "mask_rcnn: objects a frame at most", low=1, high=255)

    @property
    def task(self) -> str:
        """`semantic`: a class a pixel; `instance`: boxes, classes and masks of objects."""
        return "instance" if self.name in INSTANCE_MODELS else "semantic"

    @property
    def title(self) -> str:
        """What the network is called where there is room for one name."""
        return self.factory or (f"{self.name} on {self.encoder}" if self.encoder else self.name)

    @property
    def portable(self) -> ModelSection:
        """The same without the folder of the weights file: what is kept of a run must not depend on where it lay."""
        return dataclasses.replace(self, encoder_weights=Path(self.encoder_weights).name)


@dataclass(frozen=True, kw_only=True)
class AugmentSection:
    """`[augment]`: what a training frame may look like; labels are never interpolated."""

    scale: tuple[float, float] = opt((0.75, 1.5), "random scale range before the crop", low=0.1, high=8)
    flip: float = opt(0.5, "probability of a left-right flip", low=0, high=1)
    flip_vertical: float = opt(0.0, "probability of a top-bottom flip (cameras that look down)", low=0, high=1)
    rotate_deg: float = opt(0.0, "largest random rotation, degrees", low=0, high=180)
    brightness: float = opt(0.25, "largest relative change", low=0, high=1)
    contrast: float = opt(0.25, "largest relative change", low=0, high=1)
    saturation: float = opt(0.25, "largest relative change", low=0, high=1)
    hue: float = opt(0.02, "largest shift, as a share of the colour circle", low=0, high=0.5)
    blur: float = opt(0.1, "probability of a Gaussian blur", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class TrainSection:
    """`[train]`: how the network learns."""

    epochs: int = opt(150, "passes over the training frames", low=1)
    batch_size: int = opt(8, "frames a step", low=1)
    crop: tuple[int, int] = opt((0, 0), "crop [height, width] trained on; [0, 0] = the model size", low=0, high=4096)
    lr: float = opt(3e-3, "peak learning rate of AdamW", low=1e-8, high=10)
    weight_decay: float = opt(1e-2, "AdamW weight decay", low=0, high=1)
    schedule: str = opt("cosine", "decay after the warm-up", choices=("cosine", "poly"))
    warmup_epochs: float = opt(3.0, "linear warm-up", low=0)
    loss: Mapping[str, float] = weights({"ce": 1.0, "dice": 0.5}, "weight of each loss in the sum", names=LOSS_NAMES)
    class_weights: str = opt("sqrt_median_frequency", "class weights of ce, bce and focal",
                             choices=("none", "median_frequency", "sqrt_median_frequency"))
    label_smoothing: float = opt(0.0, "share of a pixel's target that ce spreads over all classes", low=0, high=0.5)
    ohem: float = opt(0.0, "ce only where the label has at most this probability (hard pixels); 0 = everywhere", low=0, high=1)
    ohem_keep: float = opt(0.0625, "share of a batch's pixels that ohem keeps at least, the hardest", low=0, high=1)
    focal_gamma: float = opt(2.0, "how much focal holds back pixels that are right already", low=0, high=10)
    tversky_alpha: float = opt(0.3, "what tversky charges for a false pixel", low=0, high=10)
    tversky_beta: float = opt(0.7, "what tversky charges for a missed pixel", low=0, high=10)
    ema: float = opt(0.998, "decay of the weights' exponential moving average; 0 = off", low=0, high=0.99999)
    clip_norm: float = opt(1.0, "gradient norm is clipped to this; 0 = off", low=0)
    precision: str = opt("auto", "autocast; auto = bf16 where the processor has it", choices=("auto", "fp32", "bf16", "fp16"))
    device: str = opt("auto", "auto = CUDA where there is one", choices=("auto", "cpu", "cuda"))
    compile: str = opt("auto", "torch.compile; auto = where a trial on this GPU shows that it pays", choices=("auto", "on", "off"))
    eval_every: int = opt(5, "validate every so many epochs (and after the last)", low=1)
    seed: int = opt(0, "seed of weights, order and augmentation", low=0)
    teacher: str = opt("", "run or checkpoint of a larger network to learn from beside the labels, relative to this file; empty = none")
    distiller: str = opt("kd", "what is learnt from a teacher: cwd = where in the frame it sees each class; kd = its class "
                                "probabilities, pixel by pixel", choices=DISTILLER_NAMES)
    distill_weight: float = opt(1.0, "weight of the teacher's part beside loss", low=0, high=1000)
    distill_temperature: float = opt(1.0, "softens the scores of teacher and student", low=0.1, high=100)


@dataclass(frozen=True, kw_only=True)
class PruneSection:
    """`[prune]`: structured pruning before the export."""

    macs_share: float = opt(1.0, "share of MACs to keep; 1 = do not prune to MACs", low=0.05, high=1)
    latency_share: float = opt(1.0, "share of the measured latency to keep, in place of macs_share; 1 = do not prune to latency",
                               low=0.02, high=1)
    p90_ms: float = opt(0.0, "90th-percentile latency to prune to, in place of macs_share; 0 = off", low=0)
    precision: str = opt("auto", "bundle whose latency is meant; auto = int8 where [quantize] makes it", choices=("auto", "fp32", "int8"))
    importance: str = opt("auto", "which channels go first; auto = magnitude, and taylor for a latency",
                          choices=("auto", *IMPORTANCE_NAMES))
    scope: str = opt("auto", "every layer by one share, or all layers weighed at once; auto = per_layer, and global for a latency",
                     choices=("auto", *PRUNE_SCOPES))
    round_to: int = opt(0, "channel counts are multiples of this; 0 = 8, and for a latency what the runtime's kernels like", low=0, high=64)
    steps: int = opt(1, "cuts, each a part of the way and followed by fine-tuning", low=1, high=20)
    epochs: int = opt(30, "fine-tuning in all: half of it after the last cut, the rest shared by the cuts before", low=0)
    lr: float = opt(1e-3, "peak learning rate of the fine-tuning", low=1e-8, high=10)
    teacher: bool = opt(True, "fine-tune with the unpruned network as teacher beside the labels ([train] distiller)")

    @property
    def to_latency(self) -> bool:
        """Whether a latency says how far to cut."""
        return self.latency_share < 1 or self.p90_ms > 0

    @property
    def wanted(self) -> bool:
        """Whether anything is to be cut."""
        return self.macs_share < 1 or self.to_latency


@dataclass(frozen=True, kw_only=True)
class DecisionSection:
    """`[decision]`: how class scores become classes, in the graph of every bundle."""

    rule: str = opt("argmax", "largest score, or one threshold a class chosen on the val split", choices=("argmax", "thresholds"))
    metric: str = opt("iou", "what the thresholds are chosen for; the mean over classes (dice = F1 of pixels)",
                      choices=("iou", "dice", "accuracy"))


@dataclass(frozen=True, kw_only=True)
class ExportSection:
    """`[export]`: bundles to make."""

    formats: tuple[str, ...] = opt(("onnx", "openvino", "tflite"), "formats", choices=("onnx", "openvino", "tflite", "tensorrt"))
    golden_frames: int = opt(3, "frames stored in a bundle with the answers expected", low=1, high=32)


@dataclass(frozen=True, kw_only=True)
class QuantizeSection:
    """`[quantize]`: post-training int8."""

    int8: bool = opt(True, "make an int8 bundle beside each fp32 one")
    fp16: bool = opt(False, "make an fp16 bundle beside each fp32 one (docs/proof.md)")
    calibration_frames: int = opt(128, "training frames used for calibration", low=1)
    calibration: str = opt("cover", "how they are chosen: cover = so that they show all classes and all light; spread = evenly over ids",
                           choices=("cover", "spread"))
    rescue: str = opt("mixed", "last rung where int8 misses miou_drop or class_drop on held-back training frames: post_training = "
                      "calibrators only, mixed = also a few layers in float, qat = also fine-tuning; off = no ladder",
                      choices=("off", "post_training", "mixed", "qat"))
    qat_epochs: int = opt(10, "epochs of fine-tuning for int8, where that is needed", low=1)
    qat_lr: float = opt(3e-5, "its peak learning rate", low=1e-8, high=10)


@dataclass(frozen=True, kw_only=True)
class BenchSection:
    """`[bench]`: how long to measure."""

    quick: bool = opt(False, "measure briefly; stamped 'quick' wherever it is shown")
    threads: int = opt(0, "threads of the runtime; 0 = what the target has", low=0, high=256)
    tune: bool = opt(False, "find each bundle's fastest settings first and measure with those (edgeseg tune); false = the target's own")


@dataclass(frozen=True, kw_only=True)
class SearchSection:
    """`[search]`: what `edgeseg search` tries, and how briefly it trains to compare."""

    trials: int = opt(30, "points to try, those of all workers and of earlier calls together", low=1)
    epochs: int = opt(30, "epochs of a trial's training", low=1)
    prune_epochs: int = opt(10, "epochs of fine-tuning after a trial's pruning", low=0)
    networks: tuple[str, ...] = opt((), "networks to try, as NAME or NAME/ENCODER (edgeseg models); empty = that of [model]")
    widths: tuple[float, ...] = opt((0.5, 0.75, 1.0), "channel multipliers to try", low=0.05, high=8)
    scales: tuple[float, ...] = opt((0.5, 0.75, 1.0), "model sizes to try, as shares of [data] size", low=0.05, high=4)
    macs_shares: tuple[float, ...] = opt((0.5, 0.7, 1.0), "shares of MACs that pruning keeps to try; 1 = not pruned", low=0.05, high=1)
    precisions: tuple[str, ...] = opt(("fp32", "int8"), "precisions to try", choices=("fp32", "int8"))
    stop_early: bool = opt(True, "stop a training that is below the median of those as fast, at a quarter and at half of its epochs")


@dataclass(frozen=True, kw_only=True)
class GoalsSection:
    """`[goals]`: what has to be reached; a goal left out is not checked. Fractions, not percent."""

    agreement: float | None = opt(None, "share of pixels (instances: objects) of an fp32 bundle as in torch, at least", low=0, high=1)
    miou: float | None = opt(None, "mIoU of every bundle, at least", low=0, high=1)
    miou_drop: float | None = opt(None, "drop of mIoU against the float checkpoint, at most", low=0, high=1)
    ap: float | None = opt(None, "instances: mask AP of every bundle, at least", low=0, high=1)
    ap50: float | None = opt(None, "instances: mask AP at IoU 0.5 of every bundle, at least", low=0, high=1)
    ap_drop: float | None = opt(None, "instances: drop of mask AP against the float checkpoint, at most", low=0, high=1)
    class_drop: float | None = opt(None, "drop of the worst class's IoU (instances: AP), at most", low=0, high=1)
    p90_ms: float | None = opt(None, "90th-percentile latency of the recommended bundle of each target, at most", low=0)
    fps: float | None = opt(None, "frames per second of the recommended bundle of each target, at least", low=0)
    size_mb: float | None = opt(None, "size of the recommended bundle of each target in MB (10^6 bytes), at most", low=0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All of edgeseg.toml."""

    name: str = opt("run", "name of the run: outputs go to runs/NAME")
    targets: tuple[str, ...] = opt(("host",), "boards to make bundles for (edgeseg targets)")
    devices: Mapping[str, str] = names("device (edgeseg devices list) on which a target is verified and measured, for example "
                                       "{raspberry-pi-5 = \"pi5\"}; the others: this machine")
    data: DataSection = field(default_factory=DataSection)
    model: ModelSection = field(default_factory=ModelSection)
    augment: AugmentSection = field(default_factory=AugmentSection)
    train: TrainSection = field(default_factory=TrainSection)
    prune: PruneSection = field(default_factory=PruneSection)
    decision: DecisionSection = field(default_factory=DecisionSection)
    export: ExportSection = field(default_factory=ExportSection)
    quantize: QuantizeSection = field(default_factory=QuantizeSection)
    bench: BenchSection = field(default_factory=BenchSection)
    search: SearchSection = field(default_factory=SearchSection)
    goals: GoalsSection = field(default_factory=GoalsSection)

    @property
    def sha256(self) -> str:
        """Hash of every value that shapes a run, defaults included, but for where data and weights lie: they have hashes of their own."""
        values = dataclasses.asdict(self)
        values.pop("search")
        values.pop("devices")
        values["data"].pop("dir")
        values["train"]["teacher"] = Path(self.train.teacher).name
        values["model"] = dataclasses.asdict(self.model.portable)
        return sha256_json(values)


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read edgeseg.toml, apply `--set KEY=VALUE` overrides (values in TOML syntax, bare words are strings), validate.

    `data.dir`, `train.teacher` and a file in `model.encoder_weights` are made absolute, relative to the file's folder.

    Raises:
        InputMissingError: no such file.
        ConfigError: not TOML, an unknown key (the nearest known one is named), a value of the wrong type or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputMissingError(f"{path} does not exist; type: edgeseg init --data DIR") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    raw = parse_toml(text, where=str(path))
    for override in overrides:
        _apply(raw, override)
    config = parse_config(raw)
    here = path.resolve().parent
    if config.data.dir:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, dir=str((here / config.data.dir).resolve())))
    if config.model.encoder_weights not in ("", IMAGENET):
        weights = str((here / config.model.encoder_weights).resolve())
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder_weights=weights))
    if config.train.teacher:
        teacher = str((here / config.train.teacher).resolve())
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, teacher=teacher))
    return config


def config_of(overrides: tuple[str, ...]) -> Config:
    """Defaults changed by `--set KEY=VALUE` alone, where there is no file yet; see `load_config` for what is raised."""
    raw: dict[str, Any] = {}
    for override in overrides:
        _apply(raw, override)
    return parse_config(raw)


def parse_config(raw: Mapping[str, Any]) -> Config:
    """Validate a parsed TOML document; see `load_config` for what is raised."""
    config: Config = _section(Config, raw, where="")
    for target in config.devices:
        if target not in config.targets:
            raise ConfigError(f"[devices] {target}: none of the targets ({', '.join(config.targets)}); add it to targets, or leave it out")
    model = config.model
    if model.depth != ModelSection().depth and not model.factory and (model.encoder or model.name != "unet"):
        raise ConfigError(f"[model] depth = {model.depth}: {model.encoder or model.name} has the levels it has; leave depth out"
                          + (", or the encoder" if model.name == "unet" else ""))
    crop, size = config.train.crop, config.data.size
    if (crop[0] == 0) != (crop[1] == 0):
        raise ConfigError(f"[train] crop = {list(crop)}: give both sides, or [0, 0] for the model size {list(size)}")
    smallest = smallest_side(config.model)
    for key, value in (("[data] size", size), ("[train] crop", crop)):
        if value[0] and min(value) < smallest:
            enough = [max(side, -(-smallest // 8) * 8) for side in value]
            raise ConfigError(f"{key} = {list(value)}: {encoder_of(config.model)} needs at least {smallest} pixels a side; "
                              f"set {key.translate({91: None, 93: None}).replace(' ', '.')} = {enough}")
    if not any(config.train.loss.values()):
        raise ConfigError("[train] loss holds no weight above 0, so there is nothing to learn from; try loss = {ce = 1.0, dice = 0.5}")
    if config.decision.rule == "thresholds" and config.model.task != "semantic":
        raise ConfigError(f"[decision] rule = 'thresholds' is for pixels; {config.model.name} answers with objects; set rule = \"argmax\"")
    if config.train.teacher and config.model.task != "semantic":
        raise ConfigError(f"[train] teacher is for networks that give a class a pixel; {config.model.name} finds objects; leave it out")
    if config.bench.tune and config.bench.threads:
        raise ConfigError(f"[bench] threads = {config.bench.threads} and tune = true: tuning finds the number of threads; leave one out")
    prune = config.prune
    asked = [f"{key} = {getattr(prune, key):g}" for key in ("macs_share", "latency_share", "p90_ms")
             if getattr(prune, key) != getattr(PruneSection(), key)]
    if len(asked) > 1:
        raise ConfigError(f"[prune] {' and '.join(asked)}: give one of them, which says how far to cut")
    if config.augment.scale[0] > config.augment.scale[1]:
        raise ConfigError(f"[augment] scale = {list(config.augment.scale)}: the first must not exceed the second")
    return config


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override}: expected KEY=VALUE, for example --set train.epochs=50")
    *sections, name = key.strip().split(".")
    for section in sections:
        inner = raw.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {section} is a value, not a section")
        raw = inner
    try:
        raw[name] = parse_toml(f"{'v':{len(key)}}={value}", where=f"--set {override}")["v"]  # a column that is told is one of KEY=VALUE
    except ConfigError as error:
        if value.lstrip().startswith(("[", "{")):  # no bare word: a list or a table was meant
            raise ConfigError(f"{error}; numbers are written 0.1, strings \"a\", lists [1, 2], tables {{a = 1}}") from error
        raw[name] = value.strip()


def _section(kind: Any, raw: Mapping[str, Any], *, where: str) -> Any:  # noqa: ANN401
    known = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in raw:
        if key not in known:
            if (where, key) in _MOVED:
                raise ConfigError(f"[{where}] unknown key '{key}'; {_MOVED[where, key]}")
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{f'[{where}]' if where else 'edgeseg.toml:'} unknown key '{key}'; {hint}")
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"edgeseg.toml: '{key}' is a section; write [{key}]")
            values[key] = _section(hints[key], value, where=key)
        else:
            values[key] = _value(hints[key], value, where=f"[{where}] {key}" if where else key, meta=known[key].metadata)
    return kind(**values)


def _value(hint: Any, value: Any, *, where: str, meta: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if isinstance(hint, types.UnionType):  # X | None: leaving the key out is how None is written
        hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
    if typing.get_origin(hint) is Mapping:
        return _names(value, where=where) if typing.get_args(hint)[1] is str else _weights(value, where=where, meta=meta)
    if typing.get_origin(hint) is tuple:
        arms = typing.get_args(hint)
        if not isinstance(value, list):
            raise ConfigError(f"{where} = {value!r}: expected a list")
        if arms[-1] is not Ellipsis and len(value) != len(arms):
            raise ConfigError(f"{where} = {value!r}: expected {len(arms)} values")
        return tuple(_value(arms[0], item, where=where, meta=meta) for item in value)
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where} = {value!r}: expected {_type_name(hint)}")
    low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
    if choices and value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        raise ConfigError(f"{where} = {value!r}: one of {', '.join(choices)}" + (f"; did you mean '{near[0]}'?" if near else ""))
    if (low is not None and value < low) or (high is not None and value > high) or value != value:
        bounds = f"at least {low}" if high is None else f"{low} to {high}"
        raise ConfigError(f"{where} = {value!r}: expected {bounds}")
    return value


def _weights(value: Any, *, where: str, meta: Mapping[str, Any]) -> dict[str, float]:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} = {value!r}: expected a table of weights, for example {{{meta['choices'][0]} = 1.0}}")
    for name in value:
        if name not in meta["choices"]:
            near = difflib.get_close_matches(name, meta["choices"], n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{where} has no '{name}': one of {', '.join(meta['choices'])}{hint}")
    return {name: _value(float, weight, where=f"{where}.{name}", meta={"low": meta["low"]}) for name, weight in value.items()}


def _names(value: Any, *, where: str) -> dict[str, str]:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} = {value!r}: expected a table of names; write [{where}]")
    return {key: _value(str, name, where=f"[{where}] {key}", meta={}) for key, name in value.items()}


def _type_name(hint: type) -> str:
    return {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}.get(hint, hint.__name__)


def render_toml(config: Config, *, defaults: bool) -> str:
    """Write a config as TOML with each key's help; with `defaults` every key, else only those that differ from the default."""
    plain = Config()
    lines: list[str] = []

    def emit(section: Any, reference: Any) -> None:  # noqa: ANN401
        for f in dataclasses.fields(section):
            value = getattr(section, f.name)
            if dataclasses.is_dataclass(value) or (not defaults and value == getattr(reference, f.name)):
                continue
            doc = f.metadata["doc"] + (f" ({' | '.join(f.metadata['choices'])})" if f.metadata["choices"] else "")
            lines.append(f"# {f.name} =  # {doc}" if value is None else f"{f.name} = {toml_text(value)}  # {doc}")

    emit(config, plain)
    for f in dataclasses.fields(config):
        if dataclasses.is_dataclass(getattr(config, f.name)):
            start = len(lines)
            emit(getattr(config, f.name), getattr(plain, f.name))
            if len(lines) > start:
                lines[start:start] = ["", f"[{f.name}]"]
    return "\n".join(lines).strip() + "\n"
