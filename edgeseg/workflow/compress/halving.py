"""fp16 bundles: one for each fp32 bundle, where `[quantize] fp16` asks for them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeseg.core.bundle import BundleInfo, open_bundle, seal_bundle
from edgeseg.core.manifest import Parent
from edgeseg.workflow.bundle.bundling import QUANTIZE_TOOLS, SealedBundle, own_answer
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.steps import tools


def halve_all(ctx: RunContext, floats: list[SealedBundle]) -> list[SealedBundle]:
    """One fp16 bundle for each fp32 bundle; none unless asked for."""
    return [_halve(ctx, parent) for parent in floats] if ctx.config.quantize.fp16 else []


def _halve(ctx: RunContext, parent: SealedBundle) -> SealedBundle:
    manifest = parent.bundle.manifest
    info = BundleInfo(
        name=manifest.name.removesuffix("-fp32") + "-fp16", contract=manifest.contract, classes=manifest.classes, palette=manifest.palette,
        reference=manifest.reference, parents=(Parent(kind="bundle", sha256=manifest.sha256),), config_sha256=manifest.config_sha256,
    )
    key = {"version": 2, "parent": parent.step.sha256, "tools": tools(*QUANTIZE_TOOLS[manifest.format])}

    def make(output: Path) -> None:
        from quantization.fp16 import FP16

        ctx.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ctx.work, prefix=".halve-", suffix=".tmp") as work:
            model = FP16[manifest.format](parent.bundle, Path(work))
            seal_bundle(output, model, info, golden_frames=parent.bundle.golden_frames(), answer=own_answer)

    step = ctx.steps.do(f"fp16-{manifest.format}", kind="quantize", key=key, output=ctx.folder / "bundles" / info.name, make=make)
    return SealedBundle(step, open_bundle(step.output))
