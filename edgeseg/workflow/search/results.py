"""What comes out of a search: the front, the page, the configuration of the chosen point, and a few lines."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from edgeseg import __version__
from edgeseg.core.config import Config, render_toml
from edgeseg.core.encoders import IMAGENET
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import read_json, write_json, write_text
from edgeseg.report.page_search import SearchReport, SearchRow, render_search_page
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.search.front import Limits, Value, choose, nearest, pareto, shortfall
from edgeseg.workflow.search.space import Point, Space, chosen_config, size_of
from edgeseg.workflow.search.trial import Environment
from edgeseg.workflow.search.worker import counts

_MARK: Final = "# Written by edgeseg search; SHA-256 of what follows: "


def best_path(config_path: Path) -> Path:
    """Where the configuration of the chosen point goes: `edgeseg-best.toml` beside `edgeseg.toml`."""
    return config_path.with_name(f"{config_path.stem}-best.toml")


def check_best(path: Path) -> None:
    """Refuse to replace a file that no search wrote, or that was edited since.

    Raises:
        ConfigError: there is one.
    """
    if not path.exists():
        return
    mark, _, rest = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    if not mark.startswith(_MARK):
        raise ConfigError(f"{path} was not written by a search and would be replaced; rename it")
    if mark != _mark(rest):
        raise ConfigError(f"{path} was edited since a search wrote it and would be replaced; rename it")


def _mark(rest: str) -> str:
    return f"{_MARK}{hashlib.sha256(rest.encode()).hexdigest()}"


def conclude(env: Environment, study: Any, space: Space, best: Path, ended: str) -> Outcome:  # noqa: ANN401 - optuna.Study
    """Write `results.json` and `report.html` into the search's folder, and the configuration of the chosen point to `best`."""
    rows = rows_of(study.get_trials(deepcopy=False), space, env.config, env.limits)
    chosen = next((row for row in rows if row.chosen), None)
    verdict = _verdict(rows, env.limits, best, chosen)
    toml = ""
    if chosen is None:
        best.unlink(missing_ok=True)  # of an earlier search; `check_best` has seen that it is one
    else:
        toml = _toml(env.config, _point(chosen, space, study), best.parent, chosen)
        write_text(best, toml)
    passed = None if not env.limits.asked else chosen is not None
    report = _report(env, rows, verdict, passed, ended, toml)
    results = env.folder / "results.json"
    write_json(results, {
        "run": env.config.name, "passed": passed, "verdict": verdict, "ended": ended, "goals": asdict(env.limits),
        "front": [row.trial for row in rows if row.on_front], "chosen": chosen.trial if chosen else None,
        "config": best.name if chosen else None, "measured": list(report.measured), "trials": [row.to_json() for row in rows],
    })
    page = env.folder / "report.html"
    write_text(page, render_search_page(report))
    lines = [f"{ended}: {_tally(rows)}", *(_line(row) for row in sorted(rows, key=lambda row: row.p90_ms or 0.0) if row.on_front), verdict,
             *report.notes, f"Page: {page}"]
    return Outcome(tuple(lines), read_json(results), passed is not False)


def rows_of(trials: Sequence[Any], space: Space, config: Config, limits: Limits) -> tuple[SearchRow, ...]:
    """The trials that count, in order, with the front and the chosen one marked."""
    rows: list[SearchRow] = []
    values: list[tuple[int, Value]] = []
    for trial in trials:
        if not counts(trial) or len(trial.params) < 5:  # one that died before it had chosen its point
            continue
        point, attrs = space.point_of(trial.params), trial.user_attrs
        row = SearchRow(
            trial=trial.number, state=attrs.get("kind", trial.state.name.lower()), network=point.network, width=point.width,
            size_hw=size_of(config, point.scale), macs_share=point.macs_share, precision=point.precision, note=attrs.get("reason", ""),
        )
        if trial.state.name == "COMPLETE":
            value, places = Value(**attrs["value"]), attrs["places"]
            slowest = max(places, key=lambda place: place["p90_ms"])
            row = replace(
                row, miou=value.miou, miou_low=value.miou_low, p90_ms=value.p90_ms, low_ms=slowest["low_ms"], high_ms=slowest["high_ms"],
                size_bytes=value.size_bytes, places=tuple(places), meets_goals=value.meets(limits),
            )
            values.append((len(rows), value))
        rows.append(row)
    for position in pareto([value for _, value in values]):
        rows[values[position][0]] = replace(rows[values[position][0]], on_front=True)
    best = choose([value for _, value in values], limits)
    if best is not None:
        rows[values[best][0]] = replace(rows[values[best][0]], chosen=True)
    return tuple(rows)


def _verdict(rows: Sequence[SearchRow], limits: Limits, best: Path, chosen: SearchRow | None) -> str:
    if chosen is not None:
        of = "the best mIoU that meets the goals" if limits.asked else "the best mIoU; no goals are set ([goals] p90_ms, size_mb, miou)"
        return (f"Chosen: trial {chosen.trial} ({chosen.words}), {of}: mIoU {chosen.miou:.4f} on val, p90 {chosen.p90_ms:.3g} ms. "
                f"Train it in full: edgeseg run {best.name}")
    measured = [row for row in rows if row.miou is not None]
    values = [
        Value(miou=row.miou or 0.0, miou_low=row.miou_low, p90_ms=row.p90_ms or 0.0, size_bytes=row.size_bytes or 0) for row in measured
    ]
    near = nearest(values, limits)
    if near is None:
        reasons = sorted({row.note for row in rows if row.note})
        return f"No point gave a value; no configuration was written. {reasons[0] if reasons else ''}".strip()
    return (f"No point meets the goals; no configuration was written. Nearest: trial {measured[near].trial} ({measured[near].words}): "
            f"{shortfall(values[near], limits)}.")


def _point(row: SearchRow, space: Space, study: Any) -> Point:  # noqa: ANN401 - optuna.Study
    return space.point_of(study.get_trials(deepcopy=False)[row.trial].params)


def _toml(config: Config, point: Point, folder: Path, row: SearchRow) -> str:
    """The chosen configuration as a file, with paths relative to it."""
    chosen = chosen_config(config, point)
    chosen = replace(chosen, data=replace(chosen.data, dir=_relative(chosen.data.dir, folder)))
    if chosen.model.encoder_weights not in ("", IMAGENET):
        chosen = replace(chosen, model=replace(chosen.model, encoder_weights=_relative(chosen.model.encoder_weights, folder)))
    if chosen.train.teacher:
        chosen = replace(chosen, train=replace(chosen.train, teacher=_relative(chosen.train.teacher, folder)))
    head = f"# Trial {row.trial}: mIoU {row.miou:.4f} on val after {config.search.epochs} epochs, p90 {row.p90_ms:.3g} ms."
    rest = f"{head}\n{render_toml(chosen, defaults=False)}"
    return f"{_mark(rest)}\n{rest}"


def _relative(path: str, folder: Path) -> str:
    return Path(os.path.relpath(path, folder.resolve())).as_posix()


def _report(env: Environment, rows: tuple[SearchRow, ...], verdict: str, passed: bool | None, ended: str, toml: str) -> SearchReport:
    measured = []
    for place in env.places:
        facts, idle = place.facts(), env.stopwatch.baseline_facts(place)
        measured.append(
            f"{', '.join(place.targets)}: {place.format} in {facts['runtime']} {facts['runtime_version']}, {place.how.options.num_threads} "
            f"threads, on {facts['machine']}: in blocks between those of the untrained network of [model], whose p90 was "
            f"{idle['p90_ms']:.3g} ms before the first training, with {idle['load']:.1f} other processes a core."
        )
    running = sum(row.state == "running" for row in rows)
    notes = ["Times are quick measurements of one inference at model size; edgeseg run measures the chosen point in full."]
    if running:
        notes.append(f"{running} still running in other processes; the last one to end writes this anew.")
    return SearchReport(
        run_name=env.config.name, created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        edgeseg_version=__version__, dataset=env.data.dataset.name, epochs=env.config.search.epochs, measured=tuple(measured),
        p90_limit_ms=env.limits.p90_ms, miou_limit=env.limits.miou, verdict=verdict, passed=passed, rows=rows, notes=tuple(notes),
        config_toml=toml, pairs={"tried": _tally(rows), "ended": ended},
    )


def _tally(rows: Sequence[SearchRow]) -> str:
    kinds = [row.state for row in rows]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(["complete", *kinds]))


def _line(row: SearchRow) -> str:
    mark = " <- chosen" if row.chosen else "" if row.meets_goals else " (misses a goal)"
    return f"  trial {row.trial}: mIoU {row.miou:.4f}, p90 {row.p90_ms:.3g} ms, {(row.size_bytes or 0) / 1e6:.2f} MB: {row.words}{mark}"
