"""An instance bundle against torch on the same frames, against the labelled objects, and against its own golden answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeseg.core.files import read_json, write_json
from edgeseg.core.images import Frame
from edgeseg.core.instances import InstanceLabel
from edgeseg.core.vendors import versions
from edgeseg.workflow.bundling import SealedBundle
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.instance_reference import FloatInstances
from edgeseg.workflow.learning import RunData
from edgeseg.workflow.verifying import Verified, goal_parts
from targets.boards import plan
from targets.judging import judge_accuracy
from targets.machine import describe_machine
from targets.runtimes import RUNTIMES, open_session
from targets.verify_instances import verify_instances


def verify(ctx: RunContext, data: RunData, bundle: SealedBundle, reference: FloatInstances) -> Verified:
    """Run a bundle in this host's runtime for its format over the evaluation split."""
    manifest = bundle.bundle.manifest
    how = plan("host", manifest.format, manifest.precision)
    samples = data.dataset.splits[data.eval_split]

    def make_result() -> dict[str, Any]:
        store = data.learnt_from(data.eval_split, "instance")

        def labelled() -> Iterator[tuple[str, Frame, InstanceLabel]]:
            for i, sample in enumerate(samples):
                frame, label = store[i]
                yield sample.id, frame, label

        session = open_session(bundle.bundle, how.runtime, how.options)
        try:
            return verify_instances(
                session, bundle.bundle, labelled(), reference=reference.answers(), dataset_sha256=data.dataset.sha256,
                split=data.eval_split, on_frame=lambda done: ctx.ui.progress(f"verifying {bundle.name}", done, len(samples)),
            ).to_json()
        finally:
            session.close()

    key = {
        "version": 1,
        "task": "instance",
        "bundle": bundle.step.sha256,
        "reference": reference.step.sha256,
        "dataset": data.dataset.sha256,
        "split": data.eval_split,
        "runtime": how.runtime,
        "runtime_version": RUNTIMES[how.runtime].version(),
        "processor": describe_machine().cpu,
        "tools": versions("pycocotools"),
    }
    step = ctx.steps.do(
        f"verify-{bundle.name}",
        kind="export" if manifest.precision == "fp32" else "quantize",
        key=key,
        output=ctx.folder / "verify" / f"{bundle.name}.json",
        make=lambda output: write_json(output, make_result()),
    )
    result = read_json(step.output)
    findings = judge_accuracy(
        precision=manifest.precision, golden_agreement=result["golden_agreement"], agreement=result["agreement"], miou=None, miou_drop=None,
        worst_class_drop=result["worst_class_drop"], goals=ctx.config.goals, task="instance", ap=result["ap"], ap50=result["ap50"],
        ap_drop=result["ap_drop"],
    )
    verified = Verified(bundle, how.runtime, result, findings)
    ctx.ui.say(summary_line(verified))
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
