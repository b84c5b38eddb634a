"""An instance bundle against torch on the same frames, against the labelled objects, and against its own golden answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeseg.core.files import read_json, write_json
from edgeseg.core.images import Frame
from edgeseg.core.instances import InstanceLabel
from edgeseg.core.vendors import versions
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.check.verifying import Verified, goal_parts, on, place_of
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.instance_reference import FloatInstances
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.places import HERE, Place
from targets.judging import judge_accuracy
from targets.verify_instances import verify_instances


def verify(
    ctx: RunContext, data: RunData, bundle: SealedBundle, reference: FloatInstances, *, place: Place = HERE, target: str = "host",
) -> Verified:
    """Run a bundle over the evaluation split, in the runtime a place has for its format."""
    manifest = bundle.bundle.manifest
    how = place.plan(target, manifest)
    samples = data.dataset.splits[data.eval_split]

    def make_result() -> dict[str, Any]:
        store = data.learnt_from(data.eval_split, "instance")

        def labelled() -> Iterator[tuple[str, Frame, InstanceLabel]]:
            for i, sample in enumerate(samples):
                frame, label = store[i]
                yield sample.id, frame, label

        with place.session(bundle.bundle, [sample.image for sample in samples], target=target, how=how, ui=ctx.ui) as session:
            return verify_instances(
                session, bundle.bundle, labelled(), reference=reference.answers(), dataset_sha256=data.dataset.sha256,
                split=data.eval_split, on_frame=lambda done: ctx.ui.progress(f"verifying {bundle.name}", done, len(samples)),
            ).to_json()

    key = {
        "version": 1,
        "task": "instance",
        "bundle": bundle.step.sha256,
        "reference": reference.step.sha256,
        "dataset": data.dataset.sha256,
        "split": data.eval_split,
        "runtime": how.runtime,
        "runtime_version": place.version(how.runtime),
        "processor": place.machine.cpu,
        **place_of(place, target, how),
        "tools": versions("pycocotools"),
    }
    step = ctx.steps.do(
        f"verify-{bundle.name}{on(place, target)}",
        kind="export" if manifest.precision == "fp32" else "quantize",
        key=key,
        output=ctx.folder / "verify" / f"{bundle.name}{on(place, target)}.json",
        make=lambda output: write_json(output, make_result()),
    )
    result = read_json(step.output)
    findings = judge_accuracy(
        precision=manifest.precision, golden_agreement=result["golden_agreement"], agreement=result["agreement"], miou=None, miou_drop=None,
        worst_class_drop=result["worst_class_drop"], goals=ctx.config.goals, task="instance", ap=result["ap"], ap50=result["ap50"],
        ap_drop=result["ap_drop"],
    )
    if how.options.precision_hint != "f32":  # both are of f32
        findings = tuple(finding for finding in findings if finding.goal not in ("golden", "agreement"))
    verified = Verified(bundle, how.runtime, result, findings)
    ctx.ui.say(("" if place.is_here else f"{place.label}: ") + summary_line(verified))
    return verified


def summary_line(one: Verified) -> str:
    """One line: AP, AP50, drop, worst class, agreement, goals."""
    result = one.result
    parts = [f"{one.bundle.name}: AP {result['ap']:.4f}, AP50 {result['ap50']:.4f}"]
    if result["ap_drop"] is not None:
        parts.append(f"drop {result['ap_drop']:+.4f}")
    if one.worst_class is not None:
        parts.append(f"worst class {one.worst_class} {result['worst_class_drop']:+.4f}")
    parts.append("torch and it find nothing" if result["agreement"] is None else f"{result['agreement']:.3%} of objects as torch")
    return ", ".join([*parts, *goal_parts(one)])


def class_lines(one: Verified) -> list[str]:
    """AP class by class, before and after."""
    drops = one.result["class_drop"]
    lines = []
    for name, after in list(one.result["class_ap"].items())[1:]:  # the first is background
        if after is None:
            lines.append(f"  {name}: not evaluated (no object of it in the split)")
        elif drops[name] is None:
            lines.append(f"  {name}: {after:.4f}")
        else:
            lines.append(f"  {name}: {after + drops[name]:.4f} -> {after:.4f} ({-drops[name]:+.4f})")
    return lines
