"""A board to test with: Debian's own sshd on loopback, as this user, with keys of its own; and a proxy that stalls and cuts."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import asyncssh
import pytest
from waiting_tools import runs

from targets.devices import DeviceOptions
from targets.devices.ssh import SshDevice
from targets.devices.times import Times

SSHD: Final = "/usr/sbin/sshd"
NEEDS_SSHD: Final = pytest.mark.skipif(not Path(SSHD).exists(), reason=f"{SSHD} is missing (Debian: apt-get install openssh-server)")
TIMES: Final = Times(connect_s=60, beat_s=0.5, silence_s=30, stall_s=120, again_s=(0.2, 0.5, 1.0, 2.0))


def login() -> str:
    """Who this process is."""
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


class Board:
    """An sshd, a folder that plays the board, and what a host needs to reach it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "the board's $(work) \"folder\""
        folder.mkdir(parents=True, exist_ok=True)
        self.work.mkdir()
        self.host_key, self.user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        for name, key in (("host_key", self.host_key), ("user_key", self.user_key)):
            key.write_private_key(str(folder / name))
            (folder / name).chmod(0o600)
        self.user_key.write_public_key(str(folder / "authorized_keys"))
        if os.getuid() == 0:  # where sshd, as root, keeps its helper
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.port = 0
        self.config = ""
        """Further lines of sshd_config."""
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start sshd: on the port it had before, else on a free one. It says itself when it listens; another's may answer there."""
        for _ in range(5):
            port = self.port or _free_port()
            config = self.folder / "sshd_config"
            config.write_text(
                f"Port {port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
                f"AuthorizedKeysFile {self.folder}/authorized_keys\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
                f"KbdInteractiveAuthentication no\nLogLevel VERBOSE\nMaxStartups 100\nUseDNS no\nPrintMotd no\n{self.config}",
                encoding="utf-8",
            )
            log_file = self.folder / "sshd.log"
            log_file.touch()
            before = log_file.read_text(encoding="utf-8")
            with log_file.open("ab") as log:
                self._daemon = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log, stdin=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while self._daemon.poll() is None and time.monotonic() < deadline:
                if f"Server listening on 127.0.0.1 port {port}." in log_file.read_text(encoding="utf-8")[len(before):]:
                    self.port = port
                    self.know()
                    return
                time.sleep(0.05)
        raise AssertionError((self.folder / "sshd.log").read_text(encoding="utf-8"))

    def know(self, *ports: int, key: asyncssh.SSHKey | None = None) -> None:
        """Write known_hosts: the board's own port and `ports`, with its own key or another."""
        shown = (key or self.host_key).export_public_key().decode().strip()
        lines = [f"[127.0.0.1]:{port} {shown}\n" for port in (self.port, *ports)]
        (self.folder / "known_hosts").write_text("".join(lines), encoding="utf-8")

    def device(self, *, port: int = 0, python: str = sys.executable, times: Times = TIMES, folder: Path | None = None,
               identity: Path | None = None) -> SshDevice:
        """The board as a host sees it."""
        options = DeviceOptions(python=python, folder=str(folder or self.work), identity=str(identity or self.folder / "user_key"),
                                known_hosts=str(self.folder / "known_hosts"))
        return SshDevice(f"ssh://{login()}@127.0.0.1:{port or self.port}", "board", options, times)

    def processes(self, folder: Path | None = None) -> list[int]:
        """Who holds the board's lock file open: its keepers and their workers."""
        lock = str((folder or self.work) / "lock")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if any(os.readlink(fd) == lock for fd in (entry / "fd").iterdir()):  # noqa: PTH115 - a target that is no path
                        found.append(int(entry.name))
        return sorted(found)

    def workers(self) -> list[int]:
        """Those of them that measure."""
        found = []
        for pid in self.processes():
            with suppress(OSError):
                if b"targets.measure.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def quiet(self, seconds: float = 120) -> bool:
        """Wait until no process of a job is left."""
        deadline = time.monotonic() + seconds
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.processes()

    def pull_the_plug(self) -> None:
        """Kill sshd and everything it started: all are stopped first, so that none is born meanwhile; and killed is not yet gone."""
        assert self._daemon is not None
        stopped: set[int] = set()
        while born := {self._daemon.pid, *_below(self._daemon.pid), *self.processes()} - stopped:
            for pid in born:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            stopped |= born
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._daemon.wait()
        deadline = time.monotonic() + 120
        while there := [pid for pid in stopped if runs(pid)]:
            assert time.monotonic() < deadline, f"killed, and still there: {there}"
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop sshd and whatever is left."""
        if self._daemon is not None and self._daemon.poll() is None:
            self.pull_the_plug()


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """A disk of that size at `folder`; skips the test where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "edgeseg-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def running(folder: Path) -> Iterator[Board]:
    """A board that is on; off at the end."""
    board = Board(folder)
    try:
        board.start()
        yield board
    finally:
        board.stop()
        shutil.rmtree(board.work, ignore_errors=True)


class Proxy:
    """Passes TCP on to a port; after `cut_after` or `stall_after` bytes of both directions, once, it cuts or stalls, at that very byte."""

    def __init__(self, port: int) -> None:
        self._target, self.passed = port, 0
        self.cut_after: int | None = None
        self.stall_after: int | None = None
        self._done = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Cut now."""
        self.cut_after = self.passed

    def stall(self) -> None:
        """Stall now."""
        self.stall_after = self.passed

    def close(self) -> None:
        """End it."""
        self._done.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._done.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._pass_on, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, client: socket.socket) -> None:
        with suppress(ConnectionError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            while not self._done.is_set():
                if self.cut_after is not None and self.passed >= self.cut_after:
                    self.cut_after = None
                    return
                if self.stall_after is not None and self.passed >= self.stall_after:
                    self.stall_after = None
                    self._done.wait(600)
                    return
                for side in select.select([client, server], [], [], 0.05)[0]:
                    limits = [limit for limit in (self.cut_after, self.stall_after) if limit is not None]
                    data = side.recv(min(4096, max(1, min(limits, default=1 << 62) - self.passed)))
                    if not data:
                        return
                    self.passed += len(data)
                    (server if side is client else client).sendall(data)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _below(pid: int) -> list[int]:
    """All processes that descend from one, from the outermost on."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    found, layer = [], {pid}
    while layer := {child for child, parent in parents.items() if parent in layer}:
        found += sorted(layer)
    return found
