"""What makes edgeseg's environment on a board. Sent there as text, since edgeseg is not there yet: standard library only, Python 3.10.

A new environment is made beside the old one, tried, and only then the link `venv` is turned to it; whatever fails before, the old one
stays as it was. The host's end of the line is stdin: a JSON line, the bytes of the files it names, then a byte every few seconds. When that
ends or falls silent, the work stops and what was half made is removed. Answers are lines that begin with `edgeseg-board`.

    FOLDER/venv -> venvs/STAMP     the environment in use
    LOCK                           one job at a time, this one too (`targets.devices.lock`)
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

CHUNK_BYTES = 1 << 18
BEAT_S = 5.0
PR_SET_PDEATHSIG = 1


class Refusal(Exception):
    """A reason to stop, in the words of edgeseg's own errors: kind and message."""


class Host:
    """The other end: stdin and stdout."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self.gone = False
        self.silence_s = 60.0
        self.child: subprocess.Popen[bytes] | None = None

    def say(self, **message: object) -> None:
        """One line."""
        with self._lock, contextlib.suppress(OSError):
            self._out.write("edgeseg-board " + json.dumps(message) + "\n")
            self._out.flush()

    def receive(self, count: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < count:
            ready, _, _ = select.select([0], [], [], self.silence_s)
            piece = os.read(0, min(CHUNK_BYTES, count - len(data))) if ready else b""
            if not piece:
                raise SystemExit(1)
            data += piece
        return data

    def receive_line(self) -> dict[str, Any]:
        """A JSON line."""
        data = b""
        while not data.endswith(b"\n"):
            data += self.receive(1)
        line: dict[str, Any] = json.loads(data)
        return line

    def watch(self) -> None:
        """From now on, stop the work when the host is gone; tell it meanwhile that this end is alive."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        heard = said = time.monotonic()
        while time.monotonic() - heard < self.silence_s:
            ready, _, _ = select.select([0], [], [], BEAT_S)
            if ready:
                if not os.read(0, CHUNK_BYTES):
                    break
                heard = time.monotonic()
            if time.monotonic() - said >= BEAT_S:
                self.say(alive=True)
                said = time.monotonic()
        self.gone = True
        child = self.child
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def main() -> None:
    """Do what the host's first line says."""
    host = Host()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)
    try:
        host.say(ready=True)
        order = host.receive_line()
        host.silence_s = float(order["silence_s"])
        host.say(result=set_up(host, order))
    except Refusal as refusal:
        kind, message = refusal.args
        host.say(error={"type": kind, "message": message})
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            host.say(error={"type": "DeviceError", "message": "disk full there; free some space and run the same command again"})
        else:
            host.say(error={"type": "DeviceError", "message": f"{error.strerror or error} there ({error.filename})"})


def leave(number: int, frame: FrameType | None) -> None:
    """End as after an error: what was half made is removed."""
    raise SystemExit(128 + number)


def set_up(host: Host, order: dict[str, Any]) -> dict[str, Any]:
    """Make the environment, try it, and turn the link to it."""
    folder = Path(order["folder"]).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "venv"
    if link.exists() and not link.is_symlink():
        raise Refusal("DeviceError", f"{link} there was not made by edgeseg devices setup; move it away and run the same command again")
    lock = Path(order["lock"]).expanduser()
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock.parent.chmod(0o700)  # models and frames will lie there, and older systems let everybody read a home folder
    with locked(lock, order["holder"]):
        sweep(folder)
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        wheels, new = folder / "wheels", folder / "venvs" / stamp
        wheels.mkdir()
        try:
            for file in order["files"]:
                take(host, wheels / file["name"], file)
            host.watch()
            install(host, order, wheels, new)
            described = describe(host, new)
            os.sync()  # the link must never point at files that a power cut takes back
            turned = folder / "venv.new"
            turned.unlink(missing_ok=True)
            turned.symlink_to(Path("venvs") / stamp)
            turned.replace(link)
            os.sync()
        finally:
            shutil.rmtree(wheels, ignore_errors=True)
            sweep(folder)
    return {"python": str(link / "bin" / "python"), "described": described}


def sweep(folder: Path) -> None:
    """Remove what a setup that was cut off left, and every environment but the one in use."""
    shutil.rmtree(folder / "wheels", ignore_errors=True)
    venvs = folder / "venvs"
    venvs.mkdir(exist_ok=True)
    used = str((folder / "venv").readlink()) if (folder / "venv").is_symlink() else ""
    for path in venvs.iterdir():
        if f"venvs/{path.name}" != used:
            shutil.rmtree(path, ignore_errors=True)


def take(host: Host, path: Path, file: dict[str, Any]) -> None:
    """Receive one file and check it."""
    digest, left = hashlib.sha256(), file["size"]
    with path.open("wb") as stream:
        while left:
            piece = host.receive(min(left, CHUNK_BYTES))
            digest.update(piece)
            stream.write(piece)
            left -= len(piece)
    if digest.hexdigest() != file["sha256"]:
        raise Refusal("DeviceError", f"{path.name} arrived damaged; run the same command again")


def install(host: Host, order: dict[str, Any], wheels: Path, new: Path) -> None:
    """Make the environment and install into it, from the board's own index or from `wheels` alone."""
    host.say(stage="making the environment")
    shared = ["--system-site-packages"] if order["system_site_packages"] else []
    code, output = call(host, [sys.executable, "-I", "-m", "venv", *shared, str(new)])
    if code:
        raise Refusal("DeviceError", f"no environment can be made there: {telling(output)}; is python3-venv whole? type there: "
                                     "sudo apt install --reinstall python3-venv")
    host.say(stage="installing edgeseg there")
    source = ["--no-index", "--find-links", str(wheels)] if order["offline"] else []
    wheel = wheels / order["wheel"]
    what = f"{wheel}[{','.join(order['extras'])}]" if order["extras"] else str(wheel)
    quiet = ["--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-compile"]
    pip = [str(new / "bin" / "python"), "-I", "-m", "pip", "install", *quiet, "--only-binary=:all:"]
    code, output = call(host, [*pip, *source, what])
    if code:
        hint = "" if order["offline"] else f"; if it has no network, type: {order['again']} --offline"
        raise Refusal("DeviceError", f"nothing can be installed there: {telling(output)}{hint}")


def describe(host: Host, new: Path) -> dict[str, Any]:
    """Let the new environment describe the board: what does not load there is found before it is used."""
    host.say(stage="trying it")
    request = json.dumps({"job": "describe", "parent_pid": os.getpid()})
    code, output = call(host, [str(new / "bin" / "python"), "-I", "-m", "targets.measure.worker"], stdin=request)
    for line in output.splitlines():
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict) and "result" in answer:
                result: dict[str, Any] = answer["result"]
                return result
    raise Refusal("DeviceError", f"edgeseg was installed there and does not start (exit {code}): {telling(output)}; the old one is in use")


def call(host: Host, command: list[str], stdin: str = "") -> tuple[int, str]:
    """Run a command to its end: exit code and what it said. Ends with this process when the host is gone."""
    environment = {**os.environ, "PIP_NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    child = host.child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        output = child.communicate(stdin.encode())[0].decode(errors="replace")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        code, host.child = child.wait(), None
    if host.gone:
        raise SystemExit(1)
    if code and "No space left on device" in output:
        raise OSError(errno.ENOSPC, "No space left on device")
    return code, output


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def telling(output: str) -> str:
    """The line that says why."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith(("[notice]", "WARNING"))]
    errors = [line for line in lines if line.startswith(("ERROR:", "Error:"))]
    return (errors or lines or ["nothing was said"])[-1].split("ERROR:")[-1].strip()[:300]


@contextlib.contextmanager
def locked(path: Path, holder: str) -> Iterator[None]:
    """Hold the board's lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                other = json.loads(os.pread(descriptor, 1 << 16, 0))["holder"]
            except (ValueError, KeyError, TypeError):
                other = "another process"
            raise Refusal("BusyError", f"in use by {other}; wait for it to end") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"holder": holder, "session": "", "pid": os.getpid()}).encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
