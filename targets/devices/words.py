"""What a board says, before it is believed: shape, size and characters; and what both ends begin with.

A board may be another machine than one thinks, or broken: whatever it says ends as an answer or in one line, never in a traceback.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from edgeseg.core.errors import DeviceError, GoalMissed, GoalUndecided, RuntimeFailure

GREETING: Final = "edgeseg-board"
"""First word of our own lines; login scripts may print others."""
LEAST_PYTHON: Final = (3, 10)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would obey instead of showing it, and what is no character at all."""
_MOST: Final = 2.0 ** 64
"""No number that a board has to tell is larger; nor is what JSON does not have, NaN and infinity."""
_OURS: Final = (GoalMissed.__name__, GoalUndecided.__name__)
"""Goals are judged here: no board can say that one was missed."""

T = TypeVar("T")


def plain(text: str) -> str:
    """Give a text without what a terminal would obey."""
    return _CONTROL.sub(" ", text)


def nonsense(name: str, what: str) -> DeviceError:
    """Give the error for a board that says what cannot be meant."""
    return DeviceError(f"{name} says what edgeseg does not understand ({what}); is it the machine you think it is? "
                       f"If it is, type: edgeseg devices setup {name}")


def parsed(data: bytes | str, name: str) -> dict[str, Any]:
    """Give the JSON object of a line; all its texts are `plain`, all its numbers finite and of a size that can be meant.

    Raises:
        DeviceError: it is none.
    """
    try:
        message = _plain_values(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise nonsense(name, "no JSON") from error
    if not isinstance(message, dict):
        raise nonsense(name, "no JSON object")
    return message


def field(message: Mapping[str, Any], key: str, kind: type[T], name: str) -> T:
    """Give a field of a message.

    Raises:
        DeviceError: it is not there, or of another kind.
    """
    value = message.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise nonsense(name, f"no {key}")
    return value


def told_error(message: Mapping[str, Any], name: str) -> dict[str, str]:
    """Give what a message says of an error, its kind and its words (see `targets.measure.process.same_error`).

    Raises:
        DeviceError: it does not say that.
    """
    raw = field(message, "error", dict, name)
    kind, words = field(raw, "type", str, name), field(raw, "message", str, name)
    return {"type": RuntimeFailure.__name__ if kind in _OURS else kind, "message": words}


def worker_line(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Give the worker's line that a message passes on: progress, a result or an error.

    Raises:
        DeviceError: it is none of them.
    """
    line = field(message, "worker", dict, name)
    if "stage" in line:
        done = line.get("done")
        if not isinstance(done, (int, float)):
            raise nonsense(name, "no done")
        return {"stage": field(line, "stage", str, name), "done": done}
    if "error" in line:
        return {"error": told_error(line, name)}
    return {"result": field(line, "result", dict, name)}


def _plain_values(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, (int, float)) and not abs(value) <= _MOST:
        raise ValueError("no number that can be meant")
    if isinstance(value, list):
        return [_plain_values(one) for one in value]
    if isinstance(value, dict):
        return {plain(key): _plain_values(one) for key, one in value.items()}
    return value
