"""What an import costs over our own export of the same network: time in float and in int8, and what int8 keeps, in each runtime.

    python -m benchmarks.imports [--json FILE]

One Fast-SCNN (192x256, 3 classes, random weights whose norms are settled on the frames), exported by edgeseg, and exported plainly by each
framework's own tool and brought in by what `edgeseg import` runs: once with the mean of our own exports, whole numbers, which folds into
the first convolution where the format can, and once with ImageNet's, which stays in front, since that convolution is padded
(`exporters.imported.stem`). Each of the three becomes int8 by the format's own plan, calibrated on the same 8 frames.

Ratios are the time of an import over that of our own export, one thread, two ways: on noise, the ratio of the least times of all three,
which take turns in one process and are counted in the thread's own time (`targets.measure.bench.sweep`; the median, least and largest
ratio of several processes); and, on real frames, the median over interleaved blocks (ABBA) of wall-clock time with its 95 % interval
(`targets.measure.bench.compare`, quick). On a busy machine the second holds the waiting for the processor, which hides a difference or
makes one, so the first is judged.

Shares are of pixels of frames that nothing was calibrated on. Scores of random weights lie close together, so int8 moves many of them.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.core.bundle import Bundle, BundleInfo, open_bundle, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.errors import vendor_errors
from edgeseg.core.files import write_json
from edgeseg.core.images import ClassMap, Frame, read_frame
from edgeseg.core.instances import as_class_map
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import agreement
from edgeseg.core.vendors import quiet, versions
from edgeseg.data.synthetic import CLASSES, PALETTE, write_field
from edgeseg.models import MEAN_RGB, STD_RGB, build
from edgeseg.workflow.bundle.bundling import own_answer
from edgeseg.workflow.bundle.importing import ImportRequest, import_model
from edgeseg.workflow.ui import Silent
from edgeseg.workflow.zoo_worker import settle
from exporters import EXPORTERS
from quantization import QUANTIZERS
from targets.boards import plan
from targets.machine import describe_machine
from targets.measure.bench import compare, sweep

SIZE_HW: Final = (192, 256)
NUM_CALIBRATION: Final = 8
NUM_COMPARED: Final = 16
NUM_PROCESSES: Final = 7
IMAGENET: Final = (123.675, 116.28, 103.53)
MEANS: Final = (MEAN_RGB, IMAGENET)
FOLDED: Final = "in the first convolution"
"""What a manifest's `scheme.normalisation` says where the mean was folded."""
PACKAGES: Final = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")


class ChannelsLast(nn.Module):
    """Takes and gives NHWC, as TFLite models do."""

    def __init__(self, net: nn.Module) -> None:
        """Take the network."""
        super().__init__()
        self.net = net

    def forward(self, x_NHWC: Tensor) -> Tensor:
        """Normalised frames to scores [N, h, w, C]."""
        scores_NChw: Tensor = self.net(x_NHWC.permute(0, 3, 1, 2))
        return scores_NChw.permute(0, 2, 3, 1)


def plain_onnx(net: nn.Module, folder: Path) -> Path:
    """Export with torch."""
    path = folder / "model.onnx"
    torch.onnx.export(net, (torch.rand(1, 3, *SIZE_HW),), path, dynamo=True, verbose=False, external_data=False, opset_version=18)
    return path


def plain_openvino(net: nn.Module, folder: Path) -> Path:
    """Convert with OpenVINO; weights in float32, so that the float answers are those of our own export."""
    ov = require("openvino", extra="export", converter=True)
    path, example = folder / "model.xml", torch.rand(1, 3, *SIZE_HW)
    ov.save_model(ov.convert_model(net, example_input=example, input=[tuple(example.shape)]), path, compress_to_fp16=False)
    return path


def plain_tflite(net: nn.Module, folder: Path) -> Path:
    """Convert with litert-torch."""
    path = folder / "model.tflite"
    require("litert_torch", extra="export").convert(ChannelsLast(net).eval(), (torch.rand(1, *SIZE_HW, 3),)).export(str(path))
    return path


PLAIN: Final[dict[str, Callable[[nn.Module, Path], Path]]] = {"onnx": plain_onnx, "openvino": plain_openvino, "tflite": plain_tflite}


@dataclass(frozen=True)
class Both:
    """A float bundle and the int8 one made of it."""

    fp32: Bundle
    int8: Bundle


def with_int8(fp32: Bundle, info: BundleInfo, frames: Sequence[Frame]) -> Both:
    """Quantize as every bundle of the format is by default, beside the float bundle."""
    folder = fp32.folder.parent
    (folder / "int8.tmp").mkdir()
    with quiet():
        model = QUANTIZERS[fp32.manifest.format](fp32, frames, folder / "int8.tmp")
        return Both(fp32, seal_bundle(folder / "int8", model, info, golden_frames=[], answer=own_answer))


def own(net: nn.Module, format: str, info: BundleInfo, folder: Path, frames: Sequence[Frame]) -> Both:
    """What edgeseg exports."""
    (folder / "fp32.tmp").mkdir(parents=True)
    with quiet():
        model = EXPORTERS[format](net, info.contract, folder / "fp32.tmp")
        fp32 = seal_bundle(folder / "fp32", model, info, golden_frames=[], answer=own_answer)
    return with_int8(fp32, info, frames)


def imported(model: Path, mean: tuple[float, ...], info: BundleInfo, data: Path, folder: Path, frames: Sequence[Frame]) -> Both:
    """What edgeseg imports."""
    folder.mkdir()
    import_model(ImportRequest(model=model, out=folder / "fp32", data=data, mean=mean, scale=STD_RGB), ui=Silent())
    return with_int8(open_bundle(folder / "fp32"), info, frames)


def answers(bundle: Bundle, frames: Sequence[Frame]) -> list[ClassMap]:
    """Class maps of frames at model size."""
    _, run = own_answer(bundle)
    return [as_class_map(run(frame)).copy() for frame in frames]


def share(first: list[ClassMap], second: list[ClassMap]) -> float:
    """Share of pixels that both answer alike."""
    return float(np.mean([agreement(*pair) for pair in zip(first, second, strict=True)]))


def least_ratios(bundles: Sequence[Bundle]) -> list[dict[str, float]]:
    """Least time of each bundle but the first over that of the first."""
    manifest = bundles[0].manifest
    how = plan("host", manifest.format, manifest.precision, num_threads=1)
    times_ms = [sweep(bundles, how) for _ in range(NUM_PROCESSES)]
    ratios = [[times[which] / times[0] for times in times_ms] for which in range(1, len(bundles))]
    return [{"ratio": round(statistics.median(one), 4), "low": round(min(one), 4), "high": round(max(one), 4)} for one in ratios]


def block_ratio(theirs: Bundle, ours: Bundle, pictures: Sequence[Path]) -> dict[str, float]:
    """Time of the import over that of our own export, in interleaved blocks."""
    how = plan("host", ours.manifest.format, ours.manifest.precision, num_threads=1)
    found = compare(theirs, ours, pictures, how_a=how, how_b=how, quick=True)
    return {key: round(getattr(found, key), 4) for key in ("ratio", "low", "high")}


def measure(format: str, net: nn.Module, data: Path, folder: Path) -> list[dict[str, Any]]:
    """A row each mean."""
    info = BundleInfo(name="network", contract=Contract(height=SIZE_HW[0], width=SIZE_HW[1]), classes=CLASSES, palette=PALETTE,
                      reference=None, parents=(), config_sha256="")
    frames, pictures = [read_frame(path) for path in images(data, "train")], images(data, "test")
    compared, rows = [read_frame(path) for path in pictures], []
    ours = own(net, format, info, folder / "own", frames)
    with vendor_errors(format), quiet(), torch.no_grad():
        model = PLAIN[format](net, folder)
    theirs = [imported(model, mean, info, data, folder / f"imported-{i}", frames) for i, mean in enumerate(MEANS)]
    least = {
        "fp32": least_ratios([ours.fp32, *(one.fp32 for one in theirs)]), "int8": least_ratios([ours.int8, *(one.int8 for one in theirs)]),
    }
    our_float = answers(ours.fp32, compared)
    our_share = share(answers(ours.int8, compared), our_float)
    for number, (mean, one) in enumerate(zip(MEANS, theirs, strict=True)):
        their_float = answers(one.fp32, compared)
        rows.append({
            "format": format, "runtime": plan("host", format, "int8").runtime, "mean": list(mean),
            "folded": one.fp32.manifest.scheme.get("normalisation") == FOLDED,
            "fp32_time": {"least": least["fp32"][number], "blocks": block_ratio(one.fp32, ours.fp32, pictures)},
            "int8_time": {"least": least["int8"][number], "blocks": block_ratio(one.int8, ours.int8, pictures)},
            "fp32_as_own_fp32": share(their_float, our_float) if mean == MEAN_RGB else None,
            "own_int8_as_own_fp32": our_share, "int8_as_fp32": share(answers(one.int8, compared), their_float),
        })
    return rows


def images(data: Path, split: str) -> list[Path]:
    """Images of a split, in order."""
    return sorted((data / "images" / split).glob("*.png"))


def show(row: dict[str, Any]) -> None:
    """Print one import."""
    mean = ",".join(f"{value:g}" for value in row["mean"])
    print(f"{row['runtime']}, mean {mean}, {'folded' if row['folded'] else 'in front'}")
    for precision in ("fp32", "int8"):
        ratios = [f"{name} {one['ratio']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" for name, one in row[f"{precision}_time"].items()]
        print(f"  {precision} time over our own: {', '.join(ratios)}")
    print(f"  pixels that int8 answers as its float: own {row['own_int8_as_own_fp32']:.3f}, imported {row['int8_as_fp32']:.3f}")
    if row["fp32_as_own_fp32"] is not None:
        print(f"  pixels that float answers as our own float: {row['fp32_as_own_fp32']:.6f}")
    sys.stdout.flush()


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_field(folder / "field", seed=0, counts={"train": NUM_CALIBRATION, "val": 1, "test": NUM_COMPARED}, size_hw=SIZE_HW)
        net = build(ModelSection(name="fast_scnn"), len(CLASSES), seed=0)
        settle(net, [read_frame(path) for path in images(folder / "field", "train")])
        for format in PLAIN:
            (folder / format).mkdir()
            for row in measure(format, net, folder / "field", folder / format):
                rows.append(row)
                show(row)
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.imports", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": versions(*PACKAGES), "threads": 1, "quick": True, "seed": 0, "network": "fast_scnn", "size_hw": list(SIZE_HW),
            "calibration_frames": NUM_CALIBRATION, "compared_frames": NUM_COMPARED, "processes": NUM_PROCESSES, "rows": rows,
        })


if __name__ == "__main__":
    main()
