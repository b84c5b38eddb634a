"""Export to OpenVINO IR, for Intel processors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME, Contract
from edgeseg.core.vendors import quiet, versions
from exporters.tasks import exportable


class OpenVinoExporter:
    """`model.xml` + `model.bin`, weights in float32 (the default would store float16 and change the answer)."""

    format = "openvino"

    def __call__(self, net: nn.Module, contract: Contract, workdir: Path) -> ModelFiles:
        """See `exporters.base.Exporter`."""
        ov = require("openvino", extra="export", converter=True)
        path = workdir / "model.xml"
        with vendor_errors("openvino"), quiet():
            module = exportable(net, contract, self.format)
            if _holds_keras(net):
                model = ov.convert_model(torch.export.export(module, module.example()))
                model.reshape({model.inputs[0]: list(module.frame_shape)})
            else:
                model = ov.convert_model(module, example_input=module.example(), input=[(module.frame_shape, ov.Type.u8)])
            model.inputs[0].get_tensor().set_names({INPUT_NAME})
            for port, name in zip(model.outputs, module.output_names, strict=True):
                port.get_tensor().set_names({name})
            model.inputs[0].get_node().set_friendly_name(INPUT_NAME)
            ov.save_model(model, path, compress_to_fp16=False)
        return ModelFiles(
            folder=workdir, files=(path.name, path.with_suffix(".bin").name), entry=path.name, format=self.format, precision="fp32",
            scheme={}, tools=versions("torch", "openvino"),
        )


def _holds_keras(net: nn.Module) -> bool:
    """Keras uses operators that OpenVINO's own tracer lacks (subtract); `torch.export` takes them apart."""
    return any(type(module).__module__.split(".")[0] == "keras" for module in net.modules())
