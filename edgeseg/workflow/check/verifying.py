"""Every bundle against torch on the same frames, against the labels, and against its own golden answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.core.files import read_json, write_json
from edgeseg.core.images import ClassMap, Frame
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.learn.reference import FloatReference
from edgeseg.workflow.places import HERE, Place
from targets.boards import Plan
from targets.judging import Finding, judge_accuracy
from targets.verify import verify as verify_session


@dataclass(frozen=True)
class Verified:
    """A bundle with what `verify` found (`VerifyResult.to_json()`), judged against the goals."""

    bundle: SealedBundle
    runtime: str
    result: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the goals missed."""
        return tuple(finding.goal for finding in self.findings if not finding.passed and not finding.undecided)

    @property
    def undecided(self) -> tuple[str, ...]:
        """Names of those that are neither reached nor missed."""
        return tuple(finding.goal for finding in self.findings if finding.undecided)

    @property
    def iou(self) -> tuple[float | None, ...]:
        """IoU in class order."""
        return tuple(self.result["iou"].values())

    @property
    def worst_class(self) -> str | None:
        """The class that lost most against the float checkpoint."""
        drops = {name: drop for name, drop in self.result["class_drop"].items() if drop is not None}
        return max(drops, key=lambda name: drops[name]) if drops else None

    @property
    def frame_agreement(self) -> list[float]:
        """Agreement with torch, frame by frame."""
        return [frame["agreement"] for frame in self.result["frames"]]

    def to_json(self) -> dict[str, Any]:
        """Give the result and the findings as JSON values."""
        return {**self.result, "runtime": self.runtime, "goals": [finding.to_json() for finding in self.findings]}


def verify(
    ctx: RunContext, data: RunData, bundle: SealedBundle, reference: FloatReference, *, place: Place = HERE, target: str = "host",
) -> Verified:
    """Run a bundle over the evaluation split, in the runtime a place has for its format."""
    manifest = bundle.bundle.manifest
    how = place.plan(target, manifest, precision_hint=bundle.precision_hint)
    store, samples = data.store, data.dataset.splits[data.eval_split]

    def make_result() -> dict[str, Any]:
        frames = store(data.eval_split)

        def labelled() -> Iterator[tuple[str, Frame, ClassMap]]:
            for i, sample in enumerate(samples):
                frame, label = frames[i]
                yield sample.id, frame, label

        with place.session(bundle.bundle, [sample.image for sample in samples], target=target, how=how, ui=ctx.ui) as session:
            return verify_session(
                session,
                bundle.bundle,
                labelled(),
                reference_maps=reference.class_maps(),
                reference_NCC=reference.confusions(),
                dataset_sha256=data.dataset.sha256,
                split=data.eval_split,
                on_frame=lambda done: ctx.ui.progress(f"verifying {bundle.name}", done, len(samples)),
            ).to_json()

    key = {
        "version": 3,
        "bundle": bundle.step.sha256,
        "reference": reference.step.sha256,
        "dataset": data.dataset.sha256,
        "split": data.eval_split,
        "runtime": how.runtime,
        "runtime_version": place.version(how.runtime),
        "processor": place.machine.cpu,
        **place_of(place, target, how),
        **({} if bundle.arithmetic == "f32" else {"arithmetic": bundle.arithmetic}),
    }
    kind = "export" if manifest.precision == "fp32" else "quantize"
    step = ctx.steps.do(
        f"verify-{bundle.name}{on(place, target)}",
        kind=kind,
        key=key,
        output=ctx.folder / "verify" / f"{bundle.name}{on(place, target)}.json",
        make=lambda output: write_json(output, make_result()),
    )
    result = read_json(step.output)
    findings = judge_accuracy(
        precision=manifest.precision,
        golden_agreement=result["golden_agreement"],
        agreement=result["agreement"],
        miou=result["miou"],
        miou_drop=result["miou_drop"],
        worst_class_drop=result["worst_class_drop"],
        goals=ctx.config.goals,
        intervals=result["intervals"],
    )
    if how.options.precision_hint != "f32":  # of which both are; bf16 moves up to 1.5 % of pixels, golden allows 0.1 %; `recommend` says it
        findings = tuple(finding for finding in findings if finding.goal not in ("golden", "agreement"))
    verified = Verified(bundle, how.runtime, result, findings)
    ctx.ui.say(("" if place.is_here else f"{place.label}: ") + summary_line(verified))
    return verified


def on(place: Place, target: str) -> str:
    """What tells a step done on the device of a target from the same one done here."""
    return "" if place.is_here else f"-on-{target}"


def place_of(place: Place, target: str, how: Plan) -> dict[str, Any]:
    """What makes a result from a device another one; empty for this machine."""
    return {} if place.is_here else {"target": target, "options": asdict(how.options), **place.key}


def summary_line(one: Verified) -> str:
    """One line: mIoU, Dice, boundary F1, drop, worst class, agreement, goals."""
    result = one.result
    parts = [f"{one.bundle.name}: mIoU {result['miou']:.4f}, Dice {result['mean_dice']:.4f}, boundary F1 {result['mean_boundary_f1']:.4f}"]
    if result["miou_drop"] is not None:
        parts.append(f"drop {result['miou_drop']:+.4f}{interval_words(result['intervals']['miou_drop'])}")
        parts.append(f"worst class {one.worst_class} {result['worst_class_drop']:+.4f}")
    if result["agreement"] is not None:
        parts.append(f"{result['agreement']:.3%} of pixels as torch")
    return ", ".join([*parts, *goal_parts(one)])


def interval_words(interval: dict[str, Any] | None) -> str:
    """The 95 % interval behind a drop: ` (+0.0012 to +0.0034)`, or nothing."""
    return "" if interval is None or interval["low"] is None else f" ({interval['low']:+.4f} to {interval['high']:+.4f})"


def goal_parts(one: Verified) -> list[str]:
    """Which goals are missed and which are not decided."""
    parts = [f"misses {', '.join(one.failed)}"] if one.failed else []
    parts += [f"{f.goal} not decided ({f.about})" for f in one.findings if f.undecided]
    return parts or ["goals met"]


def class_lines(one: Verified) -> list[str]:
    """IoU class by class, before and after."""
    drops = one.result["class_drop"]
    lines = []
    for name, after in one.result["iou"].items():
        if after is None:
            lines.append(f"  {name}: not evaluated (no pixel of it in the split)")
        elif drops[name] is None:
            lines.append(f"  {name}: {after:.4f}")
        else:
            lines.append(f"  {name}: {after + drops[name]:.4f} -> {after:.4f} ({-drops[name]:+.4f})")
    return lines
