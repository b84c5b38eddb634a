"""What runs on the board: the store by content, the lock, and the line to a host that may fall silent; and how a host waits."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeseg.core.errors import BusyError, DeviceError
from targets.devices.line import HostGoneError, Line
from targets.devices.lock import board_lock
from targets.devices.store import KEEP_DAYS, Store
from targets.devices.times import within


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def open_store(folder: Path) -> Store:
    return Store(folder / "store", lambda: None)


def put(store: Store, data: bytes) -> str:
    store.add(sha256(data), 0, [data])
    assert store.seal(sha256(data), len(data))
    return sha256(data)


def test_a_name_is_given_to_the_right_bytes_only(tmp_path: Path) -> None:
    store, good, name = open_store(tmp_path), b"0123456789", sha256(b"0123456789")
    assert store.missing({name: 10}) == {name: 0}
    store.add(name, 0, [b"0123"])
    assert not (tmp_path / "store" / name).exists()
    assert store.missing({name: 10}) == {name: 4}
    store.add(name, 4, [b"45", b"6x89"])
    assert not store.seal(name, 10)
    assert store.missing({name: 10}) == {name: 0}
    store.add(name, 0, [good])
    assert store.missing({name: 10}) == {}, "whole when the connection broke: nothing is sent again"
    assert (tmp_path / "store" / name).read_bytes() == good


def test_a_part_that_is_too_long_is_cut_back(tmp_path: Path) -> None:
    store, name = open_store(tmp_path), sha256(b"0123")
    store.add(name, 0, [b"0123456789"])
    assert store.missing({name: 4}) == {name: 0}
    store.add(name, 0, [b"0123456789"])
    store.add(name, 2, [b"23"])
    assert store.seal(name, 4)


def test_an_empty_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    name = put(store, b"")
    store.lay(name, tmp_path / "job" / "empty")
    assert (tmp_path / "job" / "empty").read_bytes() == b""


def test_files_are_linked_and_where_they_cannot_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    name = put(store, b"weights")
    store.lay(name, tmp_path / "job" / "a")
    assert (tmp_path / "job" / "a").samefile(tmp_path / "store" / name)

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "a file system without links", str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    store.lay(name, tmp_path / "job" / "b")
    assert (tmp_path / "job" / "b").read_bytes() == b"weights"
    assert not (tmp_path / "job" / "b").samefile(tmp_path / "store" / name)


def test_what_nobody_used_for_long_is_forgotten(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    old, used = put(store, b"old"), put(store, b"used")
    long_ago = time.time() - (KEEP_DAYS + 1) * 86400
    for name in (old, used):
        os.utime(tmp_path / "store" / name, (long_ago, long_ago))
    missing = store.missing({used: 4})
    store.make_room(missing, {used: 4})
    assert [path.name for path in (tmp_path / "store").iterdir()] == [used]


def test_more_than_any_disk_holds(tmp_path: Path) -> None:
    store, name = open_store(tmp_path), sha256(b"?")
    kept = put(store, b"kept")
    with pytest.raises(DeviceError, match=r"^disk full: 1000000000001\.0 MB are needed and .* MB are free in "):
        store.make_room({name: 0, kept: 4}, {name: 10**18, kept: 4})
    assert store.missing({kept: 4}) == {}


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0" * 63, "G" * 64])
def test_only_hashes_are_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no SHA-256"):
        open_store(tmp_path).missing({name: 1})


HOLD = """
import sys, time
from pathlib import Path
from targets.devices.lock import board_lock
with board_lock(Path(sys.argv[1]), holder="ann@laptop, measuring x", session=sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_says_who_has_it_and_is_free_when_they_are_dead(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), "one"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        second = board_lock(path, holder="bob", session="two", patience_s=0.2)
        with pytest.raises(BusyError, match=r"^in use by ann@laptop, measuring x; wait for it to end$"), second:
            pass
        assert json.loads(path.read_text(encoding="utf-8"))["pid"] == holder.pid
        holder.kill()
        with board_lock(path, holder="bob", session="two", patience_s=60):
            assert json.loads(path.read_text(encoding="utf-8"))["holder"] == "bob"
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def test_a_job_that_comes_back_ends_what_is_left_of_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    left = subprocess.Popen([sys.executable, "-c", HOLD, str(path), "one"], stdout=subprocess.PIPE)
    try:
        assert left.stdout is not None
        assert left.stdout.readline() == b"held\n"
        with board_lock(path, holder="ann", session="one", patience_s=60):
            assert left.wait(60) == -15
    finally:
        left.kill()
        left.wait()
        assert left.stdout is not None
        left.stdout.close()


class Pipes:
    """A line, and the host's ends of it."""

    def __init__(self) -> None:
        board_in, self.to_board = os.pipe()
        self.from_board, board_out = os.pipe()
        self.now = 0.0
        self.line = Line(board_in, board_out, clock=lambda: self.now)
        self.line.beat_s = 0.01
        self._all = [board_in, self.to_board, self.from_board, board_out]

    def close(self) -> None:
        for descriptor in self._all:
            os.close(descriptor)


def test_messages_and_the_bytes_behind_them() -> None:
    pipes = Pipes()
    os.write(pipes.to_board, b'{"alive": true}\n{"blob": "x", "bytes": 5}\n{"a"\n{"check": true}\n')
    assert pipes.line.receive() == {"blob": "x", "bytes": 5}
    assert b"".join(pipes.line.payload(5)) == b'{"a"\n'
    assert pipes.line.receive() == {"check": True}
    pipes.line.send({"file": "f", "bytes": 3}, b"\n\n\n")
    assert os.read(pipes.from_board, 100) == b'{"file": "f", "bytes": 3}\n\n\n\n'
    pipes.close()


def test_a_host_that_falls_silent_is_gone() -> None:
    pipes = Pipes()
    pipes.now = 29.0
    assert pipes.line.receive_or(None, 0.0) == (None, False)
    pipes.now = 31.0
    with pytest.raises(HostGoneError):
        pipes.line.receive()
    said = os.read(pipes.from_board, 1000)
    assert said.count(b'{"alive": true}\n') == 2, "and was told that the board is alive"
    pipes.close()


def test_a_host_that_takes_nothing_is_gone() -> None:
    pipes = Pipes()
    pipes.line.silence_s = 0.1
    with pytest.raises(HostGoneError):
        pipes.line.send({"file": "f"}, bytes(1 << 20))
    pipes.close()


def test_a_connection_that_ends() -> None:
    pipes = Pipes()
    os.close(pipes.to_board)
    pipes._all.remove(pipes.to_board)
    with pytest.raises(HostGoneError):
        pipes.line.receive()
    pipes.close()


@pytest.mark.parametrize("steps", range(5))
def test_a_cancellation_is_never_lost(steps: int) -> None:
    """Whether it comes before, while or after what is waited for is done: `asyncio.wait_for` of Python 3.11 loses it in between."""

    async def main() -> None:
        done = asyncio.get_running_loop().create_future()

        async def work() -> None:
            await done

        waiting = asyncio.create_task(within(60, work()))
        await asyncio.sleep(0.01)
        done.set_result(None)
        for _ in range(steps):
            await asyncio.sleep(0)
        if waiting.cancel():
            with pytest.raises(asyncio.CancelledError):
                await waiting
        else:
            await waiting

    asyncio.run(main())


def test_waiting_ends() -> None:
    async def main() -> str:
        with pytest.raises(TimeoutError):
            await within(0.01, asyncio.sleep(60))
        with pytest.raises(ZeroDivisionError):
            await within(60, fail())
        return await within(60, asyncio.sleep(0, "done"))

    async def fail() -> None:
        raise ZeroDivisionError

    assert asyncio.run(main()) == "done"
