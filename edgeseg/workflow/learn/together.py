"""`edgeseg train` in several processes: who leads, who follows, and who starts them again when one dies.

Rank 0 leads: it holds the run's lock, checks the data, and does all that one process would do. The others wait until it says that there
is something to train, train with it, and write nothing. `torchrun` starts them, or `launch`, which is `torchrun`'s own engine with one
rule more: a process that was killed or crashed is worth another try, a mistake in the config is not.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeseg.core.config import load_config
from edgeseg.core.errors import ConfigError, TrainingError
from edgeseg.core.files import write_text
from edgeseg.core.lazy import require
from edgeseg.workflow.context import run_folder
from edgeseg.workflow.steps import typed
from edgeseg.workflow.ui import Ui

if TYPE_CHECKING:
    from edgeseg.training.ranks import Ranks

_LAUNCHED: Final = "EDGESEG_LAUNCHED"
"""Set for processes that `launch` starts, to `ID:ATTEMPT`; it speaks for them when one dies."""
_ABOUT_TO_END_S: Final = 60.0
_CRASHED: Final = 70
"""Exit code of an SDK that failed or of a bug; negative ones are signals. Others are errors that a second try would meet again."""


def in_group(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in environment and environment.get("WORLD_SIZE", "1") != "1"


def refuse_group(verb: str, environment: Mapping[str, str]) -> None:
    """Refuse a verb that works in one process.

    Raises:
        ConfigError: a launcher started several.
    """
    if in_group(environment):
        raise ConfigError(f"edgeseg {verb} works in one process, and {environment['WORLD_SIZE']} were started; "
                          f"train with torchrun -m edgeseg train, then type: edgeseg {verb}")


@dataclass
class Crew:
    """The processes of one training, as rank 0 sees them."""

    ranks: Ranks
    launch_id: str
    """Tells this launch from others; the same after the launcher restarted its processes."""
    restarts: int
    """How often the launcher did so."""
    _told: bool = False

    def goes_on(self, work: Path) -> bool:
        """Whether what is unfinished in `work` was begun by this very launch, whose processes were started again."""
        try:
            return self.restarts > 0 and (work / "launch").read_text(encoding="utf-8") == self.launch_id
        except FileNotFoundError:
            return False

    def begin(self, work: Path, *, resume: bool) -> None:
        """Call the others to the training in `work`."""
        write_text(work / "launch", self.launch_id)
        self._told = True
        self.ranks.told({"resume": resume})

    def release(self) -> None:
        """Send the others home where there was nothing to train, or no way to."""
        if not self._told:
            self._told = True
            self.ranks.told(None)


@contextmanager
def gathered(config_path: Path, overrides: tuple[str, ...], environment: Mapping[str, str]) -> Iterator[Crew]:
    """Meet the other processes that the launcher started.

    Raises:
        ConfigError: the batch cannot be split, or there are fewer GPUs than processes.
        TrainingError: the others cannot be reached.
    """
    require("torch", extra="train")
    from edgeseg.training.ranks import OthersLost, joined, ranks_of

    ranks = ranks_of(environment)
    if _LAUNCHED in environment:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
    cuda = _check(config_path, overrides, ranks.count, ranks.local_count)
    launch_id, _, attempt = environment.get(_LAUNCHED, "").partition(":")
    if not launch_id:  # torchrun: every start of it is another parent process
        launch_id, attempt = f"{environment['TORCHELASTIC_RUN_ID']}-{os.getppid()}", environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    crew = Crew(ranks, launch_id, int(attempt))
    try:
        with joined(ranks, cuda=cuda):
            try:
                yield crew
            finally:
                if ranks.is_first:
                    crew.release()
    except OthersLost:
        if _LAUNCHED in environment:  # `launch` has seen it too, says so, and is about to end this process
            time.sleep(_ABOUT_TO_END_S)
        raise


def _check(config_path: Path, overrides: tuple[str, ...], processes: int, local: int) -> bool:
    """Check what can be known before anything is started; say whether the training runs on GPUs."""
    from edgeseg.training.device import pick_device
    from edgeseg.training.loop import check_split

    section = load_config(config_path, overrides).train
    cuda = pick_device(section, local_count=local).type == "cuda"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not cuda and local > max(2, cores):
        shared, most = ("one core", "to try it out, two may share it") if cores == 1 else (f"{cores} cores", f"start at most {cores}")
        raise ConfigError(f"{local} processes would share {shared}, and more than one a core only slows the training down; {most}: "
                          f"{typed('train', config_path, overrides)} --devices {max(2, cores)}")
    check_split(section.batch_size, processes)
    return cuda


def launch(
    config_path: Path, overrides: tuple[str, ...], *, devices: int, max_restarts: int, resume: bool, restart: bool, json: bool, ui: Ui
) -> int:
    """Train in `devices` processes on this machine; give the exit code of a process that said itself why it failed, else 0.

    A process that dies takes the others with it, and all start again from the last checkpoint (without one, from the beginning),
    `max_restarts` times at most.

    Raises:
        ConfigError: see `gathered`.
        TrainingError: a process died once more than that.
    """
    require("torch", extra="train")
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if in_group(os.environ):
        raise ConfigError("torchrun started this process already; leave --devices out, or torchrun: edgeseg train --devices N")
    _check(config_path, overrides, devices, devices)
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # what it would say of a death is said below, in one line
    settings = [part for override in overrides for part in ("--set", override)]
    flags = [flag for flag, given in (("--resume", resume), ("--restart", restart), ("--json", json)) if given]
    arguments = ["-m", "edgeseg", "train", str(config_path), *settings, *flags]
    launch_id, folder = uuid.uuid4().hex, run_folder(config_path, load_config(config_path, overrides))
    for attempt in range(max_restarts + 1):
        plan = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=devices, run_id=f"{launch_id}-{attempt}", max_restarts=0,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
        )
        try:
            with _for_launcher(f"{launch_id}:{attempt}"):
                elastic_launch(plan, sys.executable)(*arguments)
            return 0
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in sorted(error.failures.items())}
        said, dead = verdict(codes)
        if said:
            return said
        words, kept = _words(dead), has_checkpoint(folder, launch_id, resumed=resume)
        if attempt < max_restarts:
            start = "the last checkpoint" if kept else "the beginning, no checkpoint was written yet"
            ui.say(f"{words}; all start again from {start} ({attempt + 1} of {max_restarts} restarts)")
    then = "the last checkpoint is kept: type the same command with --resume to go on" if kept else "no checkpoint was written"
    raise TrainingError(f"{words}, and {max_restarts} restarts are used up (--max-restarts); {then}")


def has_checkpoint(folder: Path, launch_id: str, *, resumed: bool) -> bool:
    """Whether the training that this launch began in the run's `folder`, or goes on with, has something to go on from."""
    from edgeseg.workflow.learn.learning import is_unfinished

    launches = (folder / "work").glob("train-*/launch")
    return any(is_unfinished(path.parent) for path in launches if resumed or path.read_text(encoding="utf-8") == launch_id)


def verdict(codes: Mapping[int, int]) -> tuple[int, Mapping[int, int]]:
    """What exit codes by rank mean: that of a process that said itself why it ends (0 = none did), and the processes that died.

    The launcher ends the others with SIGTERM, so that is a cause only where there is no other. Code 71 beside a death is a process that
    lost the others.
    """
    dead = {rank: code for rank, code in codes.items() if (code < 0 and code != -signal.SIGTERM) or code == _CRASHED}
    said = next((code for code in codes.values() if code > 0 and code != _CRASHED), 0)
    return (said if said < _CRASHED or not dead else 0), dead or codes


def _words(dead: Mapping[int, int]) -> str:
    rank, code = next(iter(dead.items()))
    return f"process {rank} " + (f"was killed by {signal.Signals(-code).name}" if code < 0 else "crashed")


@contextmanager
def _for_launcher(name: str) -> Iterator[None]:
    """Name the launch to its processes. The launcher puts its own signal handlers in place of ours; what ends it reaches ours after all."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = [signal.getsignal(number) for number in numbers]
    os.environ[_LAUNCHED] = name
    stopped: signal.Signals | None = None
    try:
        yield
    except SignalException as stop:
        stopped = stop.sigval
    finally:
        del os.environ[_LAUNCHED]
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    if stopped is not None:
        signal.raise_signal(stopped)
