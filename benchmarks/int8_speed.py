"""Int8 against float32 of whole bundles, both with the decision head that is shipped, and against the runtime's own best float choice.

    python -m benchmarks.int8_speed [--networks fast_scnn ddrnet_23_slim] [--size 360 480] [--full] [--json FILE]
    python -m benchmarks.int8_speed --bundles runs/NAME/bundles [--json FILE]

One thread. Each comparison runs in interleaved blocks (ABBA) of a process of its own (`targets.measure.compare`); the ratio is the median
over the pairs of blocks, with its 95 % interval. OpenVINO chooses bf16 by itself where the processor has it, so int8 is measured against
that as well. Networks are of random weights whose norms are settled on the frames: speed does not depend on what was learnt. With
`--bundles` the bundles of a run are taken, fp32 and int8 of a format side by side.

Exit code 1 where less was reached than asked for.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from PIL import Image

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, open_bundle, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.errors import EdgesegError
from edgeseg.core.files import write_json
from edgeseg.core.images import read_frame
from edgeseg.core.vendors import quiet, versions
from edgeseg.data.synthetic import write_field
from targets.boards import plan
from targets.machine import describe_machine
from targets.measure.bench import compare

NUM_CLASSES: Final = 11
NETWORKS: Final = ("fast_scnn", "lraspp_mobilenet_v3_small", "ddrnet_23_slim", "pidnet_s")
DEPTHWISE: Final = frozenset({"fast_scnn", "lraspp_mobilenet_v3_small", "lraspp_mobilenet_v3_large", "effnet_lite", "bisenet_v2"})
"""Networks most of whose layers are depthwise or lie between such."""
PACKAGES: Final = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")


def asked(format: str, network: str) -> float:
    """Times int8 should be as fast as fp32."""
    return 2.0 if format != "openvino" or network in DEPTHWISE else 3.0


def made(networks: list[str], size_hw: tuple[int, int], formats: list[str], folder: Path) -> Iterator[tuple[str, Bundle, Bundle]]:
    """Export and quantize each network in each format: its name, fp32, int8."""
    from edgeseg.models import build
    from edgeseg.workflow.bundle.bundling import own_answer
    from edgeseg.workflow.zoo_worker import contract_of, settle
    from exporters import EXPORTERS
    from quantization import QUANTIZERS

    write_field(folder / "data", seed=0, counts={"train": 8, "val": 1, "test": 1}, size_hw=size_hw)
    frames = [read_frame(path) for path in sorted((folder / "data").rglob("images/**/*.png"))][:8]
    for network in networks:
        section = ModelSection(name=network)
        net = build(section, NUM_CLASSES, seed=0)
        settle(net, frames)
        contract = contract_of(section, size_hw)
        info = BundleInfo(
            name=network, contract=contract, classes=tuple(f"class{i}" for i in range(NUM_CLASSES)),
            palette=tuple((i, i, i) for i in range(NUM_CLASSES)), reference=None, parents=(), config_sha256="",
        )

        def seal(model: ModelFiles, name: str, info: BundleInfo = info) -> Bundle:
            return seal_bundle(folder / name, model, info, golden_frames=frames[:4], answer=own_answer)

        for format in formats:
            try:
                with quiet():
                    fp32 = seal(EXPORTERS[format](net, contract, _new(folder / f"{network}-{format}-fp32.tmp")), f"{network}-{format}-fp32")
                    int8 = seal(QUANTIZERS[format](fp32, frames, _new(folder / f"{network}-{format}-int8.tmp")), f"{network}-{format}-int8")
            except EdgesegError as error:
                print(f"{network} {format}: {error}")
                continue
            yield network, fp32, int8


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def given(folder: Path) -> Iterator[tuple[str, Bundle, Bundle]]:
    """Bundles of a run: fp32 and int8 (or mixed) of each format."""
    bundles = [open_bundle(path.parent) for path in sorted(folder.glob("*/manifest.json"))]
    for fp32 in bundles:
        for other in bundles:
            same = other.manifest.format == fp32.manifest.format
            if same and fp32.manifest.precision == "fp32" and other.manifest.precision in ("int8", "mixed"):
                yield folder.resolve().parent.name, fp32, other


def measure(fp32: Bundle, int8: Bundle, frames: list[bytes | Path], *, quick: bool) -> dict[str, Any]:
    """The ratios of one pair of bundles."""
    format = fp32.manifest.format
    how_fp32, how_int8 = (plan("host", format, bundle.manifest.precision, num_threads=1) for bundle in (fp32, int8))
    row: dict[str, Any] = {"runtime": how_fp32.runtime, "fp32": compare(fp32, int8, frames, how_a=how_fp32, how_b=how_int8, quick=quick)}
    if format == "openvino":
        how_bf16 = plan("host", format, "fp32", num_threads=1, precision_hint="bf16")
        try:
            row["bf16"] = compare(fp32, int8, frames, how_a=how_bf16, how_b=how_int8, quick=quick)
        except EdgesegError as error:
            row["bf16_why_not"] = str(error)
    return row


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--formats", nargs="*", default=["onnx", "openvino", "tflite"])
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480))
    parser.add_argument("--bundles", type=Path)
    parser.add_argument("--full", action="store_true", help="long comparisons, for a machine that is idle")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, missed = [], False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.bundles:
            pairs = given(arguments.bundles)
        else:
            pairs = made(arguments.networks, tuple(arguments.size), arguments.formats, folder)
        for network, fp32, int8 in pairs:
            contract = fp32.manifest.contract
            pictures: list[bytes | Path] = [folder / f"frame-{i}.png" for i in range(4)]
            for picture, (frame, _) in zip(pictures, cycle(fp32.golden_pairs()), strict=False):
                Image.fromarray(frame).save(picture)
            found = measure(fp32, int8, pictures, quick=not arguments.full)
            row: dict[str, Any] = {
                "network": network, "format": fp32.manifest.format, "runtime": found["runtime"], "precision": int8.manifest.precision,
                "size_hw": [contract.height, contract.width], "asked": asked(fp32.manifest.format, network),
            }
            for against in ("fp32", "bf16"):
                if against not in found:
                    continue
                ratio = found[against]
                row[f"over_{against}"] = {key: round(getattr(ratio, key), 4) for key in ("ratio", "low", "high", "a_p50_ms", "b_p50_ms")}
                print(f"{network:28} {fp32.manifest.format:9} int8 over {against} {ratio.ratio:5.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
                      f"  {ratio.a_p50_ms:8.2f} -> {ratio.b_p50_ms:7.2f} ms", flush=True)
            rows.append(row)
            missed |= row["over_fp32"]["ratio"] < row["asked"]
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.int8_speed", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": versions(*PACKAGES), "threads": 1, "quick": not arguments.full, "seed": 0, "rows": rows,
        })
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
