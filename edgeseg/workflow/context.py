"""One run: its config, its folder, its lock. Everything a step needs to know about where it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.core.config import Config, load_config, render_toml
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import lock, sweep_temporaries, write_text
from edgeseg.workflow.steps import Steps
from edgeseg.workflow.ui import Ui

if TYPE_CHECKING:
    from edgeseg.training.loop import TrainProgress
    from edgeseg.workflow.learn.together import Crew

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True)
class RunContext:
    """An open run; valid inside `open_run`."""

    config: Config
    folder: Path
    steps: Steps
    ui: Ui
    resume: bool = True
    """Go on with a training that was interrupted; else it must not exist."""
    restart: bool = False
    """Drop a training that was interrupted."""
    crew: Crew | None = None
    """The processes that train together; `None` = this one alone."""
    trainings_here: int = 1
    """Trainings that share this machine, each in a process of its own; its threads are shared out among them."""
    on_training: Callable[[TrainProgress], None] | None = None
    """Told how a training goes, step by step; what it raises ends the training, which can be resumed."""

    @property
    def work(self) -> Path:
        """Folder for what is not finished yet."""
        return self.folder / "work"


def run_folder(config_path: Path, config: Config) -> Path:
    """Where the outputs of a config go: `runs/NAME` beside the file.

    Raises:
        ConfigError: the name would not make a sane folder.
    """
    if not _RUN_NAME.match(config.name):
        raise ConfigError(f"name = {config.name!r}: use up to 64 of A-Z a-z 0-9 . _ - and start with a letter or digit")
    return config_path.resolve().parent / "runs" / config.name


@contextmanager
def open_run(
    config_path: Path, overrides: tuple[str, ...], *, ui: Ui, only: frozenset[str] | None = None, resume: bool = True,
    restart: bool = False, crew: Crew | None = None,
) -> Iterator[RunContext]:
    """Load the config, take the run's lock, remove what a killed process left, and record the resolved config.

    Raises:
        BusyError: another process works on this run.
        ConfigError, InputMissingError: from `load_config`, or a `[data] dir` that is not set.
    """
    config = load_config(config_path, overrides)
    if not config.data.dir:
        raise ConfigError("[data] dir is not set; type: edgeseg init --data DIR")
    folder = run_folder(config_path, config)
    with lock(folder / ".lock", holder="edgeseg"):
        for place in (
            folder,
            folder / "work",
            folder / "checkpoints",
            folder / "bundles",
            folder / "quantized",
            folder / "verify",
            folder / "bench",
            folder / ".steps",
        ):
            sweep_temporaries(place)
        write_text(folder / "edgeseg.toml", render_toml(config, defaults=True))
        yield RunContext(config, folder, Steps(folder, ui, only, config_path, overrides), ui, resume, restart, crew)
