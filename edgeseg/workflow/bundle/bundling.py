"""From the float checkpoint to sealed bundles: export, quantize, and the golden answers that the bundle itself gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, open_bundle, seal_bundle
from edgeseg.core.files import sha256_json
from edgeseg.core.images import Frame
from edgeseg.core.instances import Answer
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract, Parent
from edgeseg.workflow.bundle.pictures import spread
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.instance_reference import FloatInstances
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.learn.reference import FloatReference, model_inputs
from edgeseg.workflow.learn.teaching import learning_values
from edgeseg.workflow.steps import StepResult, tools
from targets.boards import find_target, plan
from targets.runtimes import RUNTIMES, open_session, own_arithmetic

EXPORT_TOOLS: Final = {
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("torch", "openvino"),
    "tflite": ("torch", "litert-torch", "ai-edge-litert"),
    "tensorrt": ("torch", "onnx", "onnxscript", "onnxruntime"),
}
QUANTIZE_TOOLS: Final = {
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("openvino", "nncf"),
    "tflite": ("ai-edge-quantizer", "ai-edge-litert"),
    "tensorrt": ("onnx", "onnxruntime"),
}
"""What makes a bundle of each format and answers its golden frames; another version makes it again."""


@dataclass(frozen=True)
class SealedBundle:
    """A bundle of this run and the step that made it."""

    step: StepResult
    bundle: Bundle
    arithmetic: str = "f32"
    """What its float parts are computed in; other than f32 = the same bundle once more, with the runtime's own choice (`own_float`)."""

    @property
    def name(self) -> str:
        """Name of the bundle: RUN-FORMAT-PRECISION, and the arithmetic where it is not f32."""
        return self.bundle.manifest.name + ("" if self.arithmetic == "f32" else f"-{self.arithmetic}")

    @property
    def precision_hint(self) -> str:
        """What a plan is asked for; empty = the target's own, which is f32 where it has that."""
        return "" if self.arithmetic == "f32" else self.arithmetic

    @property
    def float_twin(self) -> bool:
        """Whether it is what others of its format are compared with: fp32, computed in f32."""
        return self.bundle.manifest.precision == "fp32" and self.arithmetic == "f32"


def export_all(ctx: RunContext, data: RunData, checkpoint: StepResult, reference: FloatReference | FloatInstances) -> list[SealedBundle]:
    """One fp32 bundle a format of `[export] formats`."""
    return [_export(ctx, data, checkpoint, reference, format_) for format_ in ctx.config.export.formats]


def quantize_all(ctx: RunContext, data: RunData, floats: list[SealedBundle], final: StepResult | None = None) -> list[SealedBundle]:
    """One int8 bundle for each fp32 bundle, or a mixed one where int8 alone misses the goals; see `edgeseg.workflow.compress.rescue`.

    `final` = the checkpoint they are of, for the rung that trains; without it that rung is left out.
    """
    from edgeseg.workflow.compress.rescue import choose_frames, quantize  # which seals with what stands here

    if not ctx.config.quantize.int8:
        return []
    chosen = choose_frames(ctx, data)
    return [quantize(ctx, data, parent, final, chosen) for parent in floats]


def own_float(ctx: RunContext, floats: list[SealedBundle]) -> list[SealedBundle]:
    """The fp32 bundles once more where their runtime, left alone, would compute in bf16 or f16 here: what int8 has to beat.

    Only where speed is measured for a target that runs the format on the CPU, and for class maps: boxes are not computed in 8 bits of
    mantissa.
    """
    found = []
    for one in floats:
        manifest = one.bundle.manifest
        ways = [target for target in map(find_target, ctx.config.targets) if manifest.format in target.formats]
        if manifest.contract.task != "semantic" or not ways:
            continue
        arithmetic = own_arithmetic(plan("host", manifest.format, manifest.precision).runtime)
        if arithmetic != "f32":
            found.append(replace(one, arithmetic=arithmetic))
    return found


def _export(
    ctx: RunContext, data: RunData, checkpoint: StepResult, reference: FloatReference | FloatInstances, format_: str
) -> SealedBundle:
    contract = reference.contract
    info = BundleInfo(
        name=f"{ctx.config.name}-{format_}-fp32",
        contract=contract,
        classes=data.dataset.classes,
        palette=data.dataset.palette,
        reference=reference.reference,
        parents=(Parent(kind="checkpoint", sha256=checkpoint.sha256),),
        config_sha256=_config_sha256(ctx),
    )
    key = {
        "version": 1,
        "format": format_,
        "checkpoint": checkpoint.sha256,
        "reference": reference.step.sha256,
        "palette": [list(colour) for colour in data.dataset.palette],
        "name": info.name,
        "golden": ctx.config.export.golden_frames,
        "config": info.config_sha256,
        "tools": tools(*EXPORT_TOOLS[format_]),
    }

    def make(output: Path) -> None:
        with tempfile.TemporaryDirectory(dir=work_folder(ctx), prefix=".export-", suffix=".tmp") as work:
            model = export_model(checkpoint.output, contract, format_, Path(work))
            seal_bundle(output, model, info, golden_frames=golden_frames(ctx, data, contract), answer=own_answer)

    step = ctx.steps.do(f"export-{format_}", kind="export", key=key, output=ctx.folder / "bundles" / info.name, make=make)
    return SealedBundle(step, open_bundle(step.output))


def export_model(checkpoint: Path, contract: Contract, format_: str, work: Path) -> ModelFiles:
    """Load a checkpoint and export it to one format in `work`."""
    require("torch", extra="export")
    from edgeseg.training.checkpoint import load_checkpoint
    from exporters import EXPORTERS

    net, _ = load_checkpoint(checkpoint)
    return EXPORTERS[format_](net, contract, work)


def golden_frames(ctx: RunContext, data: RunData, contract: Contract) -> list[Frame]:
    """Validation frames spread evenly over the split, at model size (the first tile of each, where the policy is `tile`)."""
    total, wanted = len(data.dataset.splits["val"]), ctx.config.export.golden_frames
    return [model_inputs(data, "val", contract, [i])[0] for i in spread(total, wanted)]


def own_answer(bundle: Bundle) -> tuple[str, Callable[[Frame], Answer]]:
    """Open a bundle in this host's runtime for its format: the runtime's name with version, and frame -> answer."""
    name, options = plan("host", bundle.manifest.format, bundle.manifest.precision)
    session = open_session(bundle, name, options)
    return f"{name} {RUNTIMES[name].version()}", session.run


def work_folder(ctx: RunContext) -> Path:
    """The run's folder for what is not finished yet; it exists."""
    ctx.work.mkdir(parents=True, exist_ok=True)
    return ctx.work


def _config_sha256(ctx: RunContext) -> str:
    """Hash of what shapes a float model: goals, targets, quantizing and measuring do not, so changing them keeps the fp32 bundles."""
    values = asdict(ctx.config)
    for section in ("goals", "targets", "quantize", "bench", "search", "name"):
        values.pop(section)
    values["data"].pop("dir")
    values["data"].pop("resizer")
    values["data"] |= ctx.config.data.resizer_key
    values["model"] = asdict(ctx.config.model.portable)
    values["train"] = learning_values(ctx.config.train)
    return sha256_json(values)
