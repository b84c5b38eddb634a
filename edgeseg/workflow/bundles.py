"""What is done with one bundle, on any machine that has its runtime: verify and predict (bench is `benching`). No torch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.config import DataSection, GoalsSection, load_config
from edgeseg.core.errors import ConfigError, EdgesegError, require_path
from edgeseg.core.manifest import LEAST_INT8_SHARE, Reference
from edgeseg.core.metrics import score
from edgeseg.workflow.check.bundle_accuracy import Labelled, measure_classes, measure_objects
from edgeseg.workflow.places import find_place
from edgeseg.workflow.ui import Ui
from targets.boards import find_target, measured_on, plan
from targets.instances import MIN_SCORE
from targets.judging import Finding, at_least
from targets.runtimes import open_session
from targets.runtimes.base import Session
from targets.runtimes.cache import keeping
from targets.tuned import settings_for
from targets.verify import check_golden, golden_limit

if TYPE_CHECKING:
    from edgeseg.data.dataset import Dataset, Sample

SLOW_OPEN_S: Final = 10.0
"""After so long `predict` says that it is still opening the model."""


@dataclass(frozen=True)
class Outcome:
    """What a verb found: lines for a person, facts for a program, and whether it passed."""

    lines: tuple[str, ...]
    facts: dict[str, Any]
    passed: bool = True
    undecided: bool = False
    """Not passed, though nothing was missed: a goal is not decided."""
    lost: EdgesegError | None = None
    """What ended it before its time, after everything in `lines` was done."""

    def to_json(self) -> dict[str, Any]:
        """Give the facts as JSON values."""
        return self.facts


def verify(
    folder: Path, *, data: Path | None, config: Path | None, target: str, split: str = "", arithmetic: str = "", device: str = "", ui: Ui
) -> Outcome:
    """Check a bundle's bytes and golden frames; with labelled data its accuracy, judged against the config's goals.

    `split` is the split to verify on, or `all`; empty = the one the float checkpoint was measured on. `arithmetic` is that of float parts,
    empty = the target's own; golden frames were answered in f32 and judge no other. `device` = name or address of the machine that
    answers, empty = this one; `target` = empty: the device's own.

    Raises:
        BundleError: the bundle is not what its manifest says.
        ConfigError: the data has no such split, or other classes than the bundle; there is no such device.
        TargetError: the target or the machine cannot run it.
        DeviceError: the device cannot be used.
    """
    bundle = open_bundle(require_path(folder, what="bundle"))
    manifest = bundle.manifest
    goals, section, seed = GoalsSection(), None, 0
    if config is not None:
        loaded = load_config(config)
        goals, section, seed = loaded.goals, loaded.data, loaded.train.seed
    if data is not None:
        section = replace(section or DataSection(), dir=str(data))
    if split and (section is None or not section.dir):
        raise ConfigError(f"--split {split} goes with labelled images; add --data DIR or --config CONFIG")
    place = find_place(device, ui=ui)
    target = target or place.target
    how = place.plan(target, manifest, precision_hint=arithmetic)
    computes = how.options.precision_hint
    if section is None or not section.dir:
        if computes != "f32":
            of_target = "" if arithmetic else f", which {target} computes in"
            raise ConfigError(
                f"golden frames were answered in f32 and cannot judge {computes}{of_target}; add --data DIR or --config CONFIG")
        with place.session(bundle, (), target=target, how=how, ui=ui) as session:
            found = _golden_only(bundle, check_golden(bundle, session), how.runtime)
    else:
        dataset, samples, wanted = _labelled_samples(bundle, section, seed=seed, wanted=split)
        on = Labelled(dataset, samples, wanted, float_confusions(bundle))
        with place.session(bundle, [sample.image for sample in samples], target=target, how=how, ui=ui) as session:
            found = _labelled(bundle, session, on, goals, how.runtime, ui, arithmetic=computes)
    machine = measured_on(find_target(target), place.machine)
    where = () if place.is_here else (f"answered by {place.label}, {machine.words}",)
    facts = {**found.facts, "device": place.address, "machine": place.machine.cpu}
    return replace(found, lines=(*where, *found.lines), facts=facts)


def refuse_without_ladder(folder: Path, checkpoint: Path | None) -> None:
    """Refuse what only --ladder understands.

    Raises:
        ConfigError: a checkpoint was given, or the folder of a run.
    """
    if checkpoint is not None:
        raise ConfigError("--checkpoint goes with --ladder")
    if (folder / "bundles").is_dir() and not (folder / "manifest.json").exists():
        raise ConfigError(f"{folder} is the folder of a run; give one of {folder / 'bundles'}, or add --ladder for all of them")


def _golden_only(bundle: Bundle, share: float, runtime: str) -> Outcome:
    task = bundle.manifest.contract.task
    finding = at_least("golden", golden_limit(task), share)
    count, unit = len(bundle.manifest.golden), "objects" if task == "instance" else "pixels"
    lines = (
        f"{bundle.manifest.name}: every file is as the manifest says; runtime {runtime}",
        f"golden frames: {share:.4%} of the {unit} of {count} frames as when it was sealed: {'passed' if finding.passed else 'FAILED'}",
        "not verified: accuracy on labelled images; add --data DIR",
    )
    facts = {
        "bundle": bundle.manifest.name,
        "bundle_sha256": bundle.manifest.sha256,
        "runtime": runtime,
        "golden_agreement": share,
        "miou": None,
        "passed": finding.passed,
        "goals": [finding.to_json()],
    }
    return Outcome(lines, facts, finding.passed)


def _labelled_samples(bundle: Bundle, section: DataSection, *, seed: int, wanted: str) -> tuple[Dataset, tuple[Sample, ...], str]:
    from edgeseg.workflow.bundle.labelled import load_labelled

    manifest = bundle.manifest
    dataset = load_labelled(section, manifest.classes, seed=seed)
    split = wanted or (manifest.reference.split if manifest.reference else section.eval_split)
    return dataset, _samples_of(dataset, split), split


def _labelled(
    bundle: Bundle, session: Session, on: Labelled, goals: GoalsSection, runtime: str, ui: Ui, *, arithmetic: str,
) -> Outcome:
    measure = measure_objects if bundle.manifest.contract.task == "instance" else measure_classes
    found = measure(bundle, session, on, replace(goals, agreement=None), runtime, ui)
    if arithmetic != "f32":
        found = replace(found, findings=tuple(finding for finding in found.findings if finding.goal != "golden"))
    passed = all(finding.passed for finding in found.findings)
    lines = [*found.lines, *(f"note: {note}" for note in on.dataset.notes)]
    lines += [finding_line(finding) for finding in found.findings]
    elsewhere = _judged_elsewhere(goals)
    lines += [f"not judged here: goal {goal} ({where})" for goal, where in elsewhere.items()]
    facts = {
        **found.facts,
        "split": on.split,
        "dataset": on.dataset.name,
        "runtime": runtime,
        "passed": passed,
        "goals": [f.to_json() for f in found.findings],
        "not_judged": elsewhere,
    }
    return Outcome(tuple(lines), facts, passed, undecided=not passed and all(f.passed or f.undecided for f in found.findings))


def finding_line(finding: Finding) -> str:
    """One line on a goal: what it came to, the limit, the value with its interval, and what is not decided."""
    how = "passed" if finding.passed else "NOT DECIDED" if finding.undecided else "MISSED"
    got = "not evaluated" if finding.got is None else f"{finding.got:.5g}"
    if finding.low is not None and finding.high is not None:
        got += f" ({finding.low:.5g} to {finding.high:.5g})"
    return f"{how}: {finding.goal}: limit {finding.limit:g}, got {got}" + (f"; {finding.about}" if finding.about else "")


def float_confusions(bundle: Bundle) -> NDArray[np.int64] | None:
    """The float network's confusion matrices, frame by frame, which its run keeps beside its bundles; `None` where they are not at hand.

    They are of the bundle's reference, or they are not taken.
    """
    folder, reference = bundle.folder.resolve().parent.parent / "reference", bundle.manifest.reference
    if not isinstance(reference, Reference) or not (folder / "score.json").is_file():
        return None
    from edgeseg.workflow.learn.reference import read_confusions

    found = read_confusions(folder)
    measured = score(found.sum(axis=0))
    return found if len(found) == reference.num_frames and measured.iou == reference.iou else None


def _samples_of(dataset: Dataset, split: str) -> tuple[Sample, ...]:
    """Samples of one split, or of `all` of them.

    Raises:
        ConfigError: there is no such split; another one is never taken in its place.
    """
    if split == "all":
        return tuple(sample for samples in dataset.splits.values() for sample in samples)
    samples = dataset.splits.get(split, ())
    if not samples:
        there = ", ".join(name for name, found in dataset.splits.items() if found)
        raise ConfigError(f"{dataset.root} has no {split} split (it has {there or 'none'}); add --split NAME, or --split all")
    return samples


def _judged_elsewhere(goals: GoalsSection) -> dict[str, str]:
    """Goals that one bundle and labelled frames cannot decide, and what does."""
    where = {
        "agreement": "needs torch's answers, which a bundle does not carry: edgeseg run",
        "p90_ms": "edgeseg bench measures, edgeseg run judges", "fps": "edgeseg bench measures, edgeseg run judges",
        "size_mb": "edgeseg run judges it for the bundle it recommends",
    }
    return {goal: words for goal, words in where.items() if getattr(goals, goal) is not None}


def executed_lines(executed: Mapping[str, Any] | None, precision: str) -> list[str]:
    """What a runtime executes in int8, in lines: of a reduced bundle the share of MACs, and each layer that is not int8 with why."""
    if executed is None or precision in ("fp32", "fp16"):
        return []
    share = executed["share_int8"]
    if share is None:
        return [f"int8: {executed['source']}"]
    below = f", BELOW {LEAST_INT8_SHARE:.0%}" if precision == "int8" and share < LEAST_INT8_SHARE else ""
    lines = [f"int8: {share:.1%} of multiply-accumulates{below} ({executed['source']})"]
    lines += [f"  not int8: {one['name']} ({one['share']:.1%}, {one['precision']}): {one['reason']}" for one in executed["not_int8"]]
    lines += [
        f"  int8 gains nothing: {one['kind']} ({one['share']:.1%}): {one['gain']:.2f} times as fast as float where that was measured "
        f"(version {one['version']})"
        for one in executed.get("without_gain", ())
    ]
    return lines


def predict(
    folder: Path, source: Path | str, out: Path, *, target: str, overlay: bool, force: bool, min_score: float | None = None,
    arithmetic: str = "", untuned: bool = False, drop: str = "", max_frames: int | None = None, timeout_s: float = 10.0,
    fast_jpeg: bool = False, asked_to_stop: Callable[[], bool] = lambda: False, ui: Ui
) -> Outcome:
    """Write class maps, or objects, and overlays of images, a folder, a video, a camera or a stream.

    A live source that was lost is `Outcome.lost`; what was written before is whole.

    Raises:
        ConfigError: `out` already holds predictions and `force` is not given, `min_score` for a bundle that gives no scores, or a drop
            policy for files.
    """
    from targets.predict import PredictOptions, predict_source, source_for

    bundle = open_bundle(require_path(folder, what="bundle"))
    how = plan(target, bundle.manifest.format, bundle.manifest.precision, precision_hint=arithmetic)
    how, tuned = settings_for(bundle, how, untuned=untuned, asked="--arithmetic" if arithmetic else "")
    instances = bundle.manifest.contract.task == "instance"
    if min_score is not None and not instances:
        raise ConfigError(f"{folder} answers with a class for each pixel and gives no scores; leave --min-score out")
    if out.exists() and any(out.iterdir()) and not force:
        raise ConfigError(f"{out} is not empty; add --force to write into it, or choose another folder")
    options = PredictOptions(
        overlays=overlay, min_score=MIN_SCORE if min_score is None else min_score, drop=drop, max_frames=max_frames, timeout_s=timeout_s,
        fast_jpeg=fast_jpeg,
    )
    begin = source_for(bundle, source, options)  # before the session, which takes minutes where an engine is built
    keeps, kept = keeping(how.runtime, how.options, os.environ)
    patience = threading.Timer(SLOW_OPEN_S, ui.say, [
        f"still opening the model in {how.runtime}: it is made ready for this machine, here or by another edgeseg that is waited for"])
    patience.daemon = True
    patience.start()
    try:
        session = open_session(bundle, how.runtime, keeps)
    finally:
        patience.cancel()

    def on_frame(done: int, count: int | None, dropped: int) -> None:
        rate = done / max(time.monotonic() - start, 1e-9)
        ui.progress("predicting", done, count or done + 1, f"{rate:.1f} per second" + (f", {dropped} dropped" if dropped else ""))

    try:
        opened = begin()
        start = time.monotonic()
        made = predict_source(session, bundle, opened, out, options, on_frame=on_frame, asked_to_stop=asked_to_stop)
    finally:
        session.close()
    what = "maps of objects" if instances else "class maps"
    rate = f"{made.fps:.1f} per second in {how.runtime}"
    lines = [f"{made.num_frames} frame{'' if made.num_frames == 1 else 's'}, {rate}; {what} in {made.masks}"]
    if tuned or kept:
        lines.append(f"settings: {'; '.join(words for words in (tuned, kept) if words)}")
    if made.live:
        damaged = f", {made.damaged} could not be decoded" if made.damaged else ""
        lines.append(f"{made.dropped} dropped (policy {made.drop}) of {made.live}{damaged}")
    if made.objects is not None:
        lines.append(f"objects (class, score, box) in {made.objects}")
    if made.overlays is not None:
        lines.append(f"overlays in {made.overlays}")
    if made.stopped:
        lines.append("stopped when asked to; everything above is whole")
    facts = {
        "num_frames": made.num_frames,
        "masks": str(made.masks),
        "overlays": None if made.overlays is None else str(made.overlays),
        "runtime": how.runtime,
        "tuned": tuned or None,
        "cache_dir": keeps.cache_dir or None,
        "source": made.live or str(source),
        "live": bool(made.live),
        "drop": made.drop,
        "dropped": made.dropped,
        "damaged": made.damaged,
        "seconds": made.seconds,
        "fps": made.fps,
        "stopped": made.stopped,
        "lost": None if made.lost is None else str(made.lost),
        **({} if made.objects is None else {"objects": str(made.objects)}),
    }
    return Outcome(tuple(lines), facts, lost=made.lost)
