"""Before the first run: what is in the data, and a config that fits it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeseg.core.config import Config, GoalsSection, ModelSection, TrainSection, config_of, render_toml
from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.files import write_text
from edgeseg.data.base import counted
from edgeseg.data.check import DataReport, check_dataset
from edgeseg.data.inspect import Findings, inspect_folder
from edgeseg.data.sheet import write_sheet
from edgeseg.workflow.steps import typed
from edgeseg.workflow.ui import Ui

_STEPS_WANTED = 6000
"""Optimiser steps a compact network needs from scratch to be useful; fewer frames mean more epochs."""


@dataclass(frozen=True)
class InitResult:
    """What `init` found and wrote."""

    config_path: Path
    findings: Findings
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found that would stop a training."""
        return not self.findings.num_problems

    def to_json(self) -> dict[str, Any]:
        """Give the findings and the path as JSON values."""
        return {"config": str(self.config_path), "ok": self.ok, **self.findings.to_json()}


def all_defaults() -> str:
    """Every key with its default, as TOML."""
    return render_toml(Config(), defaults=True)


def init(data: Path, out: Path, *, every_key: bool, force: bool, overrides: tuple[str, ...] = ()) -> InitResult:
    """Inspect `data` and write a config that fits it to `out`; `overrides` (`--set`) say how to read the data, and which network.

    Where something has to be mended first, the config is written all the same, and the last line names `edgeseg data check`.

    Raises:
        ConfigError: `out` exists and `force` is not given, an override is not of `[data]` or `[model]`, or a network of objects for data
            that do not tell them apart.
        InputMissingError, DataError: `data` holds nothing usable.
    """
    strange = [override for override in overrides if not override.strip().startswith(("data.", "model."))]
    if strange:
        raise ConfigError(f"init takes --set of [data] and [model] only, not {strange[0]}; give it to edgeseg run, or write it into {out}")
    wanted = config_of(overrides)
    findings = inspect_folder(data, section=wanted.data)
    if not any(findings.num_frames.values()):
        raise DataError(f"{data}: {findings.layout} layout, and no labelled frame can be used; {findings.warnings[0]}")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; type: edgeseg init --data {data} --force to replace it, or --out FILE for another name")
    if wanted.model.task == "instance" and not findings.has_objects:
        raise ConfigError(f"{wanted.model.name} finds objects one by one, and the labels of {data} are class maps, which do not tell them "
                          "apart (docs/data.md says which layouts do); leave --set model.name out")
    config = suggest(findings, data=data, out=out, model=wanted.model)
    config_of((*overrides, f"data.size={list(config.data.size)}"))  # an encoder may need larger frames
    write_text(out, render_toml(config, defaults=every_key))
    counts = ", ".join(f"{split} {n}" for split, n in findings.num_frames.items())
    sizes = ", ".join(f"{size} ({n})" for size, n in list(findings.frame_sizes.items())[:4]) + (
        ", ..." if len(findings.frame_sizes) > 4 else ""
    )
    lines = (
        f"{data}: {findings.layout} layout, {counts} ({findings.split_rule})",
        *(f"data: {note}" for note in findings.notes),
        f"classes: {', '.join(findings.classes)}",
        f"frames (width x height): {sizes}; model size {config.data.size[0]}x{config.data.size[1]} (height x width)",
        *(f"note: {warning}" for warning in findings.warnings),
        *_about_objects(findings, config),
        f"wrote {out}; {_next(findings, data, out, overrides)}",
    )
    return InitResult(out, findings, lines)


def _about_objects(findings: Findings, config: Config) -> tuple[str, ...]:
    if not findings.has_objects or config.model.task == "instance":
        return ()
    return ("note: the labels tell objects apart; --set model.name=mask_rcnn makes a network that finds them one by one",)


def _next(findings: Findings, data: Path, out: Path, overrides: tuple[str, ...]) -> str:
    if findings.num_problems:
        given = [f"--set {shlex.quote(one)}" for one in overrides if one.startswith("data.") and one != "data.layout=auto"]
        return f"no training will start before the data is mended; type: {' '.join(['edgeseg data check', shlex.quote(str(data)), *given])}"
    if not (findings.num_frames.get("train") and findings.num_frames.get("val")):
        return f"there is enough to verify a bundle with: edgeseg verify BUNDLE --data {shlex.quote(str(data))}"
    return f"next: {typed('run', out)}"


def suggest(findings: Findings, *, data: Path, out: Path, model: ModelSection) -> Config:
    """A config for what was found: enough epochs for the number of frames, goals worth having, targets of this tool."""
    num_train = findings.num_frames.get("train", 1)
    batch = max(1, min(8, num_train))
    epochs = max(40, min(600, round(_STEPS_WANTED * batch / max(num_train, 1) / 10) * 10))
    relative = Path(os.path.relpath(data.resolve(), out.resolve().parent)).as_posix()
    eval_split = "test" if "test" in findings.num_frames else "val"
    return replace(
        Config(),
        name="".join(c if c.isascii() and c.isalnum() else "-" for c in data.resolve().name).strip("-")[:40].strip("-") or "run",
        targets=("host", "intel-cpu", "raspberry-pi-5"),
        data=replace(findings.section, dir=relative, eval_split=eval_split),
        train=replace(TrainSection(), batch_size=batch, epochs=epochs),
        model=model,
        goals=GoalsSection(agreement=0.999, **{"ap_drop" if model.task == "instance" else "miou_drop": 0.01}),
    )


def check_data(folder: Path, classes: tuple[str, ...], overrides: tuple[str, ...], *, sheet: Path | None, ui: Ui) -> DataReport:
    """Run the full check of `edgeseg data check`, and write the sheet of overlays where one is wanted."""
    strange = [override for override in overrides if not override.strip().startswith("data.")]
    if strange:
        raise ConfigError(f"data check takes --set of [data] only, not {strange[0]}")
    if sheet is not None and (sheet.is_dir() or sheet.suffix.lower() != ".png"):
        raise ConfigError(f"--sheet {sheet}{' is a folder' if sheet.is_dir() else ''}: name a file that ends in .png")
    section = config_of(overrides).data
    section = replace(section, dir=str(folder), classes=classes or section.classes)
    report = check_dataset(section, seed=0, progress=lambda done, total: ui.progress("checking", done, total))
    if sheet is not None:
        ui.say(f"wrote {sheet}: {counted(write_sheet(sheet, section, seed=0), 'frame')} with labels")
    return report


def data_report_lines(report: DataReport) -> list[str]:
    """The report for the terminal: counts, class shares, warnings, then every problem."""
    lines = [f"{report.root}: {report.layout} layout{report.split_rule and ', '}{report.split_rule}"]
    lines += [f"data: {note}" for note in report.notes]
    for split, count in report.num_frames.items():
        objects = f", {counted(sum(report.num_objects[split]), 'object')}" if split in report.num_objects else ""
        lines.append(f"{split}: {counted(count, 'frame')}{objects}")
    lines += _class_lines(report)
    lines += [f"warning: {warning.file}: {warning.message}" for warning in report.warnings]
    lines += [f"{problem.file}: {problem.message}" for problem in report.problems]
    count = len(report.problems)
    lines.append("no problems found" if not count else f"{counted(count, 'problem')} found")
    return lines


def _class_lines(report: DataReport) -> list[str]:
    """A line for each class that occurs, one for all others; none where values are no classes, or nothing is labelled."""
    rows = {split: shares for split, shares in report.class_share.items() if any(shares)}
    if not rows or any(problem.kind == "class-gaps" for problem in report.problems):
        return []
    lines, absent = [], []
    for index, name in enumerate(report.classes):
        shares = {split: row[index] for split, row in rows.items() if index < len(row)}
        if any(shares.values()):
            words = ", ".join(f"{split} {_share(share)}" for split, share in shares.items())
            lines.append(f"  {name}: {words} of the labelled pixels")
        else:
            absent.append(name)
    if absent:
        more = f" and {len(absent) - 8} more" if len(absent) > 8 else ""
        lines.append(f"  nowhere: {', '.join(absent[:8])}{more}")
    return lines


def _share(share: float) -> str:
    """A share of pixels; what is there never reads as 0, and what is absent has no number."""
    return "absent" if share == 0 else "under 0.01%" if share < 0.0001 else f"{share:.2%}"


def get_data(name: str, out: Path, *, accept_license: bool, ui: Ui) -> dict[str, str]:
    """Fetch a public data set to `out`; see `edgeseg.data.get.get.get_dataset` for what is raised."""
    from edgeseg.data.get.get import find_source, get_dataset

    source = find_source(name)
    folder = get_dataset(
        name, out, accept_license=accept_license, say=ui.say,
        progress=lambda done, total: ui.progress(f"downloading {name} (MB)", done // 1_000_000, (total or done + 1_000_000) // 1_000_000),
    )
    return {"name": name, "folder": str(folder), "title": source.title, "licence": source.licence, "citation": source.citation}
