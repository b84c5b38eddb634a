"""The table of `edgeseg models --check`: every network in every format, and for each number that is missing the reason in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from edgeseg.report.model import Ratio
from edgeseg.report.words import MISSING, equal_share, ms, number

FP32_AGREEMENT: Final = 0.999
"""Least share of pixels an fp32 bundle answers as torch."""
INT8_AGREEMENT: Final = 0.3
"""Least share for int8: over three times chance with 11 classes. Random weights leave no margin between classes, so this tells a working
model from a broken one, not a good one from a poor one; accuracy of int8 is what `edgeseg run` measures on a trained network."""
INSTANCE_AGREEMENT: Final = 0.8
"""Least share of objects an fp32 instance bundle finds as torch does. Proposals of random weights score nearly alike, so rounding
decides which of two survives the other: 0.93 in ONNX with Mask R-CNN on ResNet-18 at 64x96."""
BASELINE: Final = "fast_scnn"
"""The network whose latency the others are given in multiples of."""

_COLUMNS: Final = {
    "params M": 0, "GMAC": 0, "format": 0, "fp32 %": 0, "int8 %": 0, "fp32 MB": 110, "int8 MB": 110, "fp32 ms": 110, "int8 ms": 110,
    "fp32 x": 0, "int8 x": 0,
}
"""Columns after the name, and the width of the terminal from which on each is shown."""


@dataclass(frozen=True, kw_only=True)
class ZooSide:
    """One precision of one network in one format. What is `None` has an entry in `notes`."""

    precision: str
    size_bytes: int | None = None
    task: str = "semantic"
    agreement: float | None = None
    """Share of pixels (of objects, for task `instance`) answered as torch answers them, 0..1."""
    compared: bool = True
    """False: there is nothing to compare with, and a note says why; that it opens and answers is all that is asked."""
    p50_ms: float | None = None
    ratio: Ratio | None = None
    """Its latency in multiples of the baseline's, from interleaved blocks."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Field -> why it has no value, or why its value does not pass."""

    @property
    def limit(self) -> float:
        """Least agreement that passes."""
        if self.precision == "int8":
            return INT8_AGREEMENT
        return INSTANCE_AGREEMENT if self.task == "instance" else FP32_AGREEMENT

    @property
    def passed(self) -> bool:
        """It exports, opens, and answers as torch does."""
        if not self.compared:
            return self.size_bytes is not None
        return self.agreement is not None and self.agreement >= self.limit


@dataclass(frozen=True, kw_only=True)
class ZooRow:
    """One network in one format."""

    network: str
    format: str
    num_params: int | None
    macs: int | None
    """Of one frame."""
    fp32: ZooSide
    int8: ZooSide
    note: str = ""
    """Why parameters and MACs could not be counted, where they could not."""
    left_out: str = ""
    """Why the format is not made of such networks; nothing was tried then, and nothing failed."""

    @property
    def passed(self) -> bool:
        """Both precisions work, or are not meant to."""
        return bool(self.left_out) or (self.fp32.passed and self.int8.passed)

    def line(self) -> str:
        """One line while the check goes on."""
        if self.left_out:
            return f"{self.network} {self.format}: left out; {self.left_out}"
        parts = [f"{self.network} {self.format}: {'works' if self.passed else 'DOES NOT WORK'}"]
        for side in (self.fp32, self.int8):
            why = side.notes.get("agreement", "")
            got = f"{equal_share(side.agreement, 2)} % as torch" if side.agreement is not None else why
            parts.append(f"{side.precision} {got}" + (f", {ms(side.p50_ms)} ms" if side.p50_ms is not None else ""))
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values; `None` always comes with a note."""
        def side(one: ZooSide) -> dict[str, Any]:
            ratio = None if one.ratio is None else {"value": one.ratio.value, "low": one.ratio.low, "high": one.ratio.high}
            return {"size_bytes": one.size_bytes, "agreement": one.agreement, "p50_ms": one.p50_ms, f"times_{BASELINE}": ratio,
                    "notes": dict(one.notes), "passed": one.passed}

        return {"network": self.network, "format": self.format, "num_params": self.num_params, "macs": self.macs, "note": self.note,
                "left_out": self.left_out,
                "passed": self.passed, "fp32": side(self.fp32), "int8": side(self.int8)}


@dataclass(frozen=True)
class ZooTable:
    """A Rich renderable: one line a network and format, then the notes that cells point at, and what the columns are."""

    rows: Sequence[ZooRow]
    size_hw: tuple[int, int]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render by width: fewer columns on a narrow terminal. No lines are drawn, so that a pipe gets plain text."""
        shown = [name for name, least in _COLUMNS.items() if options.max_width >= least]
        notes: dict[str, int] = {}
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column("network", no_wrap=True)
        for name in shown:
            table.add_column(name, justify="left" if name == "format" else "right", no_wrap=True)
        for row in self.rows:
            cells = _cells(row, notes)
            table.add_row(row.network, *(cells[name] for name in shown), style="" if row.passed else "red")
        yield table
        for text, index in notes.items():
            yield Text(f"[{index}] {text}")
        failed, left_out = sum(not row.passed for row in self.rows), sum(bool(row.left_out) for row in self.rows)
        tried = len(self.rows) - left_out
        yield Text(f"{tried - failed} of {tried} work" + (f"; {left_out} left out" if left_out else ""), "red" if failed else "green")
        height, width = self.size_hw
        yield Text(
            f"Random weights at {height}x{width}, norms settled on synthetic frames. %: pixels (objects) as torch; from "
            f"{FP32_AGREEMENT * 100:g} ({INSTANCE_AGREEMENT * 100:g}) they pass in fp32, from {INT8_AGREEMENT * 100:g} in int8. "
            f"ms: one thread, QUICK. x: times {BASELINE}, interleaved with it.",
            style="dim",
        )


def _cells(row: ZooRow, notes: dict[str, int]) -> dict[str, str]:
    def cell(value: str, note: str) -> str:
        if not note:
            return value
        return f"{value}[{notes.setdefault(note, len(notes) + 1)}]"

    cells = {
        "params M": cell(number(row.num_params, 2, scale=1e-6), row.note), "GMAC": cell(number(row.macs, 2, scale=1e-9), row.note),
        "format": row.format,
    }
    for name, side in (("fp32", row.fp32), ("int8", row.int8)):
        ratio = MISSING if side.ratio is None else number(side.ratio.value, 2)
        cells |= {
            f"{name} %": cell(equal_share(side.agreement, 2), side.notes.get("agreement", "")),
            f"{name} MB": cell(number(side.size_bytes, 2, scale=1e-6), side.notes.get("size_bytes", "")),
            f"{name} ms": cell(ms(side.p50_ms), side.notes.get("p50_ms", "")),
            f"{name} x": cell(ratio, side.notes.get("p50_ms", "")),
        }
    return cells
