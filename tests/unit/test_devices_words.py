"""A board that says what no board says: it ends in one line, with the exit code of a device, and nothing reaches the terminal."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from edgeseg.core.errors import DeviceError, EdgesegError, RuntimeFailure
from targets.devices import probe, setup
from targets.devices import session as session_module
from targets.devices.line import CHUNK_BYTES
from targets.devices.session import BoardSession, last_words
from targets.devices.times import Times
from targets.devices.words import parsed, plain, told_error
from targets.measure.process import WorkerLines

NONSENSE = "board says what edgeseg does not understand"
TIMES = Times(start_s=60.0, silence_s=60.0)
EVIL = "\x1b[2J\x07\u202e\ud800"


@asynccontextmanager
async def process(*command: str) -> AsyncIterator[Any]:
    """A process of this machine in place of a board's: the same streams."""
    pipe = asyncio.subprocess.PIPE
    board = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield board
    finally:
        board.kill()
        await board.communicate()


def talk(tmp_path: Path, said: bytes, then: Callable[[BoardSession], Awaitable[object]]) -> None:
    """A board that says this, whatever it is asked, and stays."""
    (tmp_path / "said").write_bytes(said)

    async def run() -> None:
        async with process("/bin/sh", "-c", 'cat "$0"; exec sleep 60', str(tmp_path / "said")) as board:
            await then(BoardSession(cast(Any, board), name="board", python="python3", times=TIMES))

    asyncio.run(run())


def refused(tmp_path: Path, said: bytes, then: Callable[[BoardSession], Awaitable[object]]) -> str:
    with pytest.raises(EdgesegError) as caught:
        talk(tmp_path, said, then)
    assert str(caught.value).isprintable()
    return f"{caught.value.exit_code} {caught.value}"


def lines(*messages: object) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


@pytest.mark.parametrize("said", [
    b"edgeseg-board x.y\n", b"edgeseg-board 3.11\nHello\n", b"edgeseg-board 3.11\n[]\n", b"edgeseg-board 3.11\n\xff\xfe\n",
    b"edgeseg-board 3.11\n" + b"[" * 100_000 + b"\n", b'edgeseg-board 3.11\n{"edgeseg": 1}\n', b'edgeseg-board 3.11\n{"error": "no"}\n',
    b'edgeseg-board 3.11\n{"error": {"type": 1, "message": "no"}}\n',
])
def test_no_greeting_of_ours(tmp_path: Path, said: bytes) -> None:
    assert refused(tmp_path, said, lambda board: board.greet({})).startswith(f"72 {NONSENSE}")


def test_noise_without_an_end(tmp_path: Path) -> None:
    assert "72 board prints too much at login" in refused(tmp_path, b"x" * 200_000, lambda board: board.greet({}))


def test_a_line_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_LINE_BYTES", 1 << 20)
    assert refused(tmp_path, b"x" * (2 << 20), lambda board: board.receive()).startswith(f"72 {NONSENSE} (a line of more than 1 MiB)")


@pytest.mark.parametrize("kind", ["GoalMissed", "GoalUndecided", "Path", "__name__", "NoSuchError"])
def test_no_board_says_that_a_goal_was_missed(tmp_path: Path, kind: str) -> None:
    said = lines({"error": {"type": kind, "message": f"away{EVIL}"}})
    assert refused(tmp_path, said, lambda board: board.receive()) == "70 board: away [2J   "


@pytest.mark.parametrize("need", [3, [], {"0" * 64: 0}, {"1" * 64: -1}, {"1" * 64: 6}, {"1" * 64: "5"}, {"1" * 64: True}])
def test_needs_what_nobody_has(tmp_path: Path, need: object) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    files = {"f/file": (tmp_path / "file", "1" * 64, 5)}
    assert refused(tmp_path, lines({"need": need}), lambda board: board.upload(files, lambda *_: None)).startswith(f"72 {NONSENSE}")


@pytest.mark.parametrize("message", [
    {}, {"worker": []}, {"worker": {}}, {"worker": {"stage": 1, "done": 0}}, {"worker": {"stage": "x", "done": "half"}},
    {"worker": {"stage": "x", "done": float("nan")}}, {"worker": {"result": []}}, {"worker": {"error": "no"}}, {"ended": "x"},
    {"ended": -9},
])
def test_no_line_of_a_worker(tmp_path: Path, message: object) -> None:
    def work(board: BoardSession) -> Awaitable[object]:
        return board.work({}, WorkerLines("measuring", lambda *_: None), 60.0)

    assert refused(tmp_path, lines(message), work).startswith(f"72 {NONSENSE}")


def test_what_a_worker_says_is_shown_without_orders_to_the_terminal(tmp_path: Path) -> None:
    stages: list[str] = []
    said = lines({"worker": {"stage": f"a{EVIL}", "done": 0}}, {"worker": {"result": {f"cpu{EVIL}": [f"Cortex{EVIL}"]}}},
                 {"ended": 0, "last_words": ""})
    found: list[object] = []

    async def work(board: BoardSession) -> None:
        found.append(await board.work({}, WorkerLines("measuring", lambda stage, done: stages.append(stage)), 60.0))

    talk(tmp_path, said, work)
    assert stages == ["a [2J   "]
    assert found == [{"cpu [2J   ": ["Cortex [2J   "]}]


@pytest.mark.parametrize("messages", [
    [{"bytes": 1}], [{"file": 1, "bytes": 1}], [{"file": "answers/a", "bytes": -1}], [{"file": "answers/a", "bytes": CHUNK_BYTES + 1}],
    [{"file": "answers/a", "bytes": 0}, {"file": "answers/b", "bytes": 0, "sha256": ""}],
])
def test_no_piece_of_a_file(tmp_path: Path, messages: list[object]) -> None:
    into = {"answers": tmp_path / "into" / "answers"}
    assert refused(tmp_path, lines(*messages), lambda board: board.download(into)).startswith(f"72 {NONSENSE}")


@pytest.mark.parametrize("name", ["answers/../../evil", "../evil", "answers/x/../../../evil", "evil", "/evil", "answers//evil"])
def test_a_board_is_not_trusted_with_where_files_go(tmp_path: Path, name: str) -> None:
    """A board that was taken over sends a file that nobody asked for."""
    said = lines({"file": name, "bytes": 0, "sha256": ""})
    into = {"answers": tmp_path / "into" / "answers"}
    assert f"72 board sends a file {name!r} that nobody asked for" in refused(tmp_path, said, lambda board: board.download(into))
    assert list(tmp_path.rglob("evil")) == []


def test_a_set_up_that_talks_without_an_end() -> None:
    async def run() -> None:
        async with process("/bin/sh", "-c", "while :; do echo 'Welcome to the farm. Welcome to the farm.'; done") as board:
            await setup._answer(board, "board")

    with pytest.raises(DeviceError, match=NONSENSE):
        asyncio.run(run())


def test_last_words_that_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_LAST_WORDS_S", 2.0)

    async def run() -> str:
        async with process("/bin/sh", "-c", "exec 1>&-; while :; do echo 'no \x1b[2Jend' >&2; sleep 0.05; done") as board:
            await board.stderr.readline()
            return await last_words(board)

    assert asyncio.run(asyncio.wait_for(run(), 300)) == "no  [2Jend"


def test_files_of_the_user_are_not_imported(tmp_path: Path) -> None:
    """A command of sshd starts in the home folder."""
    for name in ("json", "platform", "os"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user wrote this')\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", probe._ASK], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("edgeseg-board {"), done.stderr


@pytest.mark.parametrize("said", ["edgeseg-board no", "edgeseg-board {}", 'edgeseg-board {"libc": "", "markers": [], "version": "x"}'])
def test_no_description_of_a_python(said: str) -> None:
    class Done:
        stdout, stderr, exit_status = f"Welcome\n{said}\n", "", 0

    class Connection:
        async def run(self, command: str, **_: object) -> Done:
            return Done()

    with pytest.raises(DeviceError, match=NONSENSE):
        asyncio.run(probe.ask(cast(Any, Connection()), "python3", name="board"))


def test_texts_are_plain() -> None:
    assert plain(f"Raspberry Pi 5{EVIL}") == "Raspberry Pi 5 [2J   "
    assert plain("Größe, 日本, Cortex™") == "Größe, 日本, Cortex™"
    assert parsed('{"a\\u001b": ["\\ud800", {"b": 1.5}]}', "board") == {"a ": [" ", {"b": 1.5}]}
    assert told_error({"error": {"type": "GoalMissed", "message": "m"}}, "board")["type"] == RuntimeFailure.__name__
