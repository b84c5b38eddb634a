"""The result of a job, before it is believed: made of JSON by the types of the dataclass it has to be.

The hash of a board's code says what it should send, not what it does: it may be broken, or another machine in its place.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeVar, get_args, get_origin

from edgeseg.core.errors import DeviceError, EdgesegError
from edgeseg.core.stats import ABOVE_0
from targets.devices.words import nonsense

_SHOWN_CHARACTERS: Final = 40
_WORDS: Final[Mapping[Any, str]] = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}

T = TypeVar("T")


class _MisfitError(Exception):
    """A value that is not what its type says; the message says where and what."""


def received(kind: type[T], raw: Mapping[str, Any], name: str) -> T:
    """Make a dataclass of what the device `name` sent of it.

    A field with a default may be missing, another field may not be there. `Annotated[Mapping[str, Any], Facts]` is the JSON of another
    dataclass: it is made anew from that one's fields, so that what `to_json` adds to them holds too; where `Facts` is a `TypedDict` it is
    checked key by key. `Annotated[float, ABOVE_0]` is what will be divided by.

    Raises:
        DeviceError: it is none; says which field is wrong.
    """
    try:
        made: T = _made(kind, raw, "")
    except _MisfitError as misfit:
        raise _refusal(kind, misfit, name) from None
    return made


def _refusal(kind: type, misfit: _MisfitError, name: str) -> DeviceError:
    return nonsense(name, f"in {kind.__name__.lstrip('_')}: {misfit}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _made(kind: type, raw: object, where: str, *, more: bool = False) -> Any:  # noqa: ANN401 - of `kind`
    """A dataclass; `more` = fields it does not have are passed over."""
    fields = dataclasses.fields(kind)
    needed = {one.name for one in fields if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING}
    values = _keys(raw, {one.name: _hints(kind)[one.name] for one in fields}, needed, where, more=more)
    try:
        return kind(**values)
    except (ValueError, EdgesegError) as error:  # what the class itself refuses
        raise _MisfitError(f"{where or kind.__name__} says {error}") from error


def _keys(raw: object, hints: Mapping[str, Any], needed: collections.abc.Set[str], where: str, *, more: bool = False) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _misfit(raw, "an object", where)
    inside = f"{where}." if where else ""
    for key in sorted(needed - raw.keys()):
        raise _MisfitError(f"{inside}{key} is missing")
    for key in sorted(raw.keys() - hints.keys()):
        if not more:
            raise _MisfitError(f"{inside}{key[:_SHOWN_CHARACTERS]} is no field of it")
    return {key: _fit(hints[key], value, f"{inside}{key}") for key, value in raw.items() if key in hints}


def _fit(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - any type, any JSON value
    """Give a JSON value as what a type says it is."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint in _WORDS:
        return _scalar(hint, value, where)
    if typing.is_typeddict(hint):
        return _keys(value, _hints(hint), hint.__required_keys__, where)
    if dataclasses.is_dataclass(hint):
        return _made(typing.cast(type, hint), value, where)
    for kinds, fit in _GENERIC.items():
        if origin in kinds:
            return fit(args, value, where)
    raise TypeError(f"{where}: a field of type {hint} is not received")


def _scalar(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - see `_fit`
    kinds = (int, float) if hint is float else hint
    if isinstance(value, kinds) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _misfit(value, _WORDS[hint], where)


def _annotated(args: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401 - see `_fit`
    inner, facts = args
    fitting = _fit(inner, value, where)
    if facts == ABOVE_0:
        if fitting > 0:
            return fitting
        raise _misfit(value, "a number above 0", where)
    if typing.is_typeddict(facts):
        return _fit(facts, value, where)
    found = _made(facts, value, where, more=True)
    try:
        return found.to_json() if hasattr(found, "to_json") else dataclasses.asdict(found)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # fields that do not go together
        raise _MisfitError(f"{where} holds what does not go together") from error


def _union(args: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401 - see `_fit`
    misfits = []
    for one in args:
        try:
            return _fit(one, value, where)
        except _MisfitError as misfit:
            misfits.append(misfit)
    raise misfits[0]


def _literal(args: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401 - see `_fit`
    if isinstance(value, str) and value in args:
        return value
    raise _misfit(value, f"one of {', '.join(map(repr, args))}", where)


def _tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:  # noqa: ANN401 - see `_fit`
    hints = args[:1] * len(_list_of(value, where)) if args[-1] is Ellipsis else args
    if len(hints) != len(_list_of(value, where)):
        raise _MisfitError(f"{where} has {len(value)} values, not {len(hints)}")
    return tuple(_fit(hint, one, f"{where}[{place}]") for place, (hint, one) in enumerate(zip(hints, value, strict=True)))


def _many(args: tuple[Any, ...], value: Any, where: str) -> list[Any]:  # noqa: ANN401 - see `_fit`
    return [_fit(args[0], one, f"{where}[{place}]") for place, one in enumerate(_list_of(value, where))]


def _set(args: tuple[Any, ...], value: Any, where: str) -> frozenset[Any]:  # noqa: ANN401 - see `_fit`
    return frozenset(_many(args, value, where))


def _mapping(args: tuple[Any, ...], value: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - see `_fit`
    if not isinstance(value, dict):
        raise _misfit(value, "an object", where)
    return {key: _fit(args[1], one, f"{where}.{key[:_SHOWN_CHARACTERS]}") for key, one in value.items()}


_GENERIC: Final[Mapping[tuple[Any, ...], Callable[[tuple[Any, ...], Any, str], Any]]] = {
    (typing.Annotated,): _annotated, (typing.Union, types.UnionType): _union, (typing.Literal,): _literal, (tuple,): _tuple,
    (list, collections.abc.Sequence): _many, (frozenset,): _set, (dict, collections.abc.Mapping): _mapping,
}


def _list_of(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _misfit(value, "a list", where)
    return value


def _misfit(value: object, expected: str, where: str) -> _MisfitError:
    got = _WORDS.get(type(value), "an object" if isinstance(value, dict) else "a list")
    shown = f" {str(value)[:_SHOWN_CHARACTERS]}" if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    return _MisfitError(f"{where or 'all of it'} is {got}{shown}, not {expected}")
