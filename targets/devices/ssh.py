"""A board over SSH: `ssh://user@host[:port]`.

What runs there is edgeseg itself, from the environment `edgeseg devices setup` made: a keeper (`targets.devices.keeper`), which sshd
starts, and its worker. The name of that Python is all that passes a shell; everything else goes over the keeper's stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import secrets
import shlex
import socket
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.errors import DeviceError, EdgesegError, MissingExtraError, require_path
from edgeseg.core.files import atomic_folder, sha256_file
from edgeseg.core.lazy import require
from targets.devices.address import parse_ssh
from targets.devices.base import Device, DeviceOptions, Job, Progress, install_otherwise, retold
from targets.devices.times import Times, within
from targets.devices.words import plain
from targets.measure.process import WorkerLines

if TYPE_CHECKING:
    from targets.devices.session import BoardSession

BOARD_PYTHON: Final = "~/.local/share/edgeseg/venv/bin/python"
"""Where `edgeseg devices setup` puts the environment."""
BOARD_FOLDER: Final = "~/.cache/edgeseg/device"
"""What a board was sent, and its lock."""
_GOODBYE_S: Final = 5.0

Files = dict[str, tuple[Path, str, int]]
"""Place in the job's folder -> file, its SHA-256, its bytes."""


class SshDevice:
    """Runs jobs on a board, through its sshd."""

    def __init__(self, address: str, name: str, options: DeviceOptions, times: Times | None = None) -> None:
        """Nothing is contacted; see `open_ssh`."""
        self.name, self.address = name or address, address
        self._where, self._options, self._times = parse_ssh(address), options, times or Times()
        self._python = options.python or BOARD_PYTHON

    def run(self, job: Job, *, what: str, timeout_s: float, on_progress: Progress, into: Path | None = None) -> dict[str, Any]:
        """See `Device.run`."""
        files = _files(job.uploads)
        lines = WorkerLines(what, on_progress, board=self.name)
        with contextlib.ExitStack() as stack:
            assert into is not None or not job.downloads, "a job with downloads needs a folder for them"
            folders = {name: stack.enter_context(atomic_folder(into / name)) for name in job.downloads} if into is not None else {}
            return asyncio.run(self._run(job, files, lines, folders, what=what, timeout_s=timeout_s, on_progress=on_progress))

    async def _run(
        self, job: Job, files: Files, lines: WorkerLines, folders: Mapping[str, Path], *, what: str, timeout_s: float,
        on_progress: Progress,
    ) -> dict[str, Any]:
        from targets.devices.session import LostError

        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        hello = {"holder": f"{who()}, {what}, since {since}", "session": secrets.token_hex(16),
                 "folder": self._options.folder or BOARD_FOLDER}
        pauses = iter(self._times.again_s)
        lost: DeviceError | None = None
        while True:
            working = False
            try:
                async with self._session() as session:
                    await session.greet(hello)
                    await session.upload(files, on_progress)
                    working = True
                    result = await self._work(session, job, lines, timeout_s)
                    if folders:
                        await session.download(folders)
                    return result
            except LostError as error:
                lost = DeviceError(
                    f"{self.name}: connection lost at stage '{lines.stage if working else 'upload'}' ({error}); the board ends what "
                    "it was doing; run the same command again"
                )
                pause_s = None if working else next(pauses, None)
                if pause_s is None:
                    raise lost from error
            except DeviceError:
                pause_s = next(pauses, None)
                if lost is None or pause_s is None:  # what was never there is not waited for; what was may be starting again
                    raise
            await asyncio.sleep(pause_s)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[BoardSession]:
        """A connection and the keeper behind it; at the end both are gone, and the lock is free."""
        import asyncssh

        from targets.devices.connect import connected
        from targets.devices.session import START, BoardSession, kept_alive

        command = f"exec {quoted_path(self._python)} -I -c {shlex.quote(START)}"
        async with connected(self._where, self._options, name=self.name, timeout_s=self._times.connect_s) as connection:
            try:
                process = await within(self._times.connect_s, connection.create_process(command, encoding=None))
            except (asyncssh.Error, OSError) as error:
                why = plain(str(error)) or "no answer"
                raise DeviceError(f"{self.name}: sshd there runs no command ({why}); type: ssh {self._where.ssh_words} true") from error
            session = BoardSession(process, name=self.name, python=self._python, times=self._times)
            try:
                async with kept_alive(session, self._times):
                    yield session
            finally:
                with contextlib.suppress(OSError, asyncssh.Error):
                    process.stdin.write_eof()
                    await within(_GOODBYE_S, process.wait_closed())

    async def _work(self, session: BoardSession, job: Job, lines: WorkerLines, timeout_s: float) -> dict[str, Any]:
        try:
            return await session.work(job.request, lines, timeout_s)
        except DeviceError:
            raise
        except EdgesegError as error:
            raise self._for_there(retold(error, job.uploads, device=self.name)) from error

    def _for_there(self, error: EdgesegError) -> EdgesegError:
        """What is missing on the board is not installed by what would do so here."""
        if not isinstance(error, MissingExtraError):
            return error
        if self._options.python:  # a Python of the user's own, which `devices setup` leaves alone
            return type(error)(install_otherwise(str(error), r"type: pip install 'edgeseg[\1]'").replace("type: ", "type there: "))
        setup = rf"type: edgeseg devices setup {self.name} --extra \1 (and --extra for each other runtime it is to keep)"
        return type(error)(install_otherwise(str(error), setup))


def quoted_path(path: str) -> str:
    """Quote a path of the board for its shell; `~/` at its front is the home folder there."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def open_ssh(address: str, name: str, options: DeviceOptions) -> Device:
    """Give the board at `ssh://user@host[:port]`; see `targets.devices.open_device`."""
    require("asyncssh", extra="devices")
    return SshDevice(address, name, options)


def _files(uploads: Mapping[str, Path]) -> Files:
    """Every single file of the uploads, with its hash."""
    files: Files = {}
    for place, source in uploads.items():
        require_path(source, what="file")
        inside = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        for path in inside:
            spot = f"{place}/{path.relative_to(source).as_posix()}" if source.is_dir() else place
            files[spot] = (path, sha256_file(path), path.stat().st_size)
    return files


def who() -> str:
    """Who asks, for the lock."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name
        return f"{os.getuid()}@{socket.gethostname()}"
