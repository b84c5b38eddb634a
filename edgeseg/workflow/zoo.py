"""Every network in every format: does it export, answer as torch does, work in int8, and how fast is it beside Fast-SCNN?"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.errors import ConfigError, EdgesegError
from edgeseg.core.files import read_json
from edgeseg.core.images import write_frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import why_not_made
from edgeseg.data.synthetic import draw_field
from edgeseg.report.model import Ratio
from edgeseg.report.zoo import BASELINE, ZooRow, ZooSide, ZooTable
from edgeseg.workflow.ui import Ui
from targets.boards import plan
from targets.measure.bench import compare

NUM_CLASSES: Final = 11
"""As CamVid; each class layer has this many outputs."""
_NUM_FRAMES: Final = 20
_SEED: Final = 0
_INSTANCES: Final = 20
"""Slots of an instance network: each has a mask, and 100 of them cost 46 GMAC on their own."""
_THREADS: Final = 1
"""On a machine that others use too, one thread gives the steadier ratio."""


@dataclass(frozen=True)
class ZooReport:
    """What the check found."""

    rows: tuple[ZooRow, ...]
    size_hw: tuple[int, int]

    @property
    def passed(self) -> bool:
        """Every network works in every format."""
        return all(row.passed for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {"size_hw": list(self.size_hw), "num_classes": NUM_CLASSES, "seed": _SEED, "threads": _THREADS, "quick": True,
                "baseline": BASELINE, "rows": [row.to_json() for row in self.rows], "passed": self.passed}


def section_of(name: str) -> ModelSection:
    """`[model]` of a row: NAME, or NAME:ENCODER."""
    network, _, encoder = name.partition(":")
    return ModelSection(name=network, encoder=encoder, max_instances=_INSTANCES)


def check(names: Sequence[str], *, size_hw: tuple[int, int], timeout_s: float, ui: Ui) -> ZooReport:
    """Check networks (NAME or NAME:ENCODER; all, if none is given) in every format, each in a process of its own.

    A network that crashes, hangs or is refused becomes a row that says so. `timeout_s` bounds one network in one format.

    Raises:
        ConfigError: no such network, or a size that is too small.
        MissingExtraError: torch is not installed.
    """
    require("torch", extra="export")
    from edgeseg.models.registry import MODELS, find_model
    from exporters import EXPORTERS

    for name in names:
        find_model(section_of(name).name, asked="--model")
    if min(size_hw) < 64:
        raise ConfigError(f"--size {size_hw[0]} {size_hw[1]}: at least 64 a side, so that the coarsest map still has a cell")
    wanted = list(dict.fromkeys(names)) or list(MODELS)
    order = [BASELINE, *(name for name in wanted if name != BASELINE)]
    jobs = [(name, format_) for name in order for format_ in EXPORTERS]
    rows: list[ZooRow] = []
    with tempfile.TemporaryDirectory(prefix="edgeseg-zoo-") as work:
        frames = _draw_frames(Path(work) / "frames", size_hw)
        baseline: dict[tuple[str, str], Bundle] = {}
        for done, (name, format_) in enumerate(jobs):
            ui.progress("checking", done, len(jobs), f"{name} {format_}")
            task = section_of(name).task
            if why := why_not_made(format_, task):
                rows.append(_left_out(name, format_, task, why))
                ui.say(rows[-1].line())
                continue
            folder = Path(work) / f"{done:03}"
            folder.mkdir()
            found = _examine(name, format_, size_hw, frames, folder, timeout_s)
            if name == BASELINE:
                baseline |= {(format_, p): open_bundle(Path(found[p]["bundle"])) for p in ("fp32", "int8") if "bundle" in found.get(p, {})}
            if name in wanted:
                rows.append(_row(name, format_, found, baseline, frames, timeout_s))
                ui.say(rows[-1].line())
            if name != BASELINE:
                shutil.rmtree(folder)
        ui.progress("checking", len(jobs), len(jobs))
    rank = {name: i for i, name in enumerate(wanted)}
    return ZooReport(tuple(sorted(rows, key=lambda row: rank[row.network])), size_hw)


def show(report: ZooReport) -> None:
    """Print the table."""
    from rich.console import Console

    Console().print(ZooTable(report.rows, report.size_hw))


def _draw_frames(folder: Path, size_hw: tuple[int, int]) -> list[Path]:
    folder.mkdir()
    files = []
    for index in range(_NUM_FRAMES):
        frame, _ = draw_field(seed=_SEED, split="train", index=index, size_hw=size_hw)
        files.append(folder / f"{index:03}.png")
        write_frame(files[-1], frame)
    return files


def _examine(name: str, format_: str, size_hw: tuple[int, int], frames: list[Path], folder: Path, timeout_s: float) -> dict[str, Any]:
    """Run the worker; give what it found, completed by the reason where it did not come to its end."""
    request = {
        "model": asdict(section_of(name)), "format": format_, "size_hw": size_hw, "num_classes": NUM_CLASSES,
        "frames": [str(file) for file in frames], "folder": str(folder),
    }
    end = run_worker([sys.executable, "-m", "edgeseg.workflow.zoo_worker"], json.dumps(request), timeout_s=timeout_s)
    result = folder / "result.json"
    found: dict[str, Any] = read_json(result) if result.exists() else {}
    reason = found.pop("why_not", "") or end
    if "macs" not in found:
        found["why_not"] = reason or "the worker left no result"
    for precision in ("fp32", "int8"):
        if precision not in found:
            lost = "there is no fp32 bundle to quantize" if "why_not" in found.get("fp32", {}) else reason or "the worker left no result"
            found[precision] = {"why_not": lost}
    return found


def run_worker(command: Sequence[str], request: str, *, timeout_s: float) -> str:
    """Run a process with one line of input; give "" if it ended well, else how it ended, in words."""
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr, text=True, encoding="utf-8")
        overdue = threading.Event()

        def stop() -> None:
            overdue.set()
            process.kill()

        timer = threading.Timer(timeout_s, stop)
        timer.start()
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it died at once; how it ended says more than this
                process.stdin.write(f"{request}\n")
                process.stdin.flush()  # and kept open: the worker ends when this process does
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        if overdue.is_set():
            return f"took more than {timeout_s:g} s and was stopped"
        if code == 0:
            return ""
        stderr.seek(0)
        lines = [line.strip() for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{_how_it_ended(code)}{f': {lines[-1][-200:]}' if lines else ''}"


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        return f"the process was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"the process was killed by signal {-code}"


def _row(
    name: str, format_: str, found: dict[str, Any], baseline: dict[tuple[str, str], Bundle], frames: list[Path], timeout_s: float
) -> ZooRow:
    task = section_of(name).task
    sides = {p: _side(p, task, found[p], baseline.get((format_, p)), frames, timeout_s) for p in ("fp32", "int8")}
    return ZooRow(
        network=name, format=format_, num_params=found.get("num_params"), macs=found.get("macs"), note=found.get("why_not", ""),
        fp32=sides["fp32"], int8=sides["int8"],
    )


def _left_out(name: str, format_: str, task: str, why: str) -> ZooRow:
    notes = dict.fromkeys(("agreement", "size_bytes", "p50_ms"), why)
    fp32, int8 = (ZooSide(precision=precision, task=task, notes=notes) for precision in ("fp32", "int8"))
    return ZooRow(network=name, format=format_, num_params=None, macs=None, note=why, fp32=fp32, int8=int8, left_out=why)


def _side(precision: str, task: str, found: dict[str, Any], base: Bundle | None, frames: list[Path], timeout_s: float) -> ZooSide:
    empty = ZooSide(precision=precision, task=task)
    if "why_not" in found:
        return replace(empty, notes=dict.fromkeys(("agreement", "size_bytes", "p50_ms"), found["why_not"]))
    notes: dict[str, str] = {}
    share, compared = found["agreement"], task == "semantic" or precision == "fp32"
    if not compared:
        notes["agreement"] = "objects of random weights nearly tie, so those of int8 are not compared"
        share = None
    elif found["num_answered"] < (2 if task == "semantic" else 1):
        notes["agreement"] = "answers one class everywhere" if task == "semantic" else "finds no object"
        share = None
    elif share < empty.limit:
        notes["agreement"] = f"below the {empty.limit * 100:g} % that {precision} passes from"
    p50_ms = ratio = None
    if base is None:
        notes["p50_ms"] = f"{BASELINE} has no such bundle here to be compared with"
    else:
        bundle = open_bundle(Path(found["bundle"]))
        how = plan("host", bundle.manifest.format, precision, num_threads=_THREADS)
        try:
            speed = compare(bundle, base, frames, how_a=how, how_b=how, quick=True, timeout_s=timeout_s)
            p50_ms, ratio = speed.a_p50_ms, Ratio(value=speed.ratio, low=speed.low, high=speed.high)
        except EdgesegError as error:
            notes["p50_ms"] = str(error)
    return replace(
        empty, size_bytes=found["size_bytes"], agreement=share, compared=compared, p50_ms=p50_ms, ratio=ratio, notes=notes,
    )
