"""The parity ladder: torch -> onnx -> openvino / tflite -> int8 -> board, rung by rung on the same frames, and what is to blame for a fall.

Each rung is compared with the one below it and with the lowest: pixels, outlines, IoU of each class, and class scores, which are read out
of the bundle's own graph (shipped bundles do not give them, so nothing but the file itself is opened). A rung that falls below its limit is
taken apart tensor by tensor on the frame where it is worst (`targets.parity`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.config import DataSection, load_config
from edgeseg.core.errors import ConfigError, require_path
from edgeseg.core.files import read_json, write_json
from edgeseg.core.images import ClassMap, Frame, resize_class_map, to_model
from edgeseg.core.instances import as_class_map
from edgeseg.core.metrics import agreement, boundary_f1, confusion_matrix, mean_boundary_f1, mean_of, score
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.parity.board import board_rung
from edgeseg.workflow.parity.results import LIMITS, RungResult, ladder_lines
from edgeseg.workflow.parity.rungs import Rungs, find_rungs, ladders_of, refuse_alone
from edgeseg.workflow.parity.seen import Rung, Seen
from edgeseg.workflow.parity.torch_rung import TorchRung
from edgeseg.workflow.places import HERE, Place, find_place
from edgeseg.workflow.ui import Ui
from targets.boards import Target, find_target, plan
from targets.runtimes import open_session

MAX_FRAMES: Final = 16
"""Frames of a data set that a ladder looks at, evenly spread."""
FILE: Final = "parity.json"
"""What is kept of the ladders of a run, for its report."""


def verify_ladder(
    folder: Path, *, data: Path | None, config: Path | None, checkpoint: Path | None, target: str, split: str = "", arithmetic: str = "",
    device: str = "", only: Collection[str] | None = None, ui: Ui,
) -> Outcome:
    """Climb the ladder of a bundle, or of every bundle of a run; `passed` where no rung fell off.

    Of a run, `only` (hashes of manifests) leaves out bundles that lie there from another configuration. The frames are those of `data`
    or `config` (the split the float checkpoint was measured on, or `split`), else the golden frames. With a `device` (name or address)
    the bundle is one rung more there, executed as `target` would (empty = the device's own); the rungs below stay on this machine.

    Raises:
        ConfigError: nothing to compare with, or a bundle that finds objects; there is no such device.
        TargetError: the target or the device cannot run a bundle.
        DeviceError: the device cannot be used.
        InputMissingError: no such folder.
    """
    folder = require_path(folder, what="bundle")
    place = find_place(device, ui=ui)
    board = find_target(target or place.target)
    if (folder / "manifest.json").is_file():
        lines, facts = _ladder(open_bundle(folder), data, config, checkpoint, board, split, arithmetic, place, ui)
        return Outcome(tuple(lines), facts, facts["passed"])
    bundles = [bundle for bundle in ladders_of(folder) if only is None or bundle.manifest.sha256 in only]
    lines, ladders = [], []
    for bundle in bundles:
        more, facts = _ladder(bundle, data, config, checkpoint, board, split, arithmetic, place, ui)
        lines += [f"{bundle.manifest.name}:", *(f"  {line}" for line in more)]
        ladders.append(facts)
    write_json(folder / FILE, {"ladders": ladders})
    return Outcome(tuple(lines), {"run": str(folder), "ladders": ladders}, all(facts["passed"] for facts in ladders))


def climbed_ladders(run: Path, bundles: Collection[str]) -> list[dict[str, Any]]:
    """What `verify_ladder` kept of a run, as far as it is about these bundles (hashes of manifests)."""
    try:
        kept = read_json(run / FILE)["ladders"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    return [ladder for ladder in kept if ladder["bundle_sha256"] in bundles]


def _ladder(
    bundle: Bundle, data: Path | None, config: Path | None, checkpoint: Path | None, target: Target, split: str, arithmetic: str,
    there: Place, ui: Ui,
) -> tuple[list[str], dict[str, Any]]:
    rungs = find_rungs(bundle, checkpoint=checkpoint)
    if arithmetic in ("", "f32") and there.is_here:
        refuse_alone(rungs)
    frames, labels, source = _frames(bundle, data, config, split)
    results = climb(rungs, frames, labels, target=target, arithmetic=arithmetic, there=there, ui=ui)
    passed = not any(one.fallen for one in results)
    facts = {
        "bundle": bundle.manifest.name, "bundle_sha256": bundle.manifest.sha256, "frames": source, "num_frames": len(frames),
        "rungs": [one.to_json() for one in results], "notes": list(rungs.notes), "passed": passed,
    }
    return [f"{len(frames)} frames: {source}", *ladder_lines(results, rungs.notes)], facts


def _frames(bundle: Bundle, data: Path | None, config: Path | None, split: str) -> tuple[list[Frame], list[ClassMap] | None, str]:
    """Frames at model size, their labels where they can be brought there, and what they are."""
    manifest = bundle.manifest
    if data is None and config is None:
        return bundle.golden_frames(), None, "golden frames of the bundle"
    from edgeseg.data.store import read_sample
    from edgeseg.workflow.bundle.labelled import load_labelled

    section, seed = DataSection(), 0
    if config is not None:
        loaded = load_config(config)
        section, seed = loaded.data, loaded.train.seed
    if data is not None:
        section = replace(section, dir=str(data))
    dataset = load_labelled(section, manifest.classes, seed=seed)
    chosen = split or (manifest.reference.split if manifest.reference else section.eval_split)
    samples = dataset.splits.get(chosen, ())
    if not samples:
        raise ConfigError(f"{dataset.root} has no {chosen} split; add --split NAME")
    samples = samples[:: max(1, len(samples) // MAX_FRAMES)][:MAX_FRAMES]
    size, frames, labels = (manifest.contract.height, manifest.contract.width), [], []
    for sample in samples:
        frame, label = read_sample(sample, num_classes=len(manifest.classes))
        frames.append(to_model(frame, manifest.contract.place((frame.shape[0], frame.shape[1])))[0])
        labels.append(resize_class_map(label, *size))
    whole = manifest.contract.resize == "stretch"  # only then is a label at model size the label of what the model sees
    return frames, labels if whole else None, f"{dataset.name}, {chosen} split"


def climb(
    rungs: Rungs, frames: Sequence[Frame], labels: Sequence[ClassMap] | None, *, target: Target, arithmetic: str, there: Place = HERE,
    ui: Ui,
) -> list[RungResult]:
    """Answer every frame on every rung and compare; `frames` and `labels` are at model size. `there` = who has the highest rung.

    Raises:
        TargetError: this machine cannot run a rung as the target would.
        MissingExtraError: torch is not here for the lowest rung.
    """
    asked = rungs.bundles[-1][1]
    torch = TorchRung(rungs.checkpoint, asked.manifest.contract) if rungs.checkpoint is not None else None
    climbed: list[Rung] = []
    if torch is not None:
        climbed.append(Rung("torch", "fp32", "torch on the CPU, f32", None, None, _answers(torch.answer, frames, "torch", ui)))
    for name, bundle, bits in _steps(rungs, arithmetic):
        manifest = bundle.manifest
        how = plan(target if bundle is asked and there.is_here else "host", manifest.format, manifest.precision, precision_hint=bits)
        session = open_session(bundle, how.runtime, how.options)
        try:
            maps = _answers(session.run, frames, name, ui)
        finally:
            session.close()
        computes = how.options.precision_hint
        words = f"{how.runtime} x{how.options.num_threads}, {computes}"
        climbed.append(Rung(name, computes if computes != "f32" else manifest.precision, words, bundle, how, maps))
    if not there.is_here:
        last = climbed[-1]
        climbed.append(board_rung(last.name, last.precision, asked, frames, place=there, target=target.name, arithmetic=arithmetic, ui=ui))
    return [_compare(climbed, index, frames, labels, asked.manifest.classes, torch) for index in range(len(climbed))]


def _steps(rungs: Rungs, arithmetic: str) -> list[tuple[str, Bundle, str]]:
    """Every rung with the arithmetic asked of its float parts, empty = the target's own; another one than f32 is a rung of its own."""
    found = [(name, bundle, "") for name, bundle in rungs.bundles]
    name, bundle, _ = found[-1]
    if arithmetic == "f32":
        found[-1] = (name, bundle, arithmetic)
    elif arithmetic:
        found.append((f"{name} in {arithmetic}", bundle, arithmetic))
    return found


def _answers(answer: Callable[[Frame], Any], frames: Sequence[Frame], name: str, ui: Ui) -> list[ClassMap]:
    maps = []
    for done, frame in enumerate(frames, start=1):
        maps.append(as_class_map(answer(frame)))
        ui.progress(f"ladder: {name}", done, len(frames))
    return maps


def _compare(
    climbed: list[Rung], index: int, frames: Sequence[Frame], labels: Sequence[ClassMap] | None, classes: Sequence[str],
    torch: TorchRung | None,
) -> RungResult:
    rung = climbed[index]
    miou = None if labels is None else score(_confusion(rung.maps, labels, len(classes))).miou
    if index == 0:
        return RungResult(
            name=rung.name, how=rung.how, compared_with="", logit_sqnr_db=None, logit_cosine=None, agreement=None,
            agreement_with_lowest=None, boundary_agreement=None, class_iou={}, miou_labels=miou, fallen=(), blame=None,
        )
    below, limit = climbed[index - 1], LIMITS[rung.precision]
    shares = [agreement(mine, theirs) for mine, theirs in zip(rung.maps, below.maps, strict=True)]
    outlines = mean_boundary_f1([boundary_f1(a, b, num_classes=len(classes)) for a, b in zip(rung.maps, below.maps, strict=True)])
    iou = score(_confusion(rung.maps, below.maps, len(classes))).iou
    worst = int(np.argmin(shares))
    seen = Seen(climbed, frames[worst], torch)
    sqnr, angle = seen.logits(index)
    fallen = [] if np.mean(shares) >= limit.agreement else [f"pixel agreement below {limit.agreement:.1%}"]
    if sqnr is not None and sqnr < limit.sqnr_db:
        fallen.append(f"class scores below {limit.sqnr_db:.0f} dB")
    return RungResult(
        name=rung.name, how=rung.how, compared_with=below.name, logit_sqnr_db=sqnr, logit_cosine=angle, agreement=float(np.mean(shares)),
        agreement_with_lowest=float(np.mean([agreement(a, b) for a, b in zip(rung.maps, climbed[0].maps, strict=True)])),
        boundary_agreement=mean_of(outlines) if any(one is not None for one in outlines) else None,
        class_iou=dict(zip(classes, iou, strict=True)), miou_labels=miou, fallen=tuple(fallen),
        blame=seen.blame(index) if fallen else None, elsewhere=rung.elsewhere,
    )


def _confusion(maps: Sequence[ClassMap], truth: Sequence[ClassMap], num_classes: int) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.sum([confusion_matrix(a, b, num_classes=num_classes) for a, b in zip(maps, truth, strict=True)], axis=0)
    return total
