"""`edgeseg devices setup`: put this very edgeseg, with the runtime a board wants, into an environment of its own on the board.

The board is asked first what it is. What could not work is refused before anything is sent: a Python below 3.10, a Debian without
python3-venv, a 32-bit system. `targets.devices.board_setup` does the board's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.errors import ConfigError, DeviceError
from edgeseg.core.files import sha256_file
from targets.boards import Run, find_target
from targets.devices.address import parse_ssh
from targets.devices.base import Progress
from targets.devices.check import Site
from targets.devices.inventory import Entry
from targets.devices.line import CHUNK_BYTES
from targets.devices.probe import BoardFacts, ask, refuse_what_cannot
from targets.devices.received import received
from targets.devices.ssh import BOARD_FOLDER, BOARD_PYTHON, quoted_path, who
from targets.devices.times import Times, within
from targets.devices.wheels import collect_wheels, edgeseg_wheel
from targets.devices.words import GREETING, field, nonsense, parsed, plain, told_error
from targets.measure.process import same_error

if TYPE_CHECKING:
    import asyncssh

EXTRAS: Final = ("pi", "pi-legacy", "intel", "onnx", "jetson")
"""Extras that bring a runtime to a board."""
MORE_EXTRAS: Final = ("opencv",)
"""Extras that go beside a runtime."""
_BY_RUNTIME: Final = {"litert": "pi", "openvino": "intel", "onnxruntime": "onnx", "tensorrt": "jetson"}
_LEAST_FREE_BYTES: Final = 300 << 20
"""Python, numpy, Pillow and the smallest runtime, installed."""
_TIMES: Final = Times(silence_s=60.0)
"""More patient than with a job: what pip unpacks keeps a slow card busy."""
_VENV: Final = str(PurePosixPath(BOARD_PYTHON).parents[2])


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """What was put on a board."""

    site: Site
    """How the board describes itself with it."""
    facts: BoardFacts
    python: str
    """Of the new environment."""
    extras: tuple[str, ...]
    why_extras: str
    """Who chose them."""
    wheel: str
    """Where the wheel of edgeseg comes from."""
    num_wheels: int | None
    """Wheels that were collected here; `None` = the board took them from its own index."""


def set_up(
    entry: Entry, *, extras: Sequence[str] = (), offline: bool = False, python: str = "python3", folder: str = _VENV,
    on_progress: Progress,
) -> SetUp:
    """Make edgeseg's environment on a board, beside the old one, and put it in that one's place once it works.

    Args:
        entry: the board.
        extras: of edgeseg; without one that brings a runtime, what the entry's target or the board itself suggests comes along.
        offline: collect all wheels here and send them, in place of the board's own index.
        python: command or path there that the environment is made with.
        folder: of the board; may begin with `~/`.
        on_progress: called with what is being done and the share done.

    Raises:
        ConfigError: the device is no board behind an sshd, or brings its own Python; unknown extra; no wheels are made for such a board.
        DeviceError: it cannot be reached or used, or something cannot be installed there; the old environment is in use as before.
        BusyError: a job runs there.
        DownloadError, MissingExtraError, RuntimeFailure: the wheels cannot be had.
    """
    _refuse(entry, extras)
    entry.open()
    name = entry.name or entry.address
    facts = asyncio.run(_look(entry, python, name))
    chosen, why = chosen_extras(entry, facts, extras)
    with tempfile.TemporaryDirectory(prefix="edgeseg-wheels-") as work:
        on_progress("making the wheel of edgeseg", 0.0)
        (Path(work) / "edgeseg").mkdir()
        (Path(work) / "others").mkdir()
        wheel = edgeseg_wheel(Path(work) / "edgeseg")
        others: list[Path] = []
        if offline:
            others = collect_wheels(wheel.path, chosen, facts.python, Path(work) / "others", lambda text: on_progress(text, 0.0))
        order = {
            "folder": folder, "lock": f"{entry.options.folder or BOARD_FOLDER}/lock", "holder": f"{who()}, setting it up, since {_now()}",
            "silence_s": _TIMES.silence_s, "extras": list(chosen), "wheel": wheel.path.name, "offline": offline,
            "system_site_packages": "jetson" in chosen, "again": f"edgeseg devices setup {name}",
            "files": [{"name": path.name, "size": path.stat().st_size, "sha256": sha256_file(path)} for path in (wheel.path, *others)],
        }
        result = asyncio.run(_install(entry, python, name, order, [wheel.path, *others], on_progress))
    return SetUp(
        site=received(Site, field(result, "described", dict, name), name), facts=facts, python=field(result, "python", str, name),
        extras=chosen, why_extras=why, wheel=wheel.how, num_wheels=len(others) if offline else None,
    )


def _refuse(entry: Entry, extras: Sequence[str]) -> None:
    if not entry.is_ssh:
        raise ConfigError(f"{entry.label} is no board behind an sshd, so there is nothing to set up; use it as it is")
    if entry.python:
        raise ConfigError(f"{entry.label} has a Python of its own in the inventory ({entry.python}); install edgeseg there yourself, or "
                          "remove the device and add it without --python")
    for extra in extras:
        if extra not in (*EXTRAS, *MORE_EXTRAS):
            raise ConfigError(f"--extra {extra}: one of {', '.join((*EXTRAS, *MORE_EXTRAS))}")


async def _look(entry: Entry, python: str, name: str) -> BoardFacts:
    """Ask the board what it is; refuse what cannot work."""
    from targets.devices.connect import connected

    async with connected(parse_ssh(entry.address), entry.options, name=name) as connection:
        facts = await ask(connection, python, name=name)
    refuse_what_cannot(facts, python, name=name)
    if not facts.has_venv:
        version = ".".join(map(str, facts.version[:2]))
        raise DeviceError(f"{name}: {python} there cannot make environments; type there: sudo apt install python3-venv "
                          f"(for another Python than the system's: python{version}-venv)")
    if facts.disk_free_bytes < _LEAST_FREE_BYTES:
        raise DeviceError(f"{name}: {facts.disk_free_bytes / 1e6:.0f} MB are free in the home folder there, and an environment takes "
                          f"{_LEAST_FREE_BYTES / 1e6:.0f} MB at least; free some space")
    return facts


def chosen_extras(entry: Entry, facts: BoardFacts, asked: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Give the extras to install and who chose the runtime: those asked for, with the one that fits where none of them brings one."""
    runtime, why = ((), "as asked for") if set(asked) & set(EXTRAS) else fitting_extra(entry, facts)
    return tuple(dict.fromkeys((*runtime, *asked))), why


def fitting_extra(entry: Entry, facts: BoardFacts) -> tuple[tuple[str, ...], str]:
    """Give the extra that brings the runtime a board wants most, and why: its target in the inventory, else what it says it is."""
    if entry.target not in ("", "host"):
        return (extra_for(find_target(entry.target).runs[0]),), f"for target {entry.target}"
    if "Jetson" in facts.model or facts.model.startswith("NVIDIA"):
        return ("jetson",), f"for {facts.model}"
    if facts.python.arch == "x86_64":
        return ("intel",), "for an x86-64 processor"
    return ("pi",), f"for {facts.model or facts.python.arch}"


def extra_for(run: Run) -> str:
    """Give the extra that brings what a way to execute bundles needs."""
    return "jetson" if run.provider in ("cuda", "tensorrt") else _BY_RUNTIME[run.runtime]


async def _install(
    entry: Entry, python: str, name: str, order: dict[str, Any], files: Sequence[Path], on_progress: Progress,
) -> dict[str, Any]:
    """Run the board's part and answer it; gives its result."""
    import asyncssh

    from targets.devices.connect import connected

    script = Path(__file__).with_name("board_setup.py").read_text(encoding="utf-8")
    async with connected(parse_ssh(entry.address), entry.options, name=name) as connection:
        try:
            command = f"exec {quoted_path(python)} -I -c {shlex.quote(script)}"
            process = await within(_TIMES.connect_s, connection.create_process(command, encoding=None))
            return await _talk(process, name, order, files, on_progress)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise DeviceError(f"{name}: the connection was lost while it was set up ({plain(str(error)) or 'silence'}); the environment "
                              "there is as it was; run the same command again") from error


async def _talk(
    process: asyncssh.SSHClientProcess[bytes], name: str, order: dict[str, Any], files: Sequence[Path], on_progress: Progress,
) -> dict[str, Any]:
    import asyncssh

    while "ready" not in (await _answer(process, name)):
        pass
    with contextlib.suppress(ConnectionError, asyncssh.Error):  # a board that refuses hangs up; why, it has said
        await _send(process, order, files, on_progress)
    async with _beating(process):
        while "result" not in (message := await _answer(process, name)):
            if "stage" in message:
                on_progress(str(message["stage"]), 0.0)
    return field(message, "result", dict, name)


async def _send(process: asyncssh.SSHClientProcess[bytes], order: dict[str, Any], files: Sequence[Path], on_progress: Progress) -> None:
    process.stdin.write(json.dumps(order).encode() + b"\n")
    total, sent = sum(file["size"] for file in order["files"]), 0
    for path in files:
        with path.open("rb") as stream:
            while piece := stream.read(CHUNK_BYTES):
                process.stdin.write(piece)
                await within(_TIMES.silence_s, process.stdin.drain())
                sent += len(piece)
                on_progress(f"sending {total / 1e6:.0f} MB", sent / total)


async def _answer(process: asyncssh.SSHClientProcess[bytes], name: str) -> dict[str, Any]:
    """The board's next line; what login scripts print is passed over."""
    from targets.devices.session import NOISE_BYTES, last_words

    noise = 0
    while noise < NOISE_BYTES:
        line = (await within(_TIMES.silence_s, process.stdout.readline())).decode(errors="replace")
        if not line:
            words = await last_words(process) or "connection lost"
            raise DeviceError(f"{name}: the set-up there ended without an answer ({words}); the environment there is as it was; run the "
                              "same command again")
        if not line.startswith(GREETING):
            noise += len(line)
            continue
        message = parsed(line.removeprefix(GREETING), name)
        if "error" in message:
            error = same_error(told_error(message, name))
            raise type(error)(f"{name}: {error}")
        return message
    raise nonsense(name, "much that is no answer")


@contextlib.asynccontextmanager
async def _beating(process: asyncssh.SSHClientProcess[bytes]) -> AsyncIterator[None]:
    """A byte every few seconds tells the board that somebody waits."""
    import asyncssh

    async def beat() -> None:
        with contextlib.suppress(OSError, asyncssh.Error):
            while True:
                process.stdin.write(b"\n")
                await asyncio.sleep(_TIMES.beat_s)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
