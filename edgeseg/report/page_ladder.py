"""The page's table of rungs: how int8 of each format was made, what each rung did and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgeseg.report.html import Html, el, join
from edgeseg.report.ladder import LadderFacts, RungFacts
from edgeseg.report.page_parts import table, tag
from edgeseg.report.words import percent

ABOUT: Final = ("Judged on training frames that calibration did not see (where there are too few for that it says so), never on "
                "val or test. A rung is climbed where the one before "
                "misses the goals; losses are in points against the fp32 bundle.")


def ladder_section(ladders: Sequence[LadderFacts]) -> Html:
    """A table a format, and under it all that was tried."""
    if not ladders:
        return el("p", "No int8 was made, or [quantize] rescue is off.", class_="muted")
    return join(_ladder(ladder) for ladder in ladders)


def _ladder(ladder: LadderFacts) -> Html:
    goals = ", ".join(f"{name} {limit:g}" for name, limit in ladder.goals.items())
    about = f"{ladder.num_frames} frames{', the ones that calibrate' if ladder.also_calibrates else ''}; asked for: {goals}."
    heads = ["Rung", "Best of it", ">mIoU", ">Lost", ">At most", "Worst class", ">Lost", ">As in float", ">MB", ">MACs in float", ""]
    rungs = table(heads, [_line(rung) for rung in ladder.rungs], name=f"Rungs of {ladder.bundle}", about=about)
    advice = el("p", el("b", "Not decided: " if ladder.undecided else "Not reached: "), ladder.advice) if ladder.advice else None
    details = [part for rung in ladder.rungs for part in (_tried(rung), _groups(rung)) if part is not None]
    return join([el("h3", ladder.bundle), rungs, advice, *details])


def _line(rung: RungFacts) -> Html:
    marks = [tag("kept", "good" if rung.reached else "warn")] if rung.kept else []
    cells = [
        (rung.best, "keep"), (_percent(rung.miou), "n"), (_points(rung.miou_drop), "n"), (_points(rung.miou_drop_high), "n"),
        (rung.worst_class or "-", None), (_points(rung.worst_drop), "n"), (_percent(rung.agreement), "n"),
        (f"{rung.size_bytes / 1e6:.2f}" if rung.size_bytes else "-", "n"), (percent(rung.float_macs_share), "n"), (join(marks), None),
    ]
    return el("tr", el("th", rung.name, scope="row"), *(el("td", value, class_=css) for value, css in cells))


def _tried(rung: RungFacts) -> Html:
    body = [
        el("tr", el("th", trial.label, scope="row"), el("td", _points(trial.miou_drop), class_="n"),
           el("td", _points(trial.worst_drop), class_="n"), el("td", _percent(trial.agreement), class_="n"))
        for trial in rung.tried
    ]
    heads = ["Tried", ">mIoU lost", ">Worst class lost", ">As in float"]
    return el("details", el("summary", f"{rung.name}: {len(rung.tried)} tried"), table(heads, body, name=f"Tried on the rung {rung.name}"))


def _groups(rung: RungFacts) -> Html | None:
    if not rung.groups:
        return None
    body = [
        el("tr", el("th", f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0], scope="row"), el("td", str(len(names)), class_="n"),
           el("td", f"{gain:+.2f}", class_="n"), el("td", tag("float", "warn") if kept else "int8"))
        for names, gain, kept in rung.groups
    ]
    about = "By how much the loss falls when these layers alone are float, as a share of the goal."
    kept = el("p", f"Kept float: {', '.join(rung.float_layers)}.") if rung.float_layers else None
    groups = table(["Layers", ">Count", ">Gain", ""], body, name=f"Layers on the rung {rung.name}", about=about)
    return el("details", el("summary", f"{rung.name}: which layers matter"), kept, groups)


def _points(drop: float | None) -> str:
    return "-" if drop is None else f"{100 * drop:+.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else percent(share, 2)
