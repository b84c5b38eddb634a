"""The setting that `edgeseg tune` finds against the best of an exhaustive sweep over the same settings, in one run.

    python -m benchmarks.tuning [--networks fast_scnn] [--formats onnx openvino] [--size 360 480] [--for latency] [--quick] [--json FILE]
    python -m benchmarks.tuning --bundles runs/NAME/bundles [--json FILE]

The sweep lets every setting that answers as it should take turns for many blocks; its best is the least median. Tuned and swept best are
then measured again, alone and in interleaved blocks of a fresh process: the figure is speed, tuned over best, median over the pairs with
its 95 % interval. Where both are the same setting it is 1 and nothing is measured. The time that either search took stands beside it.

Exit code 1 where less than 0.97 was reached.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.int8_speed import PACKAGES, given, made
from edgeseg.core.bundle import Bundle
from edgeseg.core.files import write_json
from edgeseg.core.vendors import versions
from targets.boards import Plan, plan
from targets.devices import LocalDevice
from targets.machine import describe_machine
from targets.measure.loop import bootstrap_ratio
from targets.measure.result import FULL, QUICK
from targets.tuning.knobs import PURPOSES, fields_of, settings_of
from targets.tuning.look import look_at
from targets.tuning.search import stand
from targets.tuning.tune import tune
from targets.tuning.turns import Turns
from targets.verify import golden_limit

ASKED: Final = 0.97
SWEEP_BLOCKS: Final = {False: 60, True: 16}
"""Blocks of every setting in the sweep, by `--quick`."""


def silent(stage: str, done: float) -> None:
    """Show nothing."""


def measure(bundle: Bundle, purpose: str, *, quick: bool, threads: int) -> dict[str, Any]:
    """Tune, sweep, and compare what the two found."""
    frames = [bundle.folder / pair.frame for pair in bundle.manifest.golden]
    device, manifest = LocalDevice(), bundle.manifest
    how = plan("host", manifest.format, manifest.precision, num_threads=threads)
    start = time.monotonic()
    found = tune(bundle, frames, device=device, target="host", how=how, purpose=purpose, quick=quick, on_progress=silent)
    tuned_s = time.monotonic() - start

    start = time.monotonic()
    seen = look_at(device, target="host", how=how, on_progress=silent)
    options = settings_of(how, seen.board, purpose)
    turns = Turns(bundle, frames, device, "host", how.runtime, purpose, quick, options, silent)
    turns.try_out()
    limit = golden_limit(manifest.contract.task)
    fit = [number for number, row in turns.tried.items() if row.get("answers", 0.0) >= limit]
    standings = stand(turns.race(fit, SWEEP_BLOCKS[quick]), 1)
    swept_s = time.monotonic() - start

    fields = [fields_of(Plan(how.runtime, one)) for one in options]
    chosen, best = fields.index(dict(found.chosen)), standings[0].setting
    ratio, low, high, pairs = 1.0, 1.0, 1.0, 0
    if chosen != best:
        pairs = 2 * (QUICK if quick else FULL).min_pairs
        costs = turns.race([chosen, best], pairs)
        ratio, low, high = bootstrap_ratio(costs[best], costs[chosen])
    return {
        "runtime": how.runtime, "purpose": purpose, "settings": len(options), "swept": len(fit), "tuned": fields[chosen],
        "best": fields[best], "tuned_over_best": ratio, "low": low, "high": high, "pairs": pairs, "tuned_over_default": found.gain
        if found.faster else 1.0, "tuned_s": tuned_s, "swept_s": swept_s,
        "sweep": [{"fields": fields[one.setting], "cost_ms": one.cost_ms, "ratio": one.ratio} for one in standings],
    }


def bundles(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Bundle]]:
    """Every bundle once, with the name of its network."""
    pairs = given(arguments.bundles) if arguments.bundles else made(arguments.networks, tuple(arguments.size), arguments.formats, folder)
    seen: set[str] = set()
    for network, *both in pairs:
        for bundle in both:
            if bundle.manifest.sha256 not in seen:
                seen.add(bundle.manifest.sha256)
                yield network, bundle


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["fast_scnn"])
    parser.add_argument("--formats", nargs="*", default=["onnx", "openvino", "tflite"])
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480))
    parser.add_argument("--bundles", type=Path)
    parser.add_argument("--for", dest="purposes", choices=PURPOSES, nargs="*", default=list(PURPOSES))
    parser.add_argument("--threads", type=int, default=0, help="of the default that tuning starts from; 0 = all")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, missed = [], False
    with tempfile.TemporaryDirectory() as folder:
        for network, bundle in bundles(arguments, Path(folder)):
            for purpose in arguments.purposes:
                row = measure(bundle, purpose, quick=arguments.quick, threads=arguments.threads)
                row = {"network": network, "format": bundle.manifest.format, "precision": bundle.manifest.precision, **row}
                rows.append(row)
                missed |= row["tuned_over_best"] < ASKED
                print(f"{network} {row['format']:9} {row['precision']} {purpose:10} tuned over best {row['tuned_over_best']:.3f} "
                      f"({row['low']:.3f} to {row['high']:.3f}), over default {row['tuned_over_default']:.3f}; {row['settings']} settings, "
                      f"{row['tuned_s']:.0f} s against {row['swept_s']:.0f} s; {row['tuned']}", flush=True)
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.tuning", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": versions(*PACKAGES), "asked": ASKED, "quick": arguments.quick, "results": rows,
        })
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
