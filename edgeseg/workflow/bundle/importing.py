"""`edgeseg import`: a model that was trained elsewhere becomes a bundle, after it was compared with the original on the same frames."""

from __future__ import annotations

import shlex
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle, BundleInfo, check_target, seal_bundle
from edgeseg.core.errors import BundleError, ConfigError, RuntimeFailure
from edgeseg.core.files import sha256_json
from edgeseg.core.images import ClassMap, Frame, to_frame, to_model
from edgeseg.core.instances import Answer, as_class_map
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Parent, Reference
from edgeseg.core.metrics import Confusion, confusion_matrix, score
from edgeseg.data.base import default_palette
from edgeseg.workflow.bundle.pictures import Pictures, accuracy, open_pictures
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.steps import tree_sha256
from edgeseg.workflow.ui import Ui

if TYPE_CHECKING:
    from exporters.imported import Reading, Settled, Wishes

MIN_AGREEMENT: Final = 0.999
"""Share of pixels that must be as the original's; what is left are pixels near a tie, which float rounding moves."""
_GOLDEN: Final = 3


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What the user typed; "", empty or `None` = to be found out. See `exporters.imported.Wishes`."""

    model: Path
    out: Path
    data: Path | None = None
    classes: tuple[str, ...] = ()
    input: str = ""
    output: str = ""
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    order: str = ""
    layout: str = ""
    output_layout: str = ""
    size: tuple[int, int] | None = None
    resize: str = "stretch"
    resizer: str = "pillow"
    decision: str = ""
    threshold: float | None = None
    scores: str = ""
    format: str = ""
    min_agreement: float = MIN_AGREEMENT
    force: bool = False


def import_model(request: ImportRequest, *, ui: Ui) -> Outcome:
    """Read the model, put the contract around it, compare it with the original, and seal the bundle.

    Raises:
        ConfigError: something is missing, or fits in two ways; says what to type.
        InputMissingError: the model or the data is not there, or damaged.
        BundleError: the new graph does not answer as the original; nothing is left behind.
        MissingExtraError: what reads the model is not installed.
    """
    require("torch", extra="export")
    from exporters.imported import choose_ports, find_source, fix_input, read_output, refuse_format, sentences

    check_target(request.out, request.model, force=request.force)
    kind, source = find_source(request.model)
    format_ = refuse_format(request.model, kind, source, request.format)
    pictures = open_pictures(request.data, request.classes)
    classes = request.classes or (pictures.dataset.classes if pictures.dataset else ())
    if not classes:
        raise ConfigError("a model file does not name its classes; type them in index order, a background included, for example "
                          "--classes background,crop,weed, or give --data with a data set that names them")
    if len(set(classes)) != len(classes) or not 2 <= len(classes) <= 255:
        raise ConfigError(f"--classes {','.join(classes)}: 2 to 255 different names in index order, a background included")
    wishes = _wishes(request, classes)
    opened = source.open(request.model)
    chosen_input, chosen_output = choose_ports(opened.inputs, opened.outputs, wishes)
    shape, layout, order = fix_input(chosen_input, wishes)
    try:
        settled = opened.settle(chosen_input, chosen_output, shape)
    except RuntimeFailure as error:
        if request.size is None:
            raise
        height, width = request.size
        raise ConfigError(f"the model does not run at --size {height}x{width} ({error}); try one that its strides divide") from error
    reading = read_output(chosen_input, shape, layout, order, settled.facts, wishes)
    ui.say(f"{request.model.name}: {kind}, runs in {settled.facts.runtime}")
    for line in sentences(reading, settled.facts, classes):
        ui.say(line)
    for note in pictures.notes:
        ui.say(f"note: {note}")
    if pictures.drawn:
        ui.say("note: no --data, so it is compared on drawn pictures and its accuracy stays unknown")
    original = _Original(settled, reading, pictures, ui)
    return _seal(request, kind, format_, classes, original, ui)


def _wishes(request: ImportRequest, classes: tuple[str, ...]) -> Wishes:
    from exporters.imported import Wishes

    names = ("input", "output", "mean", "scale", "order", "layout", "output_layout", "size", "resize", "resizer", "decision", "threshold",
             "scores")
    return Wishes(classes=classes, **{name: getattr(request, name) for name in names})


class _Original:
    """What the original answered, frame by frame at model size, and how accurate that is."""

    def __init__(self, settled: Settled, reading: Reading, pictures: Pictures, ui: Ui) -> None:
        from exporters.imported import answer_as_the_original

        self.settled, self.reading, self.pictures, self.ui = settled, reading, pictures, ui
        self._answers: list[bytes] = []
        self.num_frames, _ = pictures.evaluation()
        self.confusion = self._each("asking the original", lambda frame: self._keep(answer_as_the_original(settled, reading, frame)))

    def compare(self, run: Callable[[Frame], ClassMap]) -> tuple[float, Confusion | None]:
        """Share of pixels at model size on which `run` answers as the original, and (with labels) its confusion matrix."""
        expected = iter(self._answers)
        shares: list[float] = []

        def ask(frame: Frame) -> ClassMap:
            answer = run(frame)
            shares.append(float(np.mean(answer.reshape(-1) == np.frombuffer(zlib.decompress(next(expected)), np.uint8))))
            return answer

        confusion = self._each("comparing", ask)
        return float(np.mean(shares)), confusion

    def _keep(self, answer: ClassMap) -> ClassMap:
        highest = int(answer.max(initial=0))
        if highest >= self.reading.num_classes:
            raise ConfigError(f"the model answers class {highest}, and --classes names {self.reading.num_classes}; name them all")
        self._answers.append(zlib.compress(answer.tobytes(), 1))
        return answer

    def _each(self, label: str, ask: Callable[[Frame], ClassMap]) -> Confusion | None:
        contract, num_classes = self.reading.contract, self.reading.num_classes
        total: Confusion | None = None
        count, items = self.pictures.evaluation()
        for done, (_, frame_HWC, label_HW) in enumerate(items, start=1):
            placement = contract.place((frame_HWC.shape[0], frame_HWC.shape[1]))
            answers = [ask(part) for part in to_model(frame_HWC, placement)]
            if label_HW is not None:
                one = confusion_matrix(to_frame(answers, placement), label_HW, num_classes=num_classes)
                total = one if total is None else total + one
            self.ui.progress(label, done, count)
        return total

    @property
    def reference(self) -> Reference | None:
        """The original's accuracy on the labelled split."""
        if self.confusion is None or self.pictures.dataset is None:
            return None
        result = accuracy(self.confusion, self.pictures)
        return Reference(
            dataset=self.pictures.name, dataset_sha256=self.pictures.dataset.sha256, split=self.pictures.eval_split,
            num_frames=self.num_frames, miou=result.miou, iou=result.iou,
        )


def _seal(request: ImportRequest, kind: str, format_: str, classes: tuple[str, ...], original: _Original, ui: Ui) -> Outcome:
    from edgeseg.workflow.bundle.bundling import own_answer

    settled, reading, pictures = original.settled, original.reading, original.pictures
    dataset = pictures.dataset
    origin = _origin(kind, reading, settled)
    found: list[tuple[float, Confusion | None]] = []

    def answer(bundle: Bundle) -> tuple[str, Callable[[Frame], Answer]]:
        runtime, run = own_answer(bundle)
        share, confusion = original.compare(lambda frame_HWC: as_class_map(run(frame_HWC)))
        if share < request.min_agreement:
            raise BundleError(
                f"the bundle answers {share:.4%} of the pixels as the original does, less than {request.min_agreement:g}; nothing was "
                "written; try another --format, or --min-agreement if that is enough"
            )
        found.append((share, confusion))
        return runtime, run

    with tempfile.TemporaryDirectory(prefix="edgeseg-import-") as work:
        ui.say(f"writing {format_} with the contract inside")
        model = settled.write(format_, reading, Path(work))
        model = replace(model, scheme={**model.scheme, "imported": origin})
        info = BundleInfo(
            name=_name(request.out), contract=reading.contract, classes=classes,
            palette=dataset.palette if dataset else default_palette(len(classes)), reference=original.reference,
            parents=(Parent(kind="import", sha256=_sha256(request.model, kind)),), config_sha256=sha256_json(origin),
        )
        bundle = seal_bundle(request.out.resolve(), model, info, golden_frames=pictures.golden(reading.contract, _GOLDEN), answer=answer)
    return _outcome(bundle, original, found[0], request)


def _origin(kind: str, reading: Reading, settled: Settled) -> dict[str, Any]:
    """What an auditor needs to know of where a bundle's graph comes from and how it is fed."""
    return {
        "kind": kind, "input": str(reading.input), "layout": reading.layout, "order": reading.order, "mean": list(reading.mean),
        "scale": list(reading.scale), "output": str(reading.output), "output_layout": reading.output_layout, "answers": reading.answers,
        "probabilities": reading.probabilities, "compared_in": settled.facts.runtime,
    }


def _outcome(bundle: Bundle, original: _Original, found: tuple[float, Confusion | None], request: ImportRequest) -> Outcome:
    share, confusion = found
    manifest, contract, pictures = bundle.manifest, bundle.manifest.contract, original.pictures
    where = "drawn pictures" if pictures.drawn else f"frames of {pictures.name}" + (f", {pictures.eval_split}" if pictures.dataset else "")
    lines = [
        f"{request.out}: {manifest.format} {manifest.precision}, {contract.height}x{contract.width}, {len(manifest.classes)} classes",
        f"{share:.4%} of the pixels of {original.num_frames} {where} as the original in {original.settled.facts.runtime}",
    ]
    facts: dict[str, Any] = {
        "bundle": str(request.out), "bundle_sha256": manifest.sha256, "format": manifest.format, "precision": manifest.precision,
        "agreement": share, "num_frames": original.num_frames, "frames": where, "compared_in": original.settled.facts.runtime,
        "miou_original": None, "miou": None, "imported": manifest.scheme["imported"],
    }
    reference = original.reference
    if confusion is not None and reference is not None:
        facts |= {"miou_original": reference.miou, "miou": score(confusion).miou}
        lines.append(f"mIoU: the original {facts['miou_original']:.4f}, the bundle {facts['miou']:.4f}")
        ious = zip(manifest.classes, reference.iou, strict=True)
        lines += [f"  {name}: {'not evaluated (no pixel of it in the split)' if iou is None else f'{iou:.4f}'}" for name, iou in ious]
    data = shlex.quote(str(request.data)) if request.data else "DIR"
    if manifest.precision == "fp32":
        lines.append(f"next: edgeseg quantize {shlex.quote(str(request.out))} --data {data} --out {shlex.quote(str(request.out))}-int8")
    return Outcome(tuple(lines), facts)


def _sha256(model: Path, kind: str) -> str:
    """Hash of a model's file or folder, with the files beside it that hold its weights."""
    from exporters.imported import SOURCES

    beside = [tree_sha256(path) for path in SOURCES[kind].beside(model)]
    return sha256_json([tree_sha256(model), *beside]) if beside else tree_sha256(model)


def _name(out: Path) -> str:
    """A bundle's name from its folder's."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in out.resolve().name).lstrip("._-")[:100]
    return kept or "imported"
