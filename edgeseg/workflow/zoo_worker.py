"""One network in one format, in a process of its own: `python -m edgeseg.workflow.zoo_worker`.

One line of JSON on stdin says what to examine. Findings are written to `result.json` after each stage, so that what was found before a
crash is kept. The process ends when its stdin does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.errors import EdgesegError
from edgeseg.core.files import write_json
from edgeseg.core.images import Frame, read_frame
from edgeseg.core.instance_metrics import Matches, match
from edgeseg.core.instances import Answer, Instances, from_outputs
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import agreement
from edgeseg.models import Network, build, count_macs, count_parameters, normalise
from edgeseg.training.evaluate import torch_predictor
from edgeseg.workflow.bundle.bundling import own_answer

NUM_TESTED: Final = 4
"""Frames, the last of those given, that answers are compared on; the others settle the norms and calibrate int8."""
_SETTLE_BATCH: Final = 4


def main() -> None:
    """Examine what stdin asks for; see `examine`."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    examine(request)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


def examine(request: dict[str, Any]) -> None:
    """Count, export, compare, quantize and compare again; `result.json` in `folder` holds what was found.

    Keys of `request`: `model` (fields of `[model]`), `format`, `size_hw`, `num_classes`, `frames` (files), `folder`. Keys of the result:
    `num_params`, `macs`, and for `fp32` and `int8` either `bundle`, `size_bytes`, `agreement` and `num_answered` (different classes, or
    objects), or `why_not`.
    """
    folder, format_ = Path(request["folder"]), str(request["format"])
    height, width = request["size_hw"]
    num_classes = int(request["num_classes"])
    section = ModelSection(**request["model"])
    contract = contract_of(section, (height, width))
    frames = [read_frame(Path(file)) for file in request["frames"]]
    learnt, tested = frames[:-NUM_TESTED], frames[-NUM_TESTED:]
    found: dict[str, Any] = {}

    def keep(**values: Any) -> None:  # noqa: ANN401 - JSON
        found.update(values)
        write_json(folder / "result.json", found)

    try:
        net = build(section, num_classes)
        settle(net, learnt, task=section.task)
    except EdgesegError as error:
        keep(why_not=str(error))
        return
    keep(num_params=count_parameters(net), macs=count_macs(net, (height, width)))
    expected = _torch_answers(net, contract, num_classes, tested)
    try:
        from exporters import EXPORTERS

        bundle = _seal(EXPORTERS[format_](net, contract, _made(folder / "fp32-model")), contract, num_classes, folder / "fp32", tested)
        keep(fp32=_compare(bundle, expected))
    except EdgesegError as error:
        keep(fp32={"why_not": str(error)})
        return
    try:
        from quantization import QUANTIZERS

        model = QUANTIZERS[format_](bundle, learnt, _made(folder / "int8-model"))
        keep(int8=_compare(_seal(model, contract, num_classes, folder / "int8", tested), expected))
    except EdgesegError as error:
        keep(int8={"why_not": str(error)})


def contract_of(section: ModelSection, size_hw: tuple[int, int]) -> Contract:
    """The contract of a network at a size."""
    height, width = size_hw
    if section.task == "instance":
        return Contract(height=height, width=width, task=section.task, max_instances=section.max_instances)
    return Contract(height=height, width=width)


def settle(net: nn.Module, frames: list[Frame], *, task: str = "semantic") -> None:
    """Give random weights the statistics of a network in use, in place; `net` ends in evaluation mode.

    Norms take mean and variance from `frames` (their plain average over batches), and each class's scores are brought to mean 0 and
    deviation 1 over the frames: else one class would win everywhere, and int8 would have ranges that no trained network has.
    """
    size = 1 if task == "instance" else _SETTLE_BATCH  # an instance network answers one frame at a time
    batches = [normalise(torch.from_numpy(np.stack(frames[i : i + size]))) for i in range(0, len(frames), size)]
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    net.eval()  # auxiliary heads and dropout stay off
    with torch.inference_mode():
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for batch in batches:
            net(batch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        net.eval()
        if isinstance(net, Network) and task == "semantic":
            _standardise(net, torch.cat([net(batch) for batch in batches]))


def _standardise(net: Network, scores_NChw: Tensor) -> None:
    """Scale and shift the class layers; scores are sums of theirs, so scaling all and shifting one is exact."""
    scale_C = 1 / scores_NChw.std(dim=(0, 2, 3)).clamp(min=1e-6)
    shift_C = -scores_NChw.mean(dim=(0, 2, 3)) * scale_C
    for index, name in enumerate(net.class_layers):
        layer = net.get_submodule(name)
        assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
        outputs_first = (-1, 1, 1, 1) if isinstance(layer, nn.Conv2d) else (1, -1, 1, 1)
        layer.weight.mul_(scale_C.view(outputs_first))
        if layer.bias is not None:
            layer.bias.mul_(scale_C).add_(shift_C if index == 0 else 0.0)


def _torch_answers(net: nn.Module, contract: Contract, num_classes: int, frames: list[Frame]) -> list[Answer]:
    if contract.task == "instance":
        from edgeseg.models.mask_rcnn.contract import InstanceContractModule

        module, answers = InstanceContractModule(net).eval(), list[Answer]()
        for frame in frames:
            with torch.inference_mode():
                detections_K6, masks_Khw = module(torch.from_numpy(np.array(frame)[None]))
            answers.append(from_outputs(detections_K6.numpy(), masks_Khw.numpy(), num_classes=num_classes))
        return answers
    predict = torch_predictor(net, contract)
    return [predict(frame) for frame in frames]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _seal(model: ModelFiles, contract: Contract, num_classes: int, target: Path, golden: list[Frame]) -> Bundle:
    """Seal the model; its golden answers are those that are compared."""
    info = BundleInfo(
        name=f"zoo-{model.format}-{model.precision}", contract=contract, classes=tuple(f"class{i}" for i in range(num_classes)),
        palette=tuple((i, i, i) for i in range(num_classes)), reference=None, parents=(), config_sha256="",
    )
    return seal_bundle(target, model, info, golden_frames=golden, answer=own_answer)


def _compare(bundle: Bundle, expected: list[Answer]) -> dict[str, Any]:
    shares, matches = [], Matches(same=0, total=0)
    classes: set[int] = set()
    for (_, answer), wanted in zip(bundle.golden_pairs(), expected, strict=True):
        if isinstance(answer, Instances):
            assert isinstance(wanted, Instances)
            matches += match(answer, wanted)
        else:
            assert not isinstance(wanted, Instances)
            shares.append(agreement(answer, wanted))
            classes |= set(np.unique(answer).tolist())
    return {
        "bundle": str(bundle.folder), "size_bytes": bundle.size_bytes, "agreement": float(np.mean(shares)) if shares else matches.share,
        "num_answered": len(classes) or matches.total,
    }


if __name__ == "__main__":
    main()
