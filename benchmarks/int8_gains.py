"""What int8 gains in each runtime, kind of layer by kind: float32 time over int8 time of the layer alone, one thread.

    python -m benchmarks.int8_gains [--formats onnx openvino tflite] [--json FILE]

This is how `targets/executed/gains.py` was filled. A layer's time is the difference between two networks that have it four times and
once, in a row or (where it changes the size of its map) side by side; all networks of a format and precision take turns in one process
(`targets.measure.bench.sweep`, the least time counts). So a gain holds what lies between int8 layers, too: ranges brought from one scale
to the next, and whatever form the quantizers give a layer (average pooling).
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.core.bundle import Bundle, BundleInfo, seal_bundle
from edgeseg.core.files import write_json
from edgeseg.core.images import Frame
from edgeseg.core.manifest import Contract
from edgeseg.core.vendors import quiet, versions
from edgeseg.models import Network
from edgeseg.models.blocks import initialise
from edgeseg.workflow.bundle.bundling import own_answer
from exporters import EXPORTERS
from quantization import QUANTIZERS
from targets.boards import plan
from targets.machine import describe_machine
from targets.measure.bench import sweep

CHANNELS: Final = 64
SIZE_HW: Final = (48, 64)
FEW: Final = 1
MANY: Final = 4
NOTHING: Final = 2e-3
"""Milliseconds: what takes less cannot be told from the clock."""
PACKAGES: Final = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")


def _same(kernel: int, groups: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, groups=groups), nn.ReLU())


IN_A_ROW: Final[dict[str, Callable[[], nn.Module]]] = {
    "convolution 1x1": lambda: _same(1),
    "convolution 3x3": lambda: _same(3),
    "depthwise 3x3": lambda: _same(3, CHANNELS),
    "depthwise 5x5": lambda: _same(5, CHANNELS),
    "average pooling": lambda: nn.AvgPool2d(3, 1, 1),
    "max pooling": lambda: nn.MaxPool2d(3, 1, 1),
    "hard-swish": nn.Hardswish,
}
SIDE_BY_SIDE: Final[dict[str, Callable[[], nn.Module]]] = {
    "convolution 3x3 of stride 2": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1),
    "transposed 2x2": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2),
    "bilinear enlarging by 2": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
}
"""Each of the outputs goes through a 1x1 convolution of its own, whose time is taken off."""


class Probe(Network):
    """Two scores a pixel, from `count` layers of one kind."""

    class_layers = ("scores",)

    def __init__(self, layers: list[nn.Module], *, in_a_row: bool) -> None:
        """Take the layers and how they stand."""
        super().__init__()
        self.lift = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), nn.ReLU())
        self.layers = nn.ModuleList(layers)
        self.in_a_row = in_a_row
        self.behind = nn.ModuleList(nn.Conv2d(CHANNELS, 8, 1) for _ in layers)
        self.scores = nn.Conv2d(CHANNELS if in_a_row else 8, 2, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            initialise(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Frames to scores."""
        x_NChw: Tensor = self.lift(x_NCHW)
        if self.in_a_row:
            for layer in self.layers:
                x_NChw = layer(x_NChw)
        else:
            x_NChw = torch.stack([behind(layer(x_NChw)) for layer, behind in zip(self.layers, self.behind, strict=True)]).sum(dim=0)
        scores: Tensor = self.scores(x_NChw)
        return scores


def pair(kind: str) -> tuple[Network, Network]:
    """The network with few and that with many layers of a kind."""
    make, in_a_row = (IN_A_ROW[kind], True) if kind in IN_A_ROW else (SIDE_BY_SIDE[kind], False)
    few, many = (Probe([make() for _ in range(count)], in_a_row=in_a_row).eval() for count in (FEW, MANY))
    return few, many


def sealed(net: Network, format: str, precision: str, folder: Path, frames: list[Frame]) -> Bundle:
    """A bundle of one network."""
    info = BundleInfo(name="layers", contract=Contract(height=SIZE_HW[0], width=SIZE_HW[1]), classes=("a", "b"),
                      palette=((0, 0, 0), (255, 255, 255)), reference=None, parents=(), config_sha256="")
    for work in (folder / "float", folder / "int8"):
        work.mkdir(parents=True)
    fp32 = seal_bundle(folder / "fp32", EXPORTERS[format](net, info.contract, folder / "float"), info, golden_frames=[], answer=own_answer)
    if precision == "fp32":
        return fp32
    return seal_bundle(folder / "q", QUANTIZERS[format](fp32, frames, folder / "int8"), info, golden_frames=[], answer=own_answer)


def layer_times(format: str, precision: str, folder: Path, frames: list[Frame]) -> dict[str, float]:
    """Milliseconds of one layer of each kind; of those side by side with the 1x1 convolution behind it."""
    kinds = [*IN_A_ROW, *SIDE_BY_SIDE]
    with quiet():
        bundles = [
            sealed(net, format, precision, folder / f"{format}-{precision}-{kind.replace(' ', '-')}-{count}", frames)
            for kind in kinds for count, net in zip(("few", "many"), pair(kind), strict=True)
        ]
    ms = sweep(bundles, plan("host", format, precision, num_threads=1))
    return {kind: (ms[2 * i + 1] - ms[2 * i]) / (MANY - FEW) for i, kind in enumerate(kinds)}


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="*", default=list(EXPORTERS), choices=list(EXPORTERS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = np.random.Generator(np.random.Philox(0))
    frames = [rng.integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8) for _ in range(2)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for format in arguments.formats:
            times = {precision: layer_times(format, precision, Path(name), frames) for precision in ("fp32", "int8")}
            for kind, fp32_ms in times["fp32"].items():
                int8_ms = times["int8"][kind]
                gain = round(fp32_ms / int8_ms, 2) if min(fp32_ms, int8_ms) > NOTHING else None
                rows.append({"format": format, "runtime": plan("host", format, "int8").runtime, "kind": kind, "gain": gain,
                             "fp32_us": round(1e3 * fp32_ms, 1), "int8_us": round(1e3 * int8_ms, 1)})
                print(f"{format:9} {kind:28} fp32 {1e3 * fp32_ms:8.1f} us  int8 {1e3 * int8_ms:8.1f} us  "
                      f"{'too short to tell' if gain is None else f'{gain:.2f} times'}", flush=True)
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.int8_gains", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": versions(*PACKAGES), "threads": 1, "seed": 0, "channels": CHANNELS, "size_hw": list(SIZE_HW), "rows": rows,
        })


if __name__ == "__main__":
    main()
