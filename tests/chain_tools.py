"""What the end-to-end tests share: the command line as a user types it, and a data set small enough to train on in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgeseg.data.synthetic import write_field

TINY_CONFIG: Final = """
name = "tiny"
targets = ["host", "intel-cpu", "raspberry-pi-5", "jetson-orin-nano"]

[data]
dir = "data"
size = [64, 96]

[model]
width = 0.5

[train]
epochs = 30
batch_size = 4
eval_every = 5
warmup_epochs = 1
ema = 0.9

[prune]
macs_share = 0.7
epochs = 6

[quantize]
calibration_frames = 8

[bench]
quick = true

[goals]
agreement = 0.999
"""
TINY_HEAD: Final = """
name = "tiny"
targets = ["host"]

[data]
dir = "data"
size = [64, 96]
"""
"""How the configuration of a test that sets the rest by itself begins."""
TIME_FIELDS: Final = frozenset(
    {
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "fps",
        "peak_rss_bytes",
        "load_ms",
        "decode_ms",
        "resize_ms",
        "inference_ms",
        "resize_back_ms",
        "end_to_end_ms",
        "speedup_vs_fp32",
        "speedup_vs_own_float",
        "circumstances",
        "recommended",
        "reason",
    }
)
"""What a second run of the same thing may change: times, and what follows from them."""


def write_tiny_project(folder: Path, *, config: str = TINY_CONFIG) -> Path:
    """Write data and edgeseg.toml; give the config's path."""
    write_field(folder / "data", seed=3, counts={"train": 16, "val": 4, "test": 5}, size_hw=(64, 96))
    path = folder / "edgeseg.toml"
    path.write_text(config)
    return path


def command(*arguments: str) -> list[str]:
    """The command line as `edgeseg ...`, whatever is on PATH."""
    return [sys.executable, "-m", "edgeseg.cli.main", *arguments]


def edgeseg(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run `edgeseg ...` in a fresh process."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def one_line_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Assert a failure as a user should see it: this exit code, one line on stderr that starts with `edgeseg:`, no traceback."""
    assert done.returncode == code, f"exit {done.returncode}, wanted {code}: {done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("edgeseg: ")]
    assert len(errors) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == errors[0]
    return errors[0]


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Result rows without what is measured in time."""
    return [{key: value for key, value in row.items() if key not in TIME_FIELDS} for row in rows]


def read_rows(run: Path) -> list[dict[str, Any]]:
    """The list of results.json."""
    rows: list[dict[str, Any]] = json.loads((run / "results.json").read_text())
    return rows
