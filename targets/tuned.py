"""`BUNDLE.tuned.json`: the settings that were found fastest, beside the bundle folder and never in it, for a bundle is data with a hash.

A file holds an entry for each machine, runtime (with its version), purpose and default that the bundle was tuned for. An entry is used only
where all of them and the bundle's hash are the same; else it is left alone, and words say why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, NamedTuple

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError, EdgesegError, explain_os_error
from edgeseg.core.files import read_json, write_json
from targets.boards.base import Plan
from targets.machine import Machine, describe_machine
from targets.runtimes import RUNTIMES
from targets.tuning.knobs import KNOBS, PURPOSES, fields_of, with_fields

SCHEMA: Final = 2
"""1 did not say what the target's own settings were."""
FINGERPRINT: Final = ("cpu", "cpu_vendor", "arch", "board", "cores", "cores_total", "os")
"""Facts of a machine that tuned settings hang on. Not among them: what changes by the hour (governor, load, temperature)."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was found on one machine."""

    machine: Mapping[str, str | int]
    """Its `FINGERPRINT`."""
    target: str
    """Whose own settings these were compared with."""
    runtime: str
    provider: str
    version: str
    """Of the runtime."""
    purpose: str
    """One of `PURPOSES`."""
    fields: Mapping[str, str | int | bool]
    """What the knobs stand at (`targets.tuning.knobs`)."""
    default: Mapping[str, str | int | bool]
    """What they stand at in the target's own settings: `gain` says nothing of another default."""
    gain: float
    """Time of the target's own settings over the time of these, interleaved; 1 where those were kept."""
    low: float
    high: float
    """Its 95 % interval."""
    same_answers: float
    """Least share of pixels, or of objects, that came out as with the target's own settings; 1 where those were kept."""
    quick: bool


class Tuned(NamedTuple):
    """What a tuned file has to say."""

    how: Plan | None
    """The tuned plan; `None` = nothing in it holds here."""
    words: str
    """What is used, or why nothing is; empty where there is no file."""


def tuned_path(folder: Path) -> Path:
    """Where the tuned settings of the bundle in `folder` lie."""
    whole = folder.resolve()
    return whole.with_name(f"{whole.name}.tuned.json")


def fingerprint(machine: Machine) -> dict[str, str | int]:
    """The facts of a machine that tuned settings hang on."""
    facts = asdict(machine)
    return {name: facts[name] for name in FINGERPRINT}


def load_tuned(
    bundle: Bundle, machine: Machine, *, how: Plan, purpose: str = "latency", version: str | None = None,
) -> Tuned:
    """Look for settings that were tuned for exactly this.

    Args:
        bundle: the bundle; the file lies beside its folder.
        machine: where it is going to run.
        how: the target's own plan; only what can be tuned is changed in it.
        purpose: `latency` or `throughput`.
        version: of the runtime there; left out = the one installed here.

    Raises:
        ConfigError: the file is there and is not one of ours.
    """
    path = tuned_path(bundle.folder)
    if not path.exists():
        return Tuned(None, "")
    sha256, raw = _read(path)
    if not sha256:
        return Tuned(None, f"{path.name} was written by an older edgeseg; {_again(bundle, purpose)}")
    if sha256 != bundle.manifest.sha256:
        return Tuned(None, f"{path.name} is for another bundle (the hashes differ); {_again(bundle, purpose)}")
    entries = _entries(path, raw)
    version = version or RUNTIMES[how.runtime].version() or ""
    own = fields_of(how) if (how.runtime, how.options.provider) in KNOBS else {}
    wanted = {"machine": fingerprint(machine), "runtime": how.runtime, "provider": how.options.provider, "version": version,
              "purpose": purpose, "default": own}
    found = next((entry for entry in entries if all(getattr(entry, name) == value for name, value in wanted.items())), None)
    if found is None:
        return Tuned(None, f"{path.name} does not hold here: {_difference(entries, wanted)}; {_again(bundle, purpose)}")
    try:
        tuned = with_fields(how, found.fields, cores=machine.cores)
    except (ValueError, EdgesegError) as error:
        raise _broken(path, str(error)) from error
    return Tuned(tuned, f"tuned for {purpose} ({entry_words(found)})")


class Settings(NamedTuple):
    """What a verb runs a bundle with, and what it says about that."""

    how: Plan
    words: str
    """`tuned for latency (...)`, or why not tuned; empty where there is nothing to say."""


def settings_for(
    bundle: Bundle, how: Plan, *, untuned: bool, asked: str, purpose: str = "latency", machine: Machine | None = None,
    version: str | None = None,
) -> Settings:
    """Give the tuned settings for a machine where there are any; what the caller was asked for goes before them.

    Args:
        bundle: the bundle.
        how: the target's own plan, with what was asked for.
        untuned: leave tuned settings alone, even a file that cannot be read.
        asked: option that sets what tuning sets too (`--threads`); empty = none was given.
        purpose: `latency` or `throughput`.
        machine: where it is going to run; `None` = here.
        version: of the runtime there; `None` = the one installed here.

    Raises:
        ConfigError: the tuned file cannot be read.
    """
    if untuned:
        return Settings(how, "")
    if asked:
        return Settings(how, f"not the tuned ones: {asked} was given" if tuned_path(bundle.folder).exists() else "")
    found = load_tuned(bundle, machine or describe_machine(), how=how, purpose=purpose, version=version)
    return Settings(found.how or how, found.words)


def entry_words(entry: Entry) -> str:
    """`num_threads=4, streams=1; 1.31 times as fast as the target's own, 95 % interval 1.25 to 1.36`."""
    gain = (f"{entry.gain:.2f} times as fast as the target's own, 95 % interval {entry.low:.2f} to {entry.high:.2f}"
            if entry.low > 1 else "nothing was clearly faster than the target's own")
    answers = "" if entry.same_answers >= 1 else f"; {entry.same_answers:.4%} of the answers as before"
    return f"{fields_words(entry.fields)}; {gain}{answers}{'; QUICK' if entry.quick else ''}"


def fields_words(fields: Mapping[str, Any]) -> str:
    """`num_threads=4, streams=1`."""
    return ", ".join(f"{name.removeprefix('extra.')}={value}" for name, value in fields.items())


def prepare_tuned(bundle: Bundle) -> None:
    """Find out whether settings can be kept beside a bundle, before minutes are spent on finding them.

    Raises:
        ConfigError: a file of that name is there and is not one of ours.
        NoPermissionError: the folder cannot be written.
        OutputError: its disk is full, or it cannot be locked.
    """
    path = tuned_path(bundle.folder)
    try:
        with _alone(path.parent), TemporaryFile(dir=path.parent) as probe:
            probe.write(b"{}")
            _for_bundle(path, bundle)
    except OSError as error:
        raise explain_os_error(OSError(error.errno, error.strerror, str(path)), doing="writing") from error


def save_tuned(bundle: Bundle, entry: Entry) -> Path:
    """Put an entry into the bundle's file, in place of an older one for the same. Gives the file.

    Entries for another bundle, and those of an older edgeseg, go.

    Raises:
        ConfigError: a file of that name is there and is not one of ours.
    """
    path = tuned_path(bundle.folder)
    with _alone(path.parent):
        kept = [one for one in _for_bundle(path, bundle) if _key(one) != _key(entry)]
        write_json(path, {
            "schema": SCHEMA, "bundle": bundle.manifest.name, "bundle_sha256": bundle.manifest.sha256,
            "entries": [asdict(one) for one in [*kept, entry]],
        })
    return path


def _key(entry: Entry) -> tuple[object, ...]:
    """A newer version of a runtime takes the place of an older."""
    return (entry.machine, entry.runtime, entry.provider, entry.purpose, entry.default)


def _difference(entries: list[Entry], wanted: Mapping[str, Any]) -> str:
    """In what the entry that comes nearest differs."""
    def missing(entry: Entry) -> list[str]:
        return [name for name, value in wanted.items() if getattr(entry, name) != value]

    if not entries:
        return "it has no entry"
    nearest = min(entries, key=lambda entry: len(missing(entry)))
    name = missing(nearest)[0]
    if name == "machine":
        got, want = nearest.machine, wanted["machine"]
        fact = next((fact for fact in FINGERPRINT if got[fact] != want[fact]), FINGERPRINT[0])
        return f"it is of a machine with {fact} = {got[fact]}, here it is {want[fact]}"
    if name == "default":
        return (f"it was found against {nearest.target} with {fields_words(nearest.default)}, "
                f"here the target's own are {fields_words(wanted[name])}")
    if name == "purpose":
        return f"it has nothing for {wanted[name]}"
    return f"it is for {name} {getattr(nearest, name)}, here it is {wanted[name]}"


def _again(bundle: Bundle, purpose: str) -> str:
    return f"type: edgeseg tune {bundle.folder}" + ("" if purpose == PURPOSES[0] else f" --for {purpose}")


def _broken(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path}: {why}; type edgeseg tune again after removing it, or add --untuned")


def _for_bundle(path: Path, bundle: Bundle) -> list[Entry]:
    """The entries that stay when one is added: those for this bundle."""
    sha256, raw = _read(path) if path.exists() else ("", [])
    return _entries(path, raw) if sha256 == bundle.manifest.sha256 else []


def _read(path: Path) -> tuple[str, list[object]]:
    """The hash of the bundle it is for, empty for a file of an older edgeseg, and its entries as they are there."""
    try:
        raw = read_json(path)
    except ValueError as error:
        raise _broken(path, f"not JSON ({error})") from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if type(schema) is int and 1 <= schema < SCHEMA:
        return "", []
    if schema != SCHEMA:
        raise _broken(path, f"not a file of tuned settings of schema {SCHEMA}")
    sha256, entries = raw.get("bundle_sha256"), raw.get("entries")
    if not isinstance(sha256, str) or not sha256 or not isinstance(entries, list):
        raise _broken(path, "bundle_sha256 or entries is missing")
    return sha256, entries


def _entries(path: Path, raw: list[object]) -> list[Entry]:
    return [_entry(path, number, one) for number, one in enumerate(raw)]


_TEXTS: Final = ("target", "runtime", "provider", "version", "purpose")
_NUMBERS: Final = ("gain", "low", "high", "same_answers")


def _entry(path: Path, number: int, raw: object) -> Entry:
    names = set(Entry.__dataclass_fields__)
    if not isinstance(raw, dict) or set(raw) != names:
        raise _broken(path, f"entries[{number}] has other keys than {', '.join(sorted(names))}")
    machine = raw["machine"]
    fits = (
        isinstance(machine, dict) and set(machine) == set(FINGERPRINT) and all(type(value) in (str, int) for value in machine.values())
        and all(type(raw[name]) is str for name in _TEXTS) and raw["purpose"] in PURPOSES
        and all(type(raw[name]) in (int, float) and raw[name] >= 0 for name in _NUMBERS) and type(raw["quick"]) is bool
        and all(
            isinstance(raw[name], dict) and all(type(value) in (str, int, bool) for value in raw[name].values())
            for name in ("fields", "default")
        )
    )
    if not fits:
        raise _broken(path, f"entries[{number}] holds a value of the wrong kind")
    return Entry(**raw)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder while a file in it is read and written: two boards may be tuned at once."""
    import fcntl  # POSIX only; imported here so that the module loads anywhere

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
