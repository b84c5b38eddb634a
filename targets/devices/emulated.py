"""`emulated:BOARD`: a board's processor emulated on this machine. Its answers are verified; its times mean nothing and are refused."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edgeseg.core.errors import ConfigError, EdgesegError, MissingExtraError, TargetError
from edgeseg.core.files import cache_root
from targets.devices.base import Device, DeviceOptions, Job, Progress, install_otherwise, retold
from targets.devices.emulation.boards import BOARDS
from targets.devices.emulation.environment import Environment, open_environment
from targets.devices.local import collect, link_uploads
from targets.measure.process import run_worker

SCHEME: Final = "emulated"
_UNTIMED: Final = ("answer", "describe")
"""Jobs whose results do not hang on speed."""
_INSTALL_HERE: Final = r"type here: pip install 'edgeseg[\1]' (the emulation takes what this machine has)"


class EmulatedDevice:
    """Runs jobs of this machine's files on an emulated processor. Uploads are links: nothing is copied."""

    def __init__(self, board: str, name: str, cache: Path) -> None:
        """`board` = a key of `BOARDS`; `cache` = folder that keeps the environment."""
        self.address: Final = f"{SCHEME}:{board}"
        self.name: Final = name or self.address
        self._board = board
        self._cache = cache

    def prepare(self, say: Callable[[str], None]) -> Environment:
        """Give the environment, built where it is not there yet; see `open_environment` for what is raised."""
        return open_environment(self._cache, say)

    def run(self, job: Job, *, what: str, timeout_s: float, on_progress: Progress, into: Path | None = None) -> dict[str, Any]:
        """See `Device.run`; a job that takes times is refused (`TargetError`), and building the environment does not count as time."""
        if job.request["job"] not in _UNTIMED:
            refuse_times(self.address, what)
        interpreter = self.prepare(lambda words: on_progress(words, 0.0)).interpreter(self._board)
        with tempfile.TemporaryDirectory(prefix="edgeseg-job-") as name:
            folder = Path(name)
            link_uploads(job, folder)
            try:
                result = run_worker(
                    {**job.request, "folder": name}, what=what, timeout_s=timeout_s, on_progress=on_progress, interpreter=interpreter,
                )
            except MissingExtraError as error:
                told = str(retold(error, job.uploads, device=self.name))
                raise MissingExtraError(install_otherwise(told, _INSTALL_HERE)) from error
            except EdgesegError as error:
                raise retold(error, job.uploads, device=self.name) from error
            collect(job, folder, into)
            return result


def emulated_target(address: str) -> str:
    """The target whose processor is emulated at an address; empty where it is no emulated one."""
    scheme, _, board = address.partition(":")
    return board if scheme == SCHEME else ""


def refuse_times(address: str, what: str) -> None:
    """Refuse `what` (`measuring demo-int8`) where the address is an emulated board's.

    Raises:
        TargetError: it is; says what to give instead.
    """
    if emulated_target(address):
        raise TargetError(f"emulated: answers only; {what} on {address} would measure this machine, so give a board: "
                          "--device ssh://USER@BOARD, or a name of edgeseg devices list")


def open_emulated(address: str, name: str, options: DeviceOptions) -> Device:
    """Give an emulated board; nothing is built yet. See `targets.devices.open_device`."""
    board = emulated_target(address)
    if board not in BOARDS:
        known = ", ".join(f"{SCHEME}:{name}" for name in BOARDS)
        raise ConfigError(f"device '{address}': no such board is emulated; type one of {known}")
    if options != DeviceOptions():
        raise ConfigError(f"device '{address}' takes no options; its Python and its folders are edgeseg's own")
    return EmulatedDevice(board, name, cache_root(os.environ))
