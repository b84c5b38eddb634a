"""In an int8 TFLite file the layers that make class scores are really float, whatever they are called; all other convolutions are int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseg.core.bundle import BundleInfo, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.manifest import Contract
from edgeseg.models import build
from exporters import EXPORTERS
from quantization import QUANTIZERS

NUM_CLASSES = 7
"""No other layer of these networks has as many outputs."""
CONTRACT = Contract(height=64, width=96)


class OneOfTheUsers(nn.Module):
    """As `[model] factory` may give: names of its own, and scores that are enlarged by itself."""

    def __init__(self, *, linear: bool) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1)
        self.to_classes: nn.Module = nn.Linear(12, NUM_CLASSES) if linear else nn.Conv2d(12, NUM_CLASSES, 1)
        self.linear = linear

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y = torch.relu(self.body(torch.relu(self.stem(x_NCHW))))
        if self.linear:
            scores: Tensor = self.to_classes(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return scores
        return nn.functional.interpolate(self.to_classes(y), (32, 48), mode="bilinear")


def network(name: str) -> tuple[nn.Module, int]:
    """The network, and how many layers make its scores."""
    if name.startswith("factory"):
        torch.manual_seed(3)
        return OneOfTheUsers(linear=name == "factory, linear").eval(), 1
    sections = {
        "lraspp": ModelSection(name="lraspp_mobilenet_v3_small", width=0.25),
        "fcn8s": ModelSection(name="fcn8s", encoder="mobilenet_v2", width=0.25),
        "unet": ModelSection(name="unet", width=0.125, depth=2),  # at full size: the head's first product is fused into the class layer
    }
    net = build(sections[name], NUM_CLASSES, seed=2).eval()
    return net, len(net.class_layers)  # type: ignore[arg-type]


def weights_of(path: Path) -> list[tuple[int, bool]]:
    """Outputs of each layer with weights, and whether it is float; the products of the head's enlarging are left out."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    codes, graph, found = schema.BuiltinOperator, model.subgraphs[0], []
    weight_of = {codes.CONV_2D: (1, 0), codes.DEPTHWISE_CONV_2D: (1, 3), codes.TRANSPOSE_CONV: (1, 0), codes.FULLY_CONNECTED: (1, 0)}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        place = weight_of.get(max(code.builtinCode, code.deprecatedBuiltinCode))
        parts = [part for output in operator.outputs for part in graph.tensors[output].name.decode().split(";;")]
        if place is not None and not all("/exporters.head." in part for part in parts):
            weight = graph.tensors[operator.inputs[place[0]]]
            found.append((int(weight.shape[place[1]]), weight.type == schema.TensorType.FLOAT32))
    return found


@pytest.mark.parametrize("name", ["lraspp", "fcn8s", "unet", "factory", "factory, linear"])
def test_class_layers_are_float_and_all_others_int8(name: str, tmp_path: Path) -> None:
    net, expected = network(name)
    for folder in ("fp32", "int8"):
        (tmp_path / folder).mkdir()
    info = BundleInfo(
        name="b", contract=CONTRACT, classes=tuple(f"class{i}" for i in range(NUM_CLASSES)), palette=((0, 0, 0),) * NUM_CLASSES,
        reference=None, parents=(), config_sha256="0" * 64,
    )
    model = EXPORTERS["tflite"](net, CONTRACT, tmp_path / "fp32")
    bundle = seal_bundle(tmp_path / "b", model, info, golden_frames=[], answer=lambda _: ("none", lambda frame: frame[:, :, 0]))
    frames = [np.random.default_rng(i).integers(0, 256, (64, 96, 3), dtype=np.uint8) for i in range(2)]
    QUANTIZERS["tflite"](bundle, frames, tmp_path / "int8")
    layers = weights_of(tmp_path / "int8/model.tflite")
    assert [is_float for outputs, is_float in layers if outputs == NUM_CLASSES] == [True] * expected
    others = [is_float for outputs, is_float in layers if outputs != NUM_CLASSES]
    assert others
    assert not any(others)
