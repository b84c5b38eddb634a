"""The page's part on calibration: how many frames of each class int8 was calibrated on, and in what light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgeseg.report.html import Html, el, join
from edgeseg.report.page_parts import table

ABOUT: Final = "Training frames on which the ranges of int8 were set; none of them looks like a frame of val or test."
_LIGHT: Final = {"brightness": "Mean brightness (0 to 255)", "contrast": "Contrast (standard deviation)"}


def calibration_section(calibration: Mapping[str, Any]) -> Html:
    """Give the number of frames, those of each class, and the light, against all training frames looked at."""
    if "covers" not in calibration:
        return el("p", "No int8 bundle was made, or its calibration frames were not looked at.", class_="muted")
    chosen, there = calibration["covers"]["chosen"], calibration["covers"]["of"]
    said = f"{calibration['num_frames']} of {there['num_frames']} training frames, chosen to {calibration['way']}"
    said += f"; {calibration['refused']} refused as look-alikes of val or test" if calibration["refused"] else ""
    body = [
        _row(f"Frames with {name}", str(chosen["class_frames"].get(name, 0)), str(count))
        for name, count in there["class_frames"].items() if count
    ]
    body += [_row(words, _between(chosen[key]), _between(there[key])) for key, words in _LIGHT.items()]
    return join([el("p", f"{said}. Hash of their ids: {calibration['ids_sha256'][:12]}."),
                 table(["", ">Calibration", ">Training frames"], body, name="Calibration frames")])


def _row(name: str, chosen: str, there: str) -> Html:
    return el("tr", el("th", name, scope="row"), el("td", chosen, class_="n"), el("td", there, class_="n"))


def _between(ends: list[float]) -> str:
    return f"{ends[0]:.0f} to {ends[1]:.0f}"
