"""Every encoder in every format at a size that no stride divides: the share of pixels that a narrow FCN-8s on it answers as torch does.

    python -m benchmarks.encoders [--formats openvino tflite] [--encoders resnet18 ...] [--size 90 118] [--json FILE]

Too slow for the tests (LiteRT's converter takes some 20 s a network). Exit code 1 where a share is below 0.999.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeseg.core.bundle import BundleInfo, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.files import write_json
from edgeseg.core.manifest import Contract
from edgeseg.core.vendors import versions
from edgeseg.data.base import default_palette
from edgeseg.models import ContractModule, build, normalise
from edgeseg.models.encoders import ENCODERS
from exporters import EXPORTERS
from targets.boards import plan
from targets.runtimes import open_session

NUM_CLASSES = 3
LIMIT = 0.999


def network(encoder: str, size_hw: tuple[int, int]) -> nn.Module:
    """Random weights with the norms settled on noise, as a network in use has them."""
    net = build(ModelSection(name="fcn8s", encoder=encoder, width=0.125), NUM_CLASSES, seed=1).train()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _ in range(10):
            net(normalise(torch.randint(0, 256, (4, *size_hw, 3), dtype=torch.uint8, generator=generator)))
    return net.eval()


def row_of(encoder: str, format_: str, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Export, run on four frames of noise, compare."""
    started = time.perf_counter()
    contract = Contract(height=size_hw[0], width=size_hw[1])
    net = network(encoder, size_hw)
    names = tuple(f"class_{i}" for i in range(NUM_CLASSES))
    info = BundleInfo(name=f"{encoder}-{format_}", contract=contract, classes=names, palette=default_palette(NUM_CLASSES), reference=None,
                      parents=(), config_sha256="0" * 64)
    frames = torch.randint(0, 256, (4, *size_hw, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = ContractModule(net, contract).eval()(frames).numpy()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "work").mkdir()
        model = EXPORTERS[format_](net, contract, Path(folder) / "work")
        bundle = seal_bundle(Path(folder) / "bundle", model, info, golden_frames=[],
                             answer=lambda _bundle: ("none", lambda frame: frame[:, :, 0]))
        how = plan("host", format_, "fp32")
        session = open_session(bundle, how.runtime, how.options)
        share = float(np.mean([np.mean(np.asarray(session.run(f.numpy())) == e) for f, e in zip(frames, expected, strict=True)]))
        session.close()
    return {"encoder": encoder, "format": format_, "agreement": round(share, 6), "classes_seen": len(np.unique(expected)),
            "seconds": round(time.perf_counter() - started, 1)}


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=EXPORTERS, default=list(EXPORTERS))
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--size", nargs=2, type=int, default=(90, 118), metavar=("H", "W"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for format_ in given.formats:
        for encoder in given.encoders:
            rows.append(row_of(encoder, format_, (given.size[0], given.size[1])))
            print(f"{format_:9} {encoder:20} {rows[-1]['agreement']:.6f}  {rows[-1]['seconds']} s", flush=True)
            if given.json is not None:
                write_json(given.json, {
                    "command": "python -m benchmarks.encoders", "size_hw": list(given.size), "network": "fcn8s at width 0.125",
                    "python": platform.python_version(),
                    "tools": versions("torch", "onnxruntime", "openvino", "ai-edge-litert", "litert-torch"),
                    "rows": rows,
                })
    return 0 if all(row["agreement"] >= LIMIT and row["classes_seen"] > 1 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
