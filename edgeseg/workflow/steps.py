"""Steps of a run, cached by content: a step is redone only when its inputs changed or its output is not what it wrote.

A step's key is everything its output depends on (parts of the config, hashes of its parents, versions of the tools). Its record,
`.steps/NAME.json`, is written after the output is complete, so a process killed in between redoes that one step and
nothing is ever taken for finished that is not.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeseg import __version__
from edgeseg.core.errors import InputMissingError
from edgeseg.core.files import read_json, sha256_file, sha256_json, write_json
from edgeseg.core.vendors import versions
from edgeseg.workflow.ui import Ui


def tools(*packages: str) -> dict[str, str]:
    """Versions a step's output depends on, for its key: edgeseg's own and those of the packages that are installed."""
    return {"edgeseg": __version__, **versions(*packages)}


def typed(verb: str, config: Path, overrides: tuple[str, ...] = ()) -> str:
    """Give the command that does `verb` for this very configuration, as a person would type it: edgeseg.toml need not be named."""
    words = ["edgeseg", verb, *([] if config == Path("edgeseg.toml") else [str(config)])]
    return shlex.join([*words, *(part for override in overrides for part in ("--set", override))])


def tree_sha256(path: Path) -> str:
    """Hash of a file, or of a folder's relative names and file contents."""
    if path.is_file():
        return sha256_file(path)
    return sha256_json({p.relative_to(path).as_posix(): sha256_file(p) for p in sorted(path.rglob("*")) if p.is_file()})


@dataclass(frozen=True)
class StepResult:
    """A finished step: where its output is, that output's hash, and whether it was found rather than made."""

    name: str
    output: Path
    sha256: str
    cached: bool
    seconds: float


@dataclass
class Steps:
    """The steps of one run folder.

    `only` = the kinds of step that may be done now; others must be there already. `config` and `overrides` = what the user typed.
    """

    folder: Path
    ui: Ui
    only: frozenset[str] | None = None
    config: Path = Path("edgeseg.toml")
    overrides: tuple[str, ...] = ()
    done: list[StepResult] = field(default_factory=list)

    def do(self, name: str, *, kind: str, key: Mapping[str, Any], output: Path, make: Callable[[Path], None]) -> StepResult:
        """Give the step's output, making it with `make(output)` if it is not there for exactly this `key`.

        `make` must put `output` in place atomically (`atomic_folder`, `write_json`).

        Raises:
            InputMissingError: it would have to be made and its kind is not among `only`.
        """
        key_sha256 = sha256_json(dict(key))
        record = self._record(name)
        if record.get("key_sha256") == key_sha256 and output.exists() and tree_sha256(output) == record.get("output_sha256"):
            return self._finish(StepResult(name, output, record["output_sha256"], True, record["seconds"]))
        if self.only is not None and kind not in self.only:
            raise InputMissingError(
                f"step '{name}' was not done for this configuration; type: {typed(kind, self.config, self.overrides)}, "
                f"or {typed('run', self.config, self.overrides)} for the whole chain"
            )
        started = time.monotonic()
        make(output)  # refused or killed, the record of what is still there stands: it holds that output's hash
        seconds = round(time.monotonic() - started, 3)
        digest = tree_sha256(output)
        write_json(
            self._path(name), {"name": name, "key_sha256": key_sha256, "key": dict(key), "output_sha256": digest, "seconds": seconds}
        )
        return self._finish(StepResult(name, output, digest, False, seconds))

    def again(self, verb: str) -> str:
        """The command that drops an interrupted training of `verb` (train, prune) and begins it again, for messages."""
        return f"{typed(verb, self.config, self.overrides)} --restart"

    def key_of(self, name: str) -> dict[str, Any]:
        """The key that a step was last done for; empty = it was not."""
        key = self._record(name).get("key")
        return key if isinstance(key, dict) else {}

    def _finish(self, result: StepResult) -> StepResult:
        self.done.append(result)
        self.ui.say(f"{result.name}: {'unchanged' if result.cached else f'done in {result.seconds:.1f} s'}")
        return result

    def _path(self, name: str) -> Path:
        return self.folder / ".steps" / f"{name}.json"

    def _record(self, name: str) -> dict[str, Any]:
        try:
            record = read_json(self._path(name))
        except (FileNotFoundError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}
