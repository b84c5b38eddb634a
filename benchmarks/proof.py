"""What of each bundle really runs in int8, and int8 against fp32 and against the runtime's own float choice, interleaved, one thread.

    python -m benchmarks.proof runs/NAME [--quick] [--json FILE]

Every int8 or mixed bundle of the run is measured; the ratio is time of the float side over time of int8: above 1, int8 is faster.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

from edgeseg import __version__
from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.files import write_json
from targets.boards import plan
from targets.executed import executed_facts
from targets.machine import describe_machine
from targets.measure.bench import compare
from targets.runtimes import RUNTIMES, own_arithmetic


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--quick", action="store_true", help="24 pairs of blocks in place of 60")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    bundles = [open_bundle(folder) for folder in sorted((args.run / "bundles").iterdir()) if (folder / "manifest.json").is_file()]
    rows = [_measure(bundle, bundles, quick=args.quick) for bundle in bundles if bundle.manifest.precision in ("int8", "mixed")]
    for row in rows:
        own = "" if row["own"] is None else f", {row['own_arithmetic']} {_words(row['own'])}"
        share = "not known" if row["share_int8"] is None else f"{row['share_int8']:.1%}"
        print(f"{row['bundle']}: {share} in int8; faster than fp32 {_words(row['fp32'])}{own}")
        for layer in row["not_int8"]:
            print(f"  {layer['share']:7.2%} {layer['precision']} {layer['name'][-60:]}: {layer['reason']}")
    if args.json:
        machine = describe_machine().to_json()
        write_json(args.json, {
            "command": " ".join(["python", "-m", "benchmarks.proof", *sys.argv[1:]]), "edgeseg": __version__,
            "python": platform.python_version(), "machine": machine, "threads": 1, "rows": rows,
        })


def _measure(bundle: Bundle, bundles: list[Bundle], *, quick: bool) -> dict[str, Any]:
    manifest = bundle.manifest
    frames = [bundle.folder / pair.frame for pair in manifest.golden]
    twin = next(one for one in bundles if one.manifest.format == manifest.format and one.manifest.precision == "fp32")
    how = plan("host", manifest.format, manifest.precision, num_threads=1)
    own = own_arithmetic(how.runtime)
    ratios = {}
    for bits in dict.fromkeys(("f32", own)):
        float_how = plan("host", manifest.format, "fp32", num_threads=1, precision_hint=bits)
        ratios[bits] = compare(twin, bundle, frames, how_a=float_how, how_b=how, quick=quick).to_json()
    facts = executed_facts(bundle, how.runtime, how.options) or {"share_int8": None, "not_int8": [], "source": ""}
    return {
        "bundle": manifest.name, "runtime": how.runtime, "version": RUNTIMES[how.runtime].version(), "share_int8": facts["share_int8"],
        "source": facts["source"], "not_int8": facts["not_int8"], "fp32": ratios["f32"], "own_arithmetic": own,
        "own": ratios[own] if own != "f32" else None,
    }


def _words(ratio: dict[str, Any]) -> str:
    return f"{ratio['ratio']:.2f} times ({ratio['low']:.2f} to {ratio['high']:.2f})"


if __name__ == "__main__":
    main()
