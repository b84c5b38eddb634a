"""The board's side of a job: takes the lock and the files, runs the worker, gives back what it made, and leaves nothing behind.

`edgeseg` on a host starts it through sshd (`targets.devices.ssh`) and talks to it by `targets.devices.line`. The worker is a process group
of its own. It is killed when the host says so, when the connection ends or falls silent, and, by the kernel, when this process is killed.
What the host says and what is answered:

    (start)                                         {"edgeseg": VERSION, "code": SHA256}
    {"holder", "session", "folder", "silence_s", "beat_s"}   {"ready": true}
    {"lay": [{"path", "sha256", "size"}]}           {"need": {SHA256: BYTES HERE}}
    {"blob": SHA256, "at", "bytes"} + bytes
    {"check": true}                                 {"need": ...}; empty = all lie in the job's folder
    {"run": REQUEST}                                {"worker": LINE} ..., {"ended": CODE, "last_words"}
    {"stop": true}                                  (the worker is killed)
    {"fetch": [FOLDER]}                             {"file", "bytes", "sha256"} + bytes ..., {"fetched": true}
    {"bye": true}

Instead of any answer: {"error": {"type", "message"}}, and it ends. Runs on the board: standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from edgeseg import __version__
from edgeseg.core.errors import EdgesegError, explain_os_error
from targets.devices.base import is_inside
from targets.devices.line import CHUNK_BYTES, HostGoneError, Line
from targets.devices.lock import board_lock
from targets.devices.store import Store
from targets.measure.process import WORKER
from targets.own_code import code_sha256

_LOOK_EVERY_S: Final = 0.5
_LAST_WORDS_BYTES: Final = 2000


def main() -> None:
    """Serve the host on stdin and stdout."""
    answers = os.dup(1)
    os.dup2(2, 1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _leave)
    line = Line(0, answers)
    try:
        line.send({"edgeseg": __version__, "code": code_sha256()})
        _serve(line)
    except HostGoneError:
        return
    except (EdgesegError, OSError) as error:
        told = explain_os_error(error, doing="writing") if isinstance(error, OSError) else error
        kind = "DeviceError" if isinstance(error, OSError) else type(error).__name__
        with suppress(HostGoneError):
            line.send({"error": {"type": kind, "message": str(told)}})


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _serve(line: Line) -> None:
    hello = line.receive()
    line.silence_s, line.beat_s = float(hello["silence_s"]), float(hello["beat_s"])
    folder = Path(hello["folder"]).expanduser()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # models and frames lie there, and older systems let everybody read a home folder
    locked = board_lock(folder / "lock", holder=hello["holder"], session=hello["session"], on_wait=line.beat)
    with locked as lock_fd, _job_folder(folder / "jobs") as job:
        line.send({"ready": True})
        Keeper(line, Store(folder / "store", line.beat), job, lock_fd).serve()


@contextmanager
def _job_folder(jobs: Path) -> Iterator[Path]:
    """Yield an empty folder, removed at the end; what an earlier job that was cut off left behind is removed now."""
    shutil.rmtree(jobs, ignore_errors=True)
    jobs.mkdir()
    try:
        yield Path(tempfile.mkdtemp(dir=jobs))
    finally:
        shutil.rmtree(jobs, ignore_errors=True)


class Keeper:
    """One job, under the lock."""

    def __init__(self, line: Line, store: Store, job: Path, lock_fd: int) -> None:
        """`job` = its folder, `lock_fd` = what the worker holds too."""
        self._line, self._store, self._job, self._lock_fd = line, store, job, lock_fd
        self._wanted: dict[str, int] = {}
        self._need: set[str] = set()
        self._places: list[tuple[str, str]] = []

    def serve(self) -> None:
        """Do what the host says, until it says goodbye."""
        while "bye" not in (message := self._line.receive()):
            if "lay" in message:
                self._take_list(message["lay"])
            elif "blob" in message:
                self._store.add(message["blob"], message["at"], self._line.payload(message["bytes"]))
            elif "check" in message:
                self._need = {sha256 for sha256 in self._need if not self._store.seal(sha256, self._wanted[sha256])}
                self._say_need(dict.fromkeys(self._need, 0))
            elif "run" in message:
                self._run(message["run"])
            elif "fetch" in message:
                self._give(message["fetch"])

    def _take_list(self, entries: list[dict[str, Any]]) -> None:
        assert all(is_inside(entry["path"]) for entry in entries), "paths of a job stay inside its folder"
        self._wanted = {entry["sha256"]: entry["size"] for entry in entries}
        self._places = [(entry["sha256"], entry["path"]) for entry in entries]
        missing = self._store.missing(self._wanted)
        self._store.make_room(missing, self._wanted)
        self._need = set(missing)
        self._say_need(missing)

    def _say_need(self, missing: dict[str, int]) -> None:
        if not missing:
            for sha256, path in self._places:
                self._store.lay(sha256, self._job / path)
                self._line.beat()
        self._line.send({"need": missing})

    def _run(self, request: dict[str, Any]) -> None:
        whole = {**request, "folder": str(self._job), "parent_pid": os.getpid()}
        with tempfile.TemporaryFile(dir=self._job.parent) as words, tempfile.TemporaryFile(dir=self._job.parent) as asked:
            asked.write(json.dumps(whole).encode())
            asked.seek(0)
            worker = subprocess.Popen(
                [sys.executable, "-I", "-m", WORKER], stdin=asked, stdout=subprocess.PIPE, stderr=words, cwd=self._job,
                start_new_session=True, pass_fds=(self._lock_fd,),
            )
            try:
                self._pass_on(worker)
            finally:
                _end(worker)
            words.seek(max(0, words.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            last = words.read().decode(errors="replace").strip().rpartition("\n")[2]  # of a traceback the line that says what it was
            self._line.send({"ended": worker.returncode, "last_words": last})

    def _pass_on(self, worker: subprocess.Popen[bytes]) -> None:
        """Pass the worker's lines on until it ends; kill it when the host says so."""
        assert worker.stdout is not None
        output, rest = worker.stdout.fileno(), b""
        while True:
            message, ready = self._line.receive_or(output, _LOOK_EVERY_S)
            if message is not None and "stop" in message:
                return
            data = os.read(output, CHUNK_BYTES) if ready else b""
            *lines, rest = (rest + data).split(b"\n")
            for text in filter(None, lines):
                self._line.send({"worker": json.loads(text)})
            if not data and (ready or worker.poll() is not None):
                break
        while worker.poll() is None:  # an SDK may take its time to leave
            message, _ = self._line.receive_or(None, _LOOK_EVERY_S)
            if message is not None and "stop" in message:
                return

    def _give(self, names: list[str]) -> None:
        assert all(is_inside(name) for name in names), "paths of a job stay inside its folder"
        for name in names:
            for path in sorted((self._job / name).rglob("*")):
                if path.is_file() and not path.is_symlink():
                    self._give_file(path)
        self._line.send({"fetched": True})

    def _give_file(self, path: Path) -> None:
        """A file in pieces; the piece with its hash is the last."""
        name, digest = path.relative_to(self._job).as_posix(), hashlib.sha256()
        with path.open("rb") as stream:
            while piece := stream.read(CHUNK_BYTES):
                digest.update(piece)
                self._line.send({"file": name, "bytes": len(piece)}, piece)
        self._line.send({"file": name, "bytes": 0, "sha256": digest.hexdigest()})


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Kill the worker and what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()
