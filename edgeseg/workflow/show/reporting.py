"""From what the steps left on disk to the table, results.json and the page."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgeseg import __version__
from edgeseg.core.files import read_json, write_json, write_text
from edgeseg.core.images import ClassMap, resize_class_map, resize_frame, to_frame, to_model
from edgeseg.core.instances import as_class_map
from edgeseg.report.ladder import LadderFacts, ladder_facts
from edgeseg.report.model import (
    CurvePoint,
    DatasetFacts,
    FloatLayer,
    Picture,
    PruningFacts,
    Ratio,
    ReportData,
    ResultRow,
    TrainingFacts,
)
from edgeseg.report.model import (
    FloatReference as FloatFacts,
)
from edgeseg.report.page import render_page
from edgeseg.report.recommend import mark
from edgeseg.report.table import results_json
from edgeseg.workflow.check.elsewhere import There
from edgeseg.workflow.check.verifying import Verified
from edgeseg.workflow.compress.calibrating import covers_words
from edgeseg.workflow.compress.ladder_words import unmet_words
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.instance_reference import FloatInstances
from edgeseg.workflow.learn.learning import RunData, contract_of
from edgeseg.workflow.learn.reference import FloatReference
from edgeseg.workflow.measure.measuring import Measured, gain_words, method_words
from edgeseg.workflow.parity.ladder import climbed_ladders
from edgeseg.workflow.places import HERE
from edgeseg.workflow.show import instance_reporting
from edgeseg.workflow.show.circumstances import circumstances
from edgeseg.workflow.show.goals import judge_rows
from edgeseg.workflow.steps import StepResult
from targets.boards import find_target, plan
from targets.machine import NOT_AVAILABLE, describe_machine
from targets.runtimes import open_session

_NUM_PICTURES = 6
_PICTURE_SIDE = 480


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether every goal was reached; `undecided` = not so, though none was missed."""

    passed: bool
    undecided: bool


def write_report(
    ctx: RunContext,
    data: RunData,
    *,
    trained: StepResult,
    final: StepResult,
    reference: FloatReference | FloatInstances,
    verified: list[Verified],
    there: list[There],
    measured: list[Measured],
    pruning: dict[str, Any] | None,
) -> Verdict:
    """Write results.json, summary.json and report.html; give whether every goal was reached."""
    by_name = {one.bundle.name: one for one in verified}
    elsewhere = {(one.target, one.bundle.name): one for one in there}
    marked = mark([_row(one, by_name[one.bundle.name], elsewhere.get((one.target, one.bundle.name)), reference) for one in measured])
    asked_for = {name: one.findings for name, one in by_name.items() if one.bundle.arithmetic == "f32"}  # the others are there to compare
    asked_for |= {f"{one.words} ({one.target})": one.findings for one in there if one.bundle.arithmetic == "f32"}
    rows, goals = judge_rows(marked, asked_for, ctx.config.goals)
    report = ReportData(
        run_name=ctx.config.name,
        created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        edgeseg_version=__version__,
        machine={k: str(v) for k, v in describe_machine().to_json().items()},
        dataset=_dataset(ctx, data),
        training=_training(ctx, trained, final),
        pruning=_pruning(trained, final, pruning),
        float_reference=_float_facts(reference) if isinstance(reference, FloatReference) else instance_reporting.float_facts(reference),
        rows=tuple(rows),
        pictures=tuple(_pictures(ctx, data, reference, verified)) if isinstance(reference, FloatReference)
        else tuple(instance_reporting.object_pictures(data, reference, verified)),
        goals=tuple(goals),
        not_verified=tuple(_not_verified(rows, data, measured, there)),
        versions=_versions(final, verified, measured),
        parity=tuple(climbed_ladders(ctx.folder, {one.bundle.bundle.manifest.sha256 for one in verified})),
        config_toml=(ctx.folder / "edgeseg.toml").read_text(encoding="utf-8").replace(str(data.dataset.root), data.dataset.root.name),
        settings={**_decision(reference, data), **_settings(verified)},
        ladders=_ladders(verified),
        calibration=_calibration(verified),
    )
    write_json(ctx.folder / "results.json", results_json(rows))
    write_json(
        ctx.folder / "summary.json",
        {
            "run": ctx.config.name,
            "passed": report.passed,
            "created_utc": report.created_utc,
            "undecided": report.undecided,
            "goals": [asdict(goal) for goal in goals],
            "pruning": report.pruning.verdict if report.pruning else None,
            "not_verified": list(report.not_verified),
        },
    )
    write_text(ctx.folder / "report.html", render_page(report))
    return Verdict(passed=report.passed, undecided=report.undecided)


def _float_facts(reference: FloatReference) -> FloatFacts:
    return FloatFacts(
        split=reference.reference.split,
        num_frames=reference.reference.num_frames,
        miou=reference.reference.miou,
        iou=reference.reference.iou,
        pixel_accuracy=reference.pixel_accuracy,
        mean_dice=reference.mean_dice,
        dice=reference.dice,
        mean_boundary_f1=reference.mean_boundary_f1,
        boundary_f1=reference.boundary_f1,
        confusion=reference.confusion,
    )


def _accuracy(verified: Verified, reference: FloatReference) -> dict[str, Any]:
    """Fields of a row that say how accurate a bundle is."""
    result = verified.result
    return {
        "miou": result["miou"],
        "miou_float": reference.reference.miou,
        "iou": verified.iou,
        "worst_class": verified.worst_class,
        "worst_class_drop": result["worst_class_drop"],
        **_intervals(verified),
        "agreement": result["agreement"],
        "pixel_accuracy": result["pixel_accuracy"],
        "mean_dice": result["mean_dice"],
        "dice": tuple(result["dice"].values()),
        "mean_boundary_f1": result["mean_boundary_f1"],
        "boundary_f1": tuple(result["boundary_f1"].values()),
        "confusion": tuple(tuple(row) for row in result["confusion"]),
    }


def _intervals(verified: Verified) -> dict[str, Any]:
    """Fields of a row that say how sure its drops are."""

    def ends(interval: dict[str, Any] | None) -> tuple[float, float] | None:
        return None if interval is None or interval["low"] is None else (interval["low"], interval["high"])

    found, worst = verified.result["intervals"], verified.worst_class
    return {
        "drop_interval": ends(found["miou_drop"]),
        "worst_class_interval": None if worst is None else ends(found["class_drop"][worst]),
        "class_drop_intervals": tuple(ends(one) for one in found["class_drop"].values()),
    }


def _row(one: Measured, here: Verified, there: There | None, reference: FloatReference | FloatInstances) -> ResultRow:
    """A row of results; where its target has a device, of what was verified there, and of nothing else."""
    manifest = one.bundle.bundle.manifest
    place, verified = (HERE, here) if there is None else (there.place, there.verified)
    runtime = here.runtime if verified is None else verified.runtime
    base = ResultRow(
        target=one.target,
        bundle=manifest.name,
        bundle_sha256=manifest.sha256,
        format=manifest.format,
        precision=manifest.precision,
        arithmetic=one.bundle.precision_hint or find_target(one.target).arithmetic,
        runtime=runtime,
        runtime_version=str(place.version(runtime) or NOT_AVAILABLE),
        device=place.address,
        measured_on="not measured",
        is_target_machine=False,
        quick=False,
        threads=0,
        size_bytes=one.bundle.bundle.size_bytes,
        task=manifest.contract.task,
        failed_goals=() if verified is None else verified.failed,
        undecided_goals=() if verified is None else verified.undecided,
        **_how_accurate(verified, reference),
    )
    bench = one.result
    if bench is None:
        return base
    return replace(
        base,
        **_executed(bench.get("executed"), manifest.precision),
        runtime=bench["runtime"],
        runtime_version=bench["versions"].get(bench["runtime"], base.runtime_version),
        measured_on=bench["machine"]["cpu"],
        is_target_machine=bench["is_target"],
        quick=bench["quick"],
        threads=bench["num_threads"],
        settings=bench["settings"],
        p50_ms=bench["inference"]["p50_ms"],
        p90_ms=bench["inference"]["p90_ms"],
        p99_ms=bench["inference"]["p99_ms"],
        fps=bench["inference"]["fps"],
        peak_rss_bytes=bench["peak_rss_bytes"],
        load_ms=bench["load_ms"],
        decode_ms=bench["decode"]["p50_ms"],
        resize_ms=bench["resize"]["p50_ms"],
        inference_ms=bench["inference"]["p50_ms"],
        resize_back_ms=bench["resize_back"]["p50_ms"],
        end_to_end_ms=bench["end_to_end"]["p50_ms"],
        speedup_vs_fp32=_ratio(one.speedup),
        speedup_vs_own_float=_ratio(one.own_speedup),
        circumstances=circumstances(bench),
    )


def _how_accurate(verified: Verified | None, reference: FloatReference | FloatInstances) -> dict[str, Any]:
    """Fields of a row that say how accurate a bundle is; empty = it was not verified at its place."""
    if verified is None:
        return {}
    found = instance_reporting.accuracy(verified, reference) if isinstance(reference, FloatInstances) else _accuracy(verified, reference)
    return {key: value for key, value in found.items() if key != "task"}


def _ratio(found: dict[str, Any] | None) -> Ratio | None:
    return None if found is None else Ratio(value=found["ratio"], low=found["low"], high=found["high"])


def _executed(found: dict[str, Any] | None, precision: str) -> dict[str, Any]:
    """Fields of a row that say what of a reduced bundle runs in int8."""
    if found is None or precision in ("fp32", "fp16"):
        return {}
    layers = (FloatLayer(**{key: one[key] for key in ("name", "kind", "precision", "share", "reason")}) for one in found["not_int8"])
    return {"int8_share": found["share_int8"], "int8_source": found["source"], "not_int8": tuple(layers)}


def _dataset(ctx: RunContext, data: RunData) -> DatasetFacts:
    found = read_json(ctx.folder / "data.json")
    dataset = data.dataset
    return DatasetFacts(
        name=dataset.name,
        root=dataset.root.name,
        sha256=dataset.sha256,
        classes=dataset.classes,
        palette=dataset.palette,
        counts={split: len(samples) for split, samples in dataset.splits.items()},
        pixel_shares={split: tuple(shares) for split, shares in found["class_share"].items()},
        split_rule=dataset.split_rule,
        warnings=tuple(f"{w['file']}: {w['message']}" for w in found["warnings"]),
    )


def _training(ctx: RunContext, trained: StepResult, final: StepResult) -> TrainingFacts:
    from edgeseg.models import count_macs, count_parameters
    from edgeseg.training.checkpoint import load_checkpoint

    net, _ = load_checkpoint(final.output)
    history = read_json(trained.output / "history.json")
    return TrainingFacts(
        network=ctx.config.model.title,
        params=count_parameters(net),
        macs=count_macs(net, ctx.config.data.size),
        size_hw=ctx.config.data.size,
        epochs=len(history["epochs"]),
        minutes=trained.seconds / 60,
        best_val_score=read_json(final.output / "history.json")["best_score"],
        metric=history["metric"],
        curve=tuple(CurvePoint(epoch=int(e["epoch"]), loss=e["loss"], score=e["score"]) for e in history["epochs"]),
        device=history["device"],
        precision=history["precision"],
        seed=ctx.config.train.seed,
    )


def _pruning(trained: StepResult, final: StepResult, gain: dict[str, Any] | None) -> PruningFacts | None:
    if gain is None:
        return None
    cut = read_json(final.output / "prune.json")
    before, after = (read_json(s.output / "history.json")["best_score"] for s in (trained, final))
    verdict = gain_words(gain, cut)
    return PruningFacts(
        params_before=cut["params_before"],
        params_after=cut["params_after"],
        macs_before=cut["macs_before"],
        macs_after=cut["macs_after"],
        latency_before_ms=gain["a_p50_ms"],
        latency_after_ms=gain["b_p50_ms"],
        miou_before=before,
        miou_after=after,
        verdict=verdict,
        latency_where=f"{gain['format']} {gain['precision']} in {gain['runtime']}, settings of {gain['target']}, on {gain['measured_on']}",
        method=method_words(cut),
        layers=tuple((row["layer"], row["before"], row["after"]) for row in cut["channels"] if row["after"] != row["before"]),
    )


def _pictures(ctx: RunContext, data: RunData, reference: FloatReference, verified: list[Verified]) -> list[Picture]:
    """The frames on which the reduced bundles differ most from the float network, worst first."""
    reduced = [v for v in verified if v.bundle.bundle.manifest.precision != "fp32"] or verified
    store, contract, samples = data.store(data.eval_split), contract_of(ctx.config), data.dataset.splits[data.eval_split]
    lowest = sorted(range(len(samples)), key=lambda i: (min(v.frame_agreement[i] for v in reduced), i))[:_NUM_PICTURES]
    float_maps = reference.class_maps()
    sessions = {}
    for one in reduced:
        manifest = one.bundle.bundle.manifest
        how = plan("host", manifest.format, manifest.precision, precision_hint=one.bundle.arithmetic)
        sessions[one.bundle.name] = open_session(one.bundle.bundle, how.runtime, how.options)
    pictures = []
    for i in lowest:
        frame, label = store[i]
        height, width = label.shape
        placement = contract.place((height, width))
        inputs = to_model(frame, placement)
        scale = min(1.0, _PICTURE_SIDE / max(height, width))
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        maps = {
            name: resize_class_map(to_frame([as_class_map(session.run(part)) for part in inputs], placement), h, w)
            for name, session in sessions.items()
        }
        float_map: ClassMap = to_frame(float_maps[i], placement)
        agreement = min(v.frame_agreement[i] for v in reduced)
        pictures.append(
            Picture(
                id=samples[i].id,
                frame=resize_frame(frame, h, w),
                label=resize_class_map(label, h, w),
                float_map=resize_class_map(float_map, h, w),
                bundle_maps=maps,
                note=f"lowest agreement with the float network: {agreement:.2%} of pixels",
            )
        )
    for session in sessions.values():
        session.close()
    return pictures


def _not_verified(rows: list[ResultRow], data: RunData, measured: list[Measured], there: list[There]) -> list[str]:
    notes = []
    elsewhere = [row for row in rows if row.p50_ms is not None and not row.is_target_machine]
    for device in sorted({row.device for row in elsewhere}):
        names = ", ".join(sorted({row.target for row in elsewhere if row.device == device}))
        where = "this machine" if device == HERE.address else device
        notes.append(f"Speed for {names} was measured on {where}, which is not that target; the order may differ on the board.")
    notes += sorted({_sentence(f"{one.target}: {one.words} was not verified: {one.why_not}") for one in there if one.verified is None})
    unmeasured = [one for one in measured if one.result is None]
    notes += sorted({_sentence(f"{one.target}: {one.bundle.name} was not measured: {one.why_not}") for one in unmeasured})
    if any(row.quick for row in rows):
        notes.append(
            "Times are from a quick measurement (at least 50 frames and 1 s); [bench] quick = false measures 1024 frames and 60 s."
        )
    if data.eval_split == "val":
        notes.append("Accuracy is on the val split, which also chose the checkpoint: it is optimistic.")
    absent = sorted(
        {
            name
            for row in rows
            for name, value in list(zip(data.dataset.classes, row.main_of_classes, strict=False))[row.task == "instance" :]
            if value is None
        }
    )
    if absent:
        unit = "object" if any(row.task == "instance" for row in rows) else "pixel"
        notes.append(f"Not evaluated, since the {data.eval_split} split has no {unit} of it: {', '.join(absent)}.")
    return [*notes, *_not_available(rows)]


def _not_available(rows: list[ResultRow]) -> list[str]:
    """What no measurement on a device could see, device by device."""
    measured = [row for row in rows if row.p50_ms is not None]
    notes = []
    for device in sorted({row.device for row in measured}):
        seen = [row.circumstances for row in measured if row.device == device and row.circumstances is not None]
        degrees = [value for one in seen for series in one.series if series.unit == "c" for _, value in series.points]
        there = {
            "energy": any(one.energy_per_frame_j is not None for one in seen),
            "temperature": any(value is not None for value in degrees),
            "whether it held its speed": any(one.throttling != NOT_AVAILABLE for one in seen),
        }
        absent = ", ".join(what for what, found in there.items() if not found)
        if absent:
            notes.append(f"Not available on {'this machine' if device == HERE.address else device}: {absent}.")
    return notes


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _decision(reference: FloatReference | FloatInstances, data: RunData) -> dict[str, str]:
    contract = reference.contract
    if contract.decision == "argmax":
        return {"decision": "argmax"}
    given = (1 - contract.threshold, contract.threshold) if contract.threshold is not None else contract.thresholds or ()
    return {"decision": "thresholds, " + ", ".join(f"{name} {t:.4g}" for name, t in zip(data.dataset.classes, given, strict=True))}


def _ladders(verified: list[Verified]) -> tuple[LadderFacts, ...]:
    """How each int8 bundle was made, from its manifest."""
    manifests = [one.bundle.bundle.manifest for one in verified]
    climbed = [(manifest.name, manifest.scheme["ladder"]) for manifest in manifests if manifest.scheme.get("ladder")]
    return tuple(ladder_facts(name, ladder, "" if ladder["reached"] else unmet_words(ladder)) for name, ladder in climbed)


def _calibration(verified: list[Verified]) -> dict[str, Any]:
    """Which frames calibrated; the same for every format."""
    found = (one.bundle.bundle.manifest.scheme.get("calibration") for one in verified)
    return next((dict(one) for one in found if isinstance(one, dict) and "covers" in one), {})


def _settings(verified: list[Verified]) -> dict[str, str]:
    found = {}
    for one in verified:
        calibration = one.bundle.bundle.manifest.scheme.get("calibration")
        if isinstance(calibration, dict):
            found[f"calibration of {one.bundle.name}"] = (
                f"{calibration['num_frames']} training frames, ids {calibration['ids_sha256'][:12]}"
                + (f", {words}" if (words := covers_words(calibration)) else "")
            )
    return found


def _versions(final: StepResult, verified: list[Verified], measured: list[Measured]) -> dict[str, str]:
    """What made these results, from the records of what was made: an upgrade since then does not rewrite history."""
    made = [read_json(final.output / "checkpoint.json")["tools"]]
    made += [one.bundle.bundle.manifest.tools for one in verified]
    made += [one.result["versions"] for one in measured if one.result is not None]
    found: dict[str, set[str]] = {"edgeseg": {__version__}}
    for record in made:
        for name, version in record.items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(numbers)) for name, numbers in found.items()}
