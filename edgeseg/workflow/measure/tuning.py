"""`edgeseg tune`: the fastest settings of a bundle on a board, found by measuring there and kept beside it."""

from __future__ import annotations

from pathlib import Path

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.errors import EdgesegError, InputMissingError, require_path
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.places import find_place
from edgeseg.workflow.ui import Ui
from targets.devices.inventory import find_device
from targets.tuned import fields_words, prepare_tuned, save_tuned
from targets.tuning.result import Row, TuneResult
from targets.tuning.tune import refuse_emulated
from targets.tuning.tune import tune as find_settings


def tune(
    folder: Path, *, target: str = "", device: str = "", purpose: str = "latency", data: Path | None = None, quick: bool = False,
    allow_arithmetic: bool = False, ui: Ui,
) -> Outcome:
    """Find the fastest settings of a bundle on a device (empty = here) and keep them beside it.

    Raises:
        TargetError: the target does not run it, there is nothing to tune, or the device is emulated.
        BundleError: it does not answer there as it was sealed.
        DeviceError: the device cannot be used.
        ConfigError, NoPermissionError, OutputError: what is found could not be kept beside the bundle.
    """
    bundle = open_bundle(require_path(folder, what="bundle"))
    frames = _frames(bundle, data)
    if device:
        refuse_emulated(find_device(device))
    prepare_tuned(bundle)
    place = find_place(device, ui=ui)
    target = target or place.target
    result = find_settings(
        bundle, frames, device=place.device, target=target, how=place.plan(target, bundle.manifest), purpose=purpose, quick=quick,
        allow_arithmetic=allow_arithmetic,
        on_progress=lambda stage, done: ui.progress(f"tuning: {stage}", round(100 * min(done, 1.0)), 100),
    )
    lines = result_lines(result)
    try:
        kept = save_tuned(bundle, result.entry())
    except (EdgesegError, OSError):  # since it was looked at; what took minutes is said all the same
        for line in lines:
            ui.say(line)
        raise
    facts = {**result.to_json(), "frames": "golden frames of the bundle" if data is None else str(data), "file": str(kept)}
    return Outcome((*lines, f"kept in {kept}"), facts)


def _frames(bundle: Bundle, data: Path | None) -> list[Path]:
    frames = [bundle.folder / pair.frame for pair in bundle.manifest.golden]
    if data is not None:
        from edgeseg.data.dataset import photographs

        frames = photographs(require_path(data, what="folder"))
    if not frames:
        raise InputMissingError(f"{data or bundle.folder} holds no images to measure with; type: edgeseg tune {bundle.folder} --data DIR")
    return frames


def result_lines(result: TuneResult) -> list[str]:
    """What tuning found, for a person."""
    elsewhere = "" if result.measured_on.is_target else f" NOT THE TARGET ({result.target})"
    unit = "p90 of a call" if result.purpose == "latency" else "time over frames"
    lines = [
        f"{result.bundle} in {result.runtime} {result.version}, for {result.purpose}, on {result.measured_on.machine}{elsewhere}"
        + (" QUICK" if result.quick else ""),
        f"{len(result.rows)} settings, {sum(row.cost_ms is not None for row in result.rows)} of them raced; ms = {unit}, ratio = to the "
        "best of its last round",
        *(_row(row) for row in result.rows),
    ]
    broke = next((row for row in result.rows if row.cost_ms is not None and row.reason), None)
    interval = f"95 % interval {result.low:.3f} to {result.high:.3f}, {result.blocks} pairs of blocks"
    if result.faster:
        lines.append(f"best: {fields_words(result.chosen)}: {result.gain:.3f} times as fast as the target's own settings ({interval})")
    elif result.blocks:
        place = "won the race" if broke is None else f"is the next after {fields_words(broke.fields)}, which broke in the check"
        lines.append(f"the target's own settings are kept: {fields_words(result.best)} {place}, but is not clearly faster: "
                     f"{result.gain:.3f} times as fast ({interval})")
    else:
        why = "none was faster in the race" if broke is None else (
            f"{fields_words(broke.fields)} won the race and broke in the check: {broke.reason}")
        lines.append(f"the target's own settings are kept: {why}")
    if result.same_answers < 1:
        arithmetic = f" --arithmetic {result.chosen['precision_hint']}" if "precision_hint" in result.chosen else ""
        lines.append(f"CHANGED ANSWERS: {result.same_answers:.4%} are as before; type: edgeseg verify BUNDLE --data DIR{arithmetic}")
    return lines


def _row(row: Row) -> str:
    what = f"  {fields_words(row.fields)}"
    if row.cost_ms is None:
        return f"{what}: {row.reason}"
    answers = "" if row.same_answers in (None, 1.0) else f"; {row.same_answers:.4%} of the answers as before"
    broke = f"; broke in the check: {row.reason}" if row.reason else ""
    return (f"{what}: {row.cost_ms:.3f} ms, ratio {row.ratio:.3f} ({row.low:.3f} to {row.high:.3f}) after {row.rounds} rounds"
            f"{answers}{broke}")
