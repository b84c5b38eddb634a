"""The host's end of the line to a board's keeper (`targets.devices.keeper` says what is spoken)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import asyncssh

from edgeseg import __version__
from edgeseg.core.errors import DeviceError
from targets.devices.base import Progress, is_inside, retold
from targets.devices.line import ALIVE, CHUNK_BYTES
from targets.devices.times import Times, within
from targets.devices.words import GREETING, LEAST_PYTHON, field, nonsense, parsed, plain, told_error, worker_line
from targets.measure.process import WorkerLines, same_error
from targets.own_code import code_sha256

NOISE_BYTES: Final = 1 << 16
"""What a board's login scripts may print before the keeper speaks."""
_LINE_BYTES: Final = 32 << 20
"""Longest message: the result of an hour of measuring, with everything that was recorded, is a few MB."""
_LAST_WORDS_BYTES: Final = 2000
_LAST_WORDS_S: Final = 5.0
_ROUNDS: Final = 3
START: Final = (
    f'import sys;print("{GREETING} %d.%d"%sys.version_info[:2]);sys.stdout.flush();'
    f"sys.version_info<{LEAST_PYTHON!r} and sys.exit(0);from targets.devices.keeper import main;main()"
)
"""Starts the keeper, or says which Python it is that cannot: understood by any Python from 2.6."""


class LostError(Exception):
    """The connection ended, or nothing came over it for too long; the message says which."""


class BoardSession:
    """One connection's talk with the keeper."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], *, name: str, python: str, times: Times) -> None:
        """Take a process that was started with `START`."""
        self._process, self._name, self._python, self._times = process, name, python, times
        self._buffer = bytearray()
        self._writing = asyncio.Lock()
        self._patience_s = max(times.start_s, times.silence_s)
        self._heard = time.monotonic()

    async def greet(self, hello: Mapping[str, Any]) -> None:
        """Find the keeper in what the board says, and get its lock.

        Raises:
            DeviceError: no Python, an old one, no edgeseg, or another version or other code of it.
            BusyError: another job runs there.
            LostError: the connection ended.
        """
        python = await self._find_greeting()
        if python < LEAST_PYTHON:
            got, least = (".".join(map(str, version)) for version in (python, LEAST_PYTHON))
            raise DeviceError(f"{self._name}: {self._python} there is Python {got}, edgeseg needs {least} or newer; {self._setup()}")
        try:
            hello_from_there = await self.receive()
        except LostError as error:
            words = await self._last_words()
            if not words:
                raise
            raise DeviceError(f"{self._name}: edgeseg does not start with {self._python} there ({words}); {self._setup()}") from error
        version = field(hello_from_there, "edgeseg", str, self._name)
        code = field(hello_from_there, "code", str, self._name) if "code" in hello_from_there else ""
        if version != __version__:
            raise DeviceError(f"{self._name} has edgeseg {version}, this machine {__version__}; {self._setup()}")
        if code != code_sha256():
            there, here = code[:8] or "older", code_sha256()[:8]
            raise DeviceError(f"{self._name} has other code of edgeseg {version} ({there}, this machine {here}); {self._setup()}")
        self._patience_s = self._times.silence_s  # from now on it says that it is alive
        await self.send({**hello, "silence_s": self._times.silence_s, "beat_s": self._times.beat_s})
        await self.receive()

    async def upload(self, files: Mapping[str, tuple[Path, str, int]], on_progress: Progress) -> None:
        """See that all files lie in the job's folder; only what the board does not have is sent. `files`: place -> file, SHA-256, size.

        Raises:
            DeviceError: disk full, or what arrives is not what was sent.
            LostError: the connection ended; what arrived is kept.
        """
        entries = [{"path": place, "sha256": sha256, "size": size} for place, (_, sha256, size) in files.items()]
        sources = {sha256: (path, size) for path, sha256, size in files.values()}
        await self.send({"lay": entries})
        for _ in range(_ROUNDS):
            need: dict[str, int] = field(await self.receive(), "need", dict, self._name)
            for sha256 in need:
                if sha256 not in sources or not 0 <= field(need, sha256, int, self._name) <= sources[sha256][1]:
                    raise nonsense(self._name, "it needs a file that nobody has")
            if not need:
                return
            total, sent = sum(sources[sha256][1] - have for sha256, have in need.items()), 0
            for sha256, have in need.items():
                with sources[sha256][0].open("rb") as stream:
                    stream.seek(have)
                    piece = stream.read(CHUNK_BYTES)
                    while True:
                        await self.send({"blob": sha256, "at": have, "bytes": len(piece)}, piece)
                        have, sent = have + len(piece), sent + len(piece)
                        on_progress("upload", min(1.0, sent / max(1, total)))
                        if not (piece := stream.read(CHUNK_BYTES)):
                            break
            await self.send({"check": True})
        raise DeviceError(f"{self._name}: what arrives there is not what was sent; its disk or its memory fails, or a file changes here")

    async def work(self, request: Mapping[str, Any], lines: WorkerLines, timeout_s: float) -> dict[str, Any]:
        """Run the worker to its end.

        Raises:
            EdgesegError: see `WorkerLines.result`.
            LostError: the connection ended, and the worker with it.
        """
        await self.send({"run": dict(request)})
        start = spoke = time.monotonic()
        overdue = ""
        while True:
            end, stalled = start + timeout_s, spoke + self._times.stall_s
            message = await self.receive_within(self._times.silence_s if overdue else max(0.0, min(end, stalled) - time.monotonic()))
            if message is None and not overdue:
                overdue = f"took more than {timeout_s:.0f} s" if end <= stalled else f"told nothing for {self._times.stall_s:.0f} s"
                await self.send({"stop": True})
            if message is None:
                continue
            if "ended" in message:
                code, words = field(message, "ended", int, self._name), field(message, "last_words", str, self._name)
                return lines.result(code, words, overdue=overdue)
            spoke = time.monotonic()
            lines.take(worker_line(message, self._name))

    async def download(self, into: Mapping[str, Path]) -> None:
        """Pull folders of the job's folder into folders of this machine, each file read back and checked.

        Raises:
            DeviceError: what arrived is not what was sent, or would lie elsewhere.
            LostError: the connection ended.
        """
        await self.send({"fetch": list(into)})
        while "fetched" not in (message := await self.receive()):
            file = field(message, "file", str, self._name)
            place = self._place(file, into)
            place.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with _named(place), place.open("wb") as stream:
                while "sha256" not in message:
                    count = field(message, "bytes", int, self._name)
                    if not 0 <= count <= CHUNK_BYTES:
                        raise nonsense(self._name, f"a piece of {count} bytes")
                    piece = await self._read(count)
                    digest.update(piece)
                    stream.write(piece)
                    message = await self.receive()
                    if message.get("file", file) != file:
                        raise nonsense(self._name, "a file that changes its name")
            if digest.hexdigest() != message["sha256"]:
                raise DeviceError(f"{self._name}: {file} arrived damaged; run the same command again")

    def _place(self, name: str, into: Mapping[str, Path]) -> Path:
        """A board is not trusted with where its files go."""
        folder = next((folder for folder in into if name.startswith(f"{folder}/")), None)
        if folder is None or not is_inside(name):
            raise DeviceError(f"{self._name} sends a file {name!r} that nobody asked for; is it the machine you think it is?")
        return into[folder] / name.removeprefix(f"{folder}/")

    async def send(self, message: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send a message and the bytes behind it; `LostError` where the board does not take it."""
        async with self._writing:
            try:
                self._process.stdin.write(json.dumps(message).encode() + b"\n" + payload)
                await within(self._times.silence_s, self._process.stdin.drain())
            except TimeoutError as error:
                raise LostError(f"nothing was taken for {self._times.silence_s:.0f} s") from error
            except (asyncssh.Error, OSError) as error:
                raise LostError("it was cut") from error

    async def receive(self) -> dict[str, Any]:
        """Wait for the next message; see `receive_within`."""
        while (message := await self.receive_within(self._patience_s)) is None:
            pass
        return message

    async def receive_within(self, wait_s: float) -> dict[str, Any] | None:
        """Wait so long for a message; `None` without one.

        Raises:
            EdgesegError: the keeper ended with this error.
            LostError: the connection ended or is silent.
        """
        deadline = time.monotonic() + wait_s
        while True:
            while (end := self._buffer.find(b"\n")) >= 0:
                message = parsed(bytes(self._buffer[:end]), self._name)
                del self._buffer[:end + 1]
                if "error" in message:
                    raise retold(same_error(told_error(message, self._name)), {}, device=self._name)
                if message != ALIVE:
                    return message
            if len(self._buffer) > _LINE_BYTES:
                raise nonsense(self._name, f"a line of more than {_LINE_BYTES >> 20} MiB")
            if time.monotonic() >= deadline:
                return None
            await self._fill(deadline)

    async def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._fill(None)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _fill(self, deadline: float | None) -> None:
        """Wait for some bytes, not longer than the deadline."""
        patience_s = max(1.0, self._heard + self._patience_s - time.monotonic())  # what came meanwhile may not have been read yet
        wait_s = patience_s if deadline is None else max(0.01, min(patience_s, deadline - time.monotonic()))
        try:
            data = await within(wait_s, self._process.stdout.read(CHUNK_BYTES))
        except TimeoutError as error:
            if time.monotonic() - self._heard >= self._patience_s:
                raise LostError(f"nothing came for {self._patience_s:.0f} s") from error
            return
        except (asyncssh.Error, OSError) as error:
            raise LostError("it was cut") from error
        if not data:
            raise LostError("it ended")
        self._buffer += data
        self._heard = time.monotonic()

    async def _find_greeting(self) -> tuple[int, int]:
        """Python's version, behind whatever login scripts print."""
        noise = 0
        while noise < NOISE_BYTES:
            while (end := self._buffer.find(b"\n")) < 0 and len(self._buffer) < NOISE_BYTES:
                try:
                    await self._fill(None)
                except LostError as error:
                    raise await self._no_python(error) from error
            if end < 0:
                break
            words = bytes(self._buffer[:end]).decode(errors="replace").split()
            del self._buffer[:end + 1]
            noise += end + 1
            if len(words) == 2 and words[0] == GREETING:
                version = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", words[1], re.ASCII)
                if version is None:
                    raise nonsense(self._name, "no version of Python")
                return int(version[1]), int(version[2])
        raise DeviceError(f"{self._name} prints too much at login for edgeseg to be heard; its ~/.bashrc must be quiet without a terminal")

    async def _no_python(self, error: LostError) -> Exception:
        """Why the process said nothing: there is none, or the connection is lost."""
        with suppress(asyncssh.Error, OSError):
            await within(2.0, self._process.wait())
        status, words = self._process.exit_status, await self._last_words()
        if status is None:
            return error
        why = f"exit {status}: {words}" if words else f"exit {status}"
        return DeviceError(f"{self._name}: {self._python} does not run there ({why}); {self._setup()}")

    async def _last_words(self) -> str:
        """Last line the board wrote to stderr."""
        return await last_words(self._process)

    def _setup(self) -> str:
        return f"type: edgeseg devices setup {self._name}"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an `OSError` of a write (disk full), which names no file, leave with this one's name."""
    try:
        yield
    except OSError as error:
        raise error if error.filename else OSError(error.errno, error.strerror, str(path)) from error


async def last_words(process: asyncssh.SSHClientProcess[bytes]) -> str:
    """Last line that a process of the board wrote to stderr, if it ends or falls silent within a few seconds."""
    data = b""

    async def listen() -> None:
        nonlocal data
        while piece := await process.stderr.read(CHUNK_BYTES):
            data = (data + piece)[-_LAST_WORDS_BYTES:]

    with suppress(asyncssh.Error, OSError, TimeoutError):
        await within(_LAST_WORDS_S, listen())
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    return plain(lines[-1]) if lines else ""


@asynccontextmanager
async def kept_alive(session: BoardSession, times: Times) -> AsyncIterator[None]:
    """Tell the board every few seconds that this end is alive; at the end that it may go."""
    over = asyncio.Event()

    async def beat() -> None:
        with suppress(LostError):
            while not over.is_set():
                with suppress(TimeoutError):
                    await within(times.beat_s, over.wait())
                    return
                await session.send(ALIVE)

    beating = asyncio.create_task(beat())
    try:
        yield
        with suppress(LostError):
            await session.send({"bye": True})
    finally:
        over.set()
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
