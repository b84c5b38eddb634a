"""`manifest.json`, schema 1: everything a board or an auditor needs to know about a bundle, validated when read."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from edgeseg.core.errors import BundleError
from edgeseg.core.files import parse_json, sha256_json
from edgeseg.core.images import RESIZE_POLICIES, Placement, place
from edgeseg.core.resizers import RESIZERS

SCHEMA: Final = 1
FORMATS: Final = ("onnx", "openvino", "tflite", "tensorrt", "null")
_SEMANTIC_ONLY: Final = ("tensorrt",)
PRECISIONS: Final = ("fp32", "fp16", "int8", "mixed")
LEAST_INT8_SHARE: Final = 0.9
"""An int8 bundle of whose multiply-accumulates a runtime executes less than this in int8 is marked wherever it is shown."""
INPUT_NAME: Final = "frame"
OUTPUT_NAME: Final = "class_map"
FRAME_END: Final = "frame_end/"
"""Names of the operations that feed an imported model's own graph begin so; int8 leaves them float."""
DETECTIONS_NAME: Final = "detections"
MASKS_NAME: Final = "masks"
TASKS: Final = ("semantic", "instance")
DECISIONS: Final = ("argmax", "threshold", "thresholds")
MAX_INSTANCES: Final = 255

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def why_not_made(format: str, task: str) -> str:
    """Why a format is not made of networks of a task, in words; empty = it is."""
    if format in _SEMANTIC_ONLY and task != "semantic":
        return f"format {format} is made of networks that give a class a pixel; for objects choose format onnx"
    return ""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of the bundle; `path` is relative, in POSIX form, and stays inside."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Contract:
    """How to feed the model and read it: uint8 NHWC RGB `frame` in, uint8 NHW `class_map` out, normalisation in the graph."""

    height: int
    width: int
    resize: str = "stretch"
    resizer: str = "pillow"
    """Whose filter brings a frame to model size: what the network was trained with (`edgeseg.core.images`)."""
    decision: str = "argmax"
    """`argmax`: the class of the largest probability p_c, the first of equals. `threshold`: two classes, 1 where p_1 > t. `thresholds`: one
    a class; among the classes with p_c > t_c the one with the largest p_c / t_c (`edgeseg.models.decision`)."""
    threshold: float | None = None
    """Probability above which a pixel is class 1; only with `threshold`, for networks of one score a pixel or two."""
    thresholds: tuple[float, ...] | None = None
    """One probability a class, each above 0, their sum 1; only with `thresholds`. As the p_c sum to 1 too, some class always reaches its
    own, so no pixel is left without an answer."""
    task: str = "semantic"
    """`semantic`: the output above. `instance`: the outputs `detections` and `masks` of `edgeseg.core.instances` in its place."""
    max_instances: int = 0
    """Slots of an instance model's outputs (K), 1 to 255; 0 for `semantic`."""

    @property
    def key(self) -> dict[str, Any]:
        """The contract in the key of a step.

        Pillow is left out, so that what was done before there was a choice stays done. OpenCV's version is not in it: the filter is of
        whole numbers and gives the same bits in each (ADR 0022).
        """
        return {name: value for name, value in asdict(self).items() if (name, value) != ("resizer", "pillow")}

    def place(self, frame_hw: tuple[int, int]) -> Placement:
        """Where a frame of `frame_hw` lies at model size, and how it comes there."""
        return place(frame_hw, (self.height, self.width), self.resize, self.resizer)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the float checkpoint reached: the number every later step is compared with."""

    dataset: str
    dataset_sha256: str
    split: str
    num_frames: int
    miou: float
    iou: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class InstanceReference:
    """The same for task `instance`: average precision as COCO defines it, on masks at frame size."""

    dataset: str
    dataset_sha256: str
    split: str
    num_frames: int
    ap: float
    """Mean over IoU 0.50 to 0.95 and over the classes that occur."""
    ap50: float
    class_ap: tuple[float | None, ...]
    """`None` = background, or no object of the class in the split."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """What this bundle was made from."""

    kind: str
    """`checkpoint`, `bundle`, or `import`: the file of a model that was trained elsewhere."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A frame at model size and the answer this very bundle gave when it was sealed, both PNG."""

    frame: str
    class_map: str

    @property
    def answer(self) -> str:
        """Path of the answer's file."""
        return self.class_map


@dataclass(frozen=True, kw_only=True)
class GoldenInstances:
    """The same for task `instance`: the answer is an .npz file of plain arrays (`edgeseg.core.instances.write_instances`)."""

    frame: str
    instances: str

    @property
    def answer(self) -> str:
        """Path of the answer's file."""
        return self.instances


_ADDED_TO_CONTRACT: Final[dict[str, Any]] = {"resizer": "pillow", "thresholds": None, "task": "semantic", "max_instances": 0}
"""Fields that came later: left out where they have this value, so that manifests from before keep their bytes and their identity."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All of `manifest.json`. Read with `parse_manifest`, which validates; trust it afterwards."""

    schema: int = SCHEMA
    name: str
    format: str
    precision: str
    scheme: dict[str, Any] = field(default_factory=dict)
    """The quantization scheme in full (calibrator, granularity, frames used and their hash); empty for fp32.
    An imported model has `imported` besides: what it was and how it is fed."""
    entry: str
    """The model file to open (for OpenVINO the .xml)."""
    files: tuple[FileEntry, ...]
    contract: Contract
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    reference: Reference | InstanceReference | None
    parents: tuple[Parent, ...]
    tools: dict[str, str]
    config_sha256: str
    golden: tuple[Golden | GoldenInstances, ...]
    golden_runtime: str
    """Runtime and version that gave the golden answers."""

    @property
    def sha256(self) -> str:
        """Identity of the bundle: the hash of this manifest, which holds the hashes of all files."""
        return sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Give the manifest as JSON values."""
        values = asdict(self)
        contract = values["contract"]
        values["contract"] = {k: v for k, v in contract.items() if k not in _ADDED_TO_CONTRACT or v != _ADDED_TO_CONTRACT[k]}
        return values


def _want(condition: bool, message: str) -> None:
    if not condition:
        raise BundleError(f"manifest.json: {message}")


def _fields(value: Any, where: str, **types: type | tuple[type, ...]) -> dict[str, Any]:  # noqa: ANN401
    """Check that `value` is an object with exactly these fields of these types."""
    _want(isinstance(value, dict), f"{where} is not an object")
    missing, unknown = sorted(set(types) - set(value)), sorted(set(value) - set(types))
    _want(not missing, f"{where} lacks {', '.join(missing)}")
    _want(not unknown, f"{where} has unknown fields {', '.join(unknown)}")
    for name, kind in types.items():
        got = value[name]
        ok = isinstance(got, kind) and not (isinstance(got, bool) and kind is not bool)
        _want(ok, f"{where}.{name} is {type(got).__name__}")
    return dict(value)


def check_path(text: str) -> str:
    """Give a bundle path back if it is relative, in POSIX form and stays inside; else raise `BundleError`."""
    path = PurePosixPath(text)
    bad = not text or path.is_absolute() or ".." in path.parts or "\\" in text or ":" in text or "\0" in text or str(path) != text
    _want(not bad, f"path {text!r} does not stay inside the bundle")
    return text


def parse_manifest(text: str) -> Manifest:
    """Parse and validate `manifest.json`.

    Raises:
        BundleError: not strict JSON, an unknown schema version, a missing, unknown or ill-typed field.
    """
    try:
        raw = parse_json(text)
    except ValueError as error:
        raise BundleError(f"manifest.json: not valid JSON ({error})") from error
    _want(isinstance(raw, dict), "not an object")
    _want(raw.get("schema") == SCHEMA and not isinstance(raw.get("schema"), bool),
          f"schema {raw.get('schema')!r} is unknown; this edgeseg reads schema {SCHEMA}; upgrade edgeseg or export again")
    top = _fields(
        raw, "manifest", schema=int, name=str, format=str, precision=str, scheme=dict, entry=str, files=list, contract=dict,
        classes=list, palette=list, reference=(dict, type(None)), parents=list, tools=dict, config_sha256=str, golden=list,
        golden_runtime=str,
    )
    _want(bool(_NAME.match(top["name"])), f"name {top['name']!r} holds characters outside A-Z a-z 0-9 . _ -")
    _want(top["format"] in FORMATS, f"format {top['format']!r} is unknown; one of {', '.join(FORMATS)}")
    _want(top["precision"] in PRECISIONS, f"precision {top['precision']!r} is unknown; one of {', '.join(PRECISIONS)}")
    files = tuple(_file(entry, i) for i, entry in enumerate(top["files"]))
    paths = [entry.path for entry in files]
    _want(len({p.casefold() for p in paths}) == len(paths), "files lists a path twice")
    _want(top["entry"] in paths, f"entry {top['entry']!r} is not among files")
    contract = _contract(top["contract"])
    golden = tuple(_golden(pair, f"golden[{i}]", contract.task) for i, pair in enumerate(top["golden"]))
    for pair in golden:
        _want({pair.frame, pair.answer} <= set(paths), f"golden {pair.frame!r} is not among files")
    classes = tuple(top["classes"])
    _want(2 <= len(classes) <= 255 and all(isinstance(c, str) and c for c in classes), "classes must be 2 to 255 names")
    _want(contract.threshold is None or len(classes) == 2, "contract.threshold is for two classes")
    _want(contract.thresholds is None or len(contract.thresholds) == len(classes), "contract.thresholds and classes differ in length")
    palette = tuple(_colour(c, i) for i, c in enumerate(top["palette"]))
    _want(len(palette) == len(classes), "palette and classes differ in length")
    _want(all(isinstance(k, str) and isinstance(v, str) for k, v in top["tools"].items()), "tools must map names to versions")
    parents = tuple(Parent(**_fields(p, f"parents[{i}]", kind=str, sha256=str)) for i, p in enumerate(top["parents"]))
    return Manifest(**{
        **top, "files": files, "contract": contract, "classes": classes, "palette": palette,
        "reference": _reference(top["reference"], len(classes), contract.task), "parents": parents, "golden": golden,
    })


def _file(raw: object, i: int) -> FileEntry:
    entry = FileEntry(**_fields(raw, f"files[{i}]", path=str, size_bytes=int, sha256=str))
    check_path(entry.path)
    _want(bool(_SHA256.match(entry.sha256)), f"files[{i}].sha256 is not 64 hex digits")
    _want(entry.size_bytes >= 0, f"files[{i}].size_bytes is negative")
    return entry


def _colour(raw: object, i: int) -> tuple[int, int, int]:
    ok = isinstance(raw, list) and len(raw) == 3 and all(type(v) is int and 0 <= v <= 255 for v in raw)
    _want(ok, f"palette[{i}] is not three values 0..255")
    assert isinstance(raw, list)
    return (raw[0], raw[1], raw[2])


def _golden(raw: object, where: str, task: str) -> Golden | GoldenInstances:
    if task == "instance":
        return GoldenInstances(**_fields(raw, where, frame=str, instances=str))
    return Golden(**_fields(raw, where, frame=str, class_map=str))


def _contract(raw: object) -> Contract:
    values = _fields(
        {**_ADDED_TO_CONTRACT, **raw} if isinstance(raw, dict) else raw, "contract", height=int, width=int, resize=str, resizer=str,
        decision=str, threshold=(float, int, type(None)), thresholds=(list, type(None)), task=str, max_instances=int,
    )
    if values["thresholds"] is not None:
        values["thresholds"] = tuple(values["thresholds"])
    contract = Contract(**values)
    _want(0 < contract.height <= 16384 and 0 < contract.width <= 16384, f"contract size {contract.height}x{contract.width} is out of range")
    _want(contract.resize in RESIZE_POLICIES, f"contract.resize {contract.resize!r} is unknown")
    _want(contract.resizer in RESIZERS, f"contract.resizer {contract.resizer!r} is unknown; one of {', '.join(RESIZERS)}")
    _want(contract.decision in DECISIONS, f"contract.decision {contract.decision!r} is unknown; one of {', '.join(DECISIONS)}")
    _want((contract.threshold is not None) == (contract.decision == "threshold"), "contract.threshold goes with decision 'threshold'")
    _want((contract.thresholds is not None) == (contract.decision == "thresholds"), "contract.thresholds goes with decision 'thresholds'")
    if contract.thresholds is not None:
        ok = all(isinstance(t, float) and 0 < t < 1 for t in contract.thresholds) and abs(sum(contract.thresholds) - 1) < 1e-6
        _want(ok, "contract.thresholds must be numbers above 0 that sum to 1")
    _want(contract.task in TASKS, f"contract.task {contract.task!r} is unknown; one of {', '.join(TASKS)}")
    if contract.task == "instance":
        _want(0 < contract.max_instances <= MAX_INSTANCES, f"contract.max_instances {contract.max_instances} is not 1..{MAX_INSTANCES}")
        _want(contract.resize != "tile", "contract.resize 'tile' cuts objects apart; instances need stretch or letterbox")
        _want(contract.decision == "argmax", f"contract.decision {contract.decision!r} is for pixels, not for instances")
    else:
        _want(contract.max_instances == 0, "contract.max_instances goes with task 'instance'")
    return contract


def _reference(raw: object, num_classes: int, task: str) -> Reference | InstanceReference | None:
    if raw is None:
        return None
    if task == "instance":
        values = _fields(
            raw, "reference", dataset=str, dataset_sha256=str, split=str, num_frames=int, ap=(float, int), ap50=(float, int), class_ap=list,
        )
        return InstanceReference(**{**values, "class_ap": _per_class(values["class_ap"], "reference.class_ap", num_classes)})
    values = _fields(raw, "reference", dataset=str, dataset_sha256=str, split=str, num_frames=int, miou=(float, int), iou=list)
    return Reference(**{**values, "iou": _per_class(values["iou"], "reference.iou", num_classes)})


def _per_class(raw: list[Any], where: str, num_classes: int) -> tuple[float | None, ...]:
    _want(len(raw) == num_classes and all(v is None or isinstance(v, (int, float)) for v in raw), f"{where} needs one value a class")
    return tuple(raw)


def read_manifest(folder: Path) -> Manifest:
    """Read `folder/manifest.json`; `BundleError` where it is missing or not valid."""
    path = folder / "manifest.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{folder} is not a bundle (no manifest.json); make one with: edgeseg export") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: not UTF-8 text") from error
    return parse_manifest(text)
