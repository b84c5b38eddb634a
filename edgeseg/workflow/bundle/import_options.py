"""The words of `edgeseg import` as values, checked before anything heavy is loaded."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Any, Final

from edgeseg.core.errors import ConfigError
from edgeseg.core.images import RESIZE_POLICIES
from edgeseg.core.resizers import RESIZERS
from edgeseg.workflow.bundle.importing import ImportRequest

_CHOICES: Final = {
    "order": ("rgb", "bgr", "gray"),
    "layout": ("NCHW", "NHWC"),
    "output_layout": ("NCHW", "NHWC"),
    "resize": RESIZE_POLICIES,
    "resizer": RESIZERS,
    "decision": ("argmax", "threshold", "class-map"),
    "scores": ("logits", "probabilities"),
}
_SIZE: Final = re.compile(r"(\d{1,5})[xX×](\d{1,5})\Z")


def request_of(*, classes: str, mean: str, scale: str, size: str, **options: Any) -> ImportRequest:  # noqa: ANN401
    """Parse what was typed.

    Raises:
        ConfigError: a word that is none of the choices (names the nearest), a number or a size that is none.
    """
    for name, choices in _CHOICES.items():
        value = options[name]
        if value and value not in choices:
            near = difflib.get_close_matches(value.lower(), [c.lower() for c in choices], n=1)
            hint = f"; did you mean {next(c for c in choices if c.lower() == near[0])}?" if near else ""
            raise ConfigError(f"--{name.replace('_', '-')} {value}: one of {', '.join(choices)}{hint}")
    return ImportRequest(
        classes=_classes(classes), mean=_numbers("--mean", mean), scale=_numbers("--scale", scale), size=_size(size), **options
    )


def _classes(text: str) -> tuple[str, ...]:
    path = Path(text)
    if text and "," not in text and path.is_file():
        text = ",".join(path.read_text(encoding="utf-8").splitlines())
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError as error:
        raise ConfigError(f"{option} {text}: expected a number, or one a channel with commas between: 123.675,116.28,103.53") from error
    if not all(math.isfinite(value) for value in values):
        raise ConfigError(f"{option} {text}: expected finite numbers")
    return values


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = _SIZE.match(text)
    if found is None or not all(16 <= int(side) <= 16384 for side in found.groups()):
        raise ConfigError(f"--size {text}: expected HEIGHTxWIDTH in pixels, at least 16x16, for example 512x512")
    return int(found[1]), int(found[2])
