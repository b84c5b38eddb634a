"""A board over SSH, on a real sshd: what breaks in the middle. Each ends in one line, and nothing is left running on the board."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from sshd_tools import NEEDS_SSHD, TIMES, Board, Proxy, running, small_disk
from tiny_models import tiny_bundle, tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import DeviceError, RuntimeFailure
from edgeseg.core.images import write_frame
from targets.devices import Job
from targets.devices.ssh import SshDevice

pytestmark = NEEDS_SSHD
BIG_BYTES = 3 << 20
IMPATIENT = replace(TIMES, silence_s=12.0)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with running(tmp_path_factory.mktemp("board")) as board:
        yield board


@pytest.fixture
def proxy(board: Board) -> Iterator[Proxy]:
    proxy = Proxy(board.port)
    board.know(proxy.port)
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path, "null")


def short_job(bundle: Bundle, *big: Path) -> Job:
    """Golden frames alone, and files that are only copied."""
    request = {"job": "answer", "target": "host", "files": [], "bundle": "b/x", "runtime": "null", "options": {}, "out": "out"}
    return Job(request, {"b/x": bundle.folder, **{f"big/{path.name}": path for path in big}}, ("out",))


def long_job(bundle: Bundle) -> Job:
    """A minute, if it is let."""
    frame = bundle.folder.parent / "frame.png"
    write_frame(frame, tiny_frame())
    request = {"job": "bench", "target": "host", "quick": False, "files": ["f/frame.png"], "bundle": "b/x", "runtime": "null",
               "options": {}}
    return Job(request, {"b/x": bundle.folder, "f/frame.png": frame})


def run(device: SshDevice, job: Job, into: Path | None = None, *, timeout_s: float = 300, when: str = "", then: Callable[[], object] = int,
        ) -> dict[str, Any]:
    """Run a job; at the first sign of stage `when` do `then`."""
    met: list[str] = []

    def on_progress(stage: str, done: float) -> None:
        if stage == when and not met:
            met.append(stage)
            then()

    return device.run(job, what="measuring", timeout_s=timeout_s, on_progress=on_progress, into=into)


def still_works(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    """Nothing is left, and the next job runs."""
    assert board.quiet()
    assert run(board.device(), short_job(bundle), tmp_path / "after")["num_answers"] == len(bundle.manifest.golden)
    assert board.quiet()
    assert not (board.work / "jobs").exists()


def big_file(folder: Path, num_bytes: int = BIG_BYTES) -> Path:
    path = folder / "big.bin"
    path.write_bytes(os.urandom(num_bytes))
    return path


def told(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def chance() -> random.Random:
    """The same bytes each time; to look at others: EDGESEG_TEST_SEED=2 make test ARGS=..."""
    return random.Random(int(os.environ.get("EDGESEG_TEST_SEED", "1")))


@pytest.mark.parametrize("how", ["cut", "stall"])
def test_copying_goes_on_where_it_was(
    board: Board, proxy: Proxy, bundle: Bundle, tmp_path: Path, how: str, chance: random.Random,
) -> None:
    at, on_the_way = chance.randrange(6 << 20, 8 << 20), 3 << 20  # SSH lets 2 MiB be under way, which a cut loses
    setattr(proxy, f"{how}_after", at)
    result = run(board.device(port=proxy.port, times=IMPATIENT), short_job(bundle, big_file(tmp_path, 8 << 20)), tmp_path / "into")
    assert result["num_answers"] == len(list((tmp_path / "into" / "out").iterdir()))
    assert proxy.passed < (8 << 20) + on_the_way, f"{how} at {at}: what had arrived was sent again"
    still_works(board, bundle, tmp_path)


def test_cut_at_any_byte(board: Board, proxy: Proxy, bundle: Bundle, tmp_path: Path, chance: random.Random) -> None:
    """It is either done or told in one line; `into` holds all or nothing."""
    run(board.device(port=proxy.port), short_job(bundle), tmp_path / "whole")
    whole = proxy.passed
    for number in range(4):
        at = proxy.passed + chance.randrange(whole)
        proxy.cut_after = at
        into = tmp_path / str(number)
        try:
            run(board.device(port=proxy.port), short_job(bundle), into)
        except DeviceError as error:
            assert str(error).startswith("board: ")
            assert "\n" not in str(error)
            assert not (into / "out").exists(), f"cut at {at}"
        else:
            assert len(list((into / "out").iterdir())) == len(bundle.manifest.golden)
        assert [path.name for path in into.iterdir() if path.name != "out"] == []
        proxy.cut_after = None
        assert board.quiet()
    still_works(board, bundle, tmp_path)


@pytest.mark.parametrize(("how", "why"), [("cut", "it "), ("stall", "nothing came for 12 s")])
def test_a_connection_that_breaks_while_measuring(board: Board, proxy: Proxy, bundle: Bundle, tmp_path: Path, how: str, why: str) -> None:
    with pytest.raises(DeviceError) as caught:
        run(board.device(port=proxy.port, times=IMPATIENT), long_job(bundle), when="measure", then=getattr(proxy, how))
    assert told(caught).startswith(f"board: connection lost at stage 'measure' ({why}")
    assert told(caught).endswith("run the same command again")
    still_works(board, bundle, tmp_path)


def test_a_board_that_reboots(tmp_path: Path, bundle: Bundle) -> None:
    with running(tmp_path / "board") as board:
        with pytest.raises(DeviceError, match="connection lost at stage 'measure'"):
            run(board.device(), long_job(bundle), when="measure", then=board.pull_the_plug)
        assert board.processes() == []
        assert list((board.work / "jobs").iterdir()), "a board that lost its power cleans nothing up"
        with pytest.raises(DeviceError, match="refuses connections"):
            run(board.device(), long_job(bundle))
        board.start()
        still_works(board, bundle, tmp_path)


def test_a_board_that_reboots_while_files_are_copied(tmp_path: Path, bundle: Bundle) -> None:
    with running(tmp_path / "board") as board:
        proxy = Proxy(board.port)
        board.know(proxy.port)

        def reboot() -> None:
            board.pull_the_plug()
            board.start()
            board.know(proxy.port)

        try:
            run(board.device(port=proxy.port), short_job(bundle, big_file(tmp_path)), tmp_path / "into", when="upload", then=reboot)
        finally:
            proxy.close()
        still_works(board, bundle, tmp_path)


HOST = """
    import json
    import sys
    from pathlib import Path
    from targets.devices import DeviceOptions, Job
    from targets.devices.ssh import SshDevice
    from targets.devices.times import Times
    times, address, python, folder, identity, known_hosts, bundle, frame = sys.argv[1:]
    options = DeviceOptions(python=python, folder=folder, identity=identity, known_hosts=known_hosts)
    device = SshDevice(address, "board", options, Times(**json.loads(times)))
    request = {"job": "bench", "target": "host", "quick": False, "files": ["f/frame.png"], "bundle": "b/x", "runtime": "null",
               "options": {}}
    device.run(Job(request, {"b/x": Path(bundle), "f/frame.png": Path(frame)}), what="measuring", timeout_s=300,
               on_progress=lambda stage, done: print(stage, flush=True))
"""


@pytest.mark.parametrize(("number", "hangs"), [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGINT, False)])
def test_a_host_that_is_killed(board: Board, bundle: Bundle, tmp_path: Path, number: signal.Signals, hangs: bool) -> None:
    device, job = board.device(), long_job(bundle)
    options = device._options
    # A test run put into the background hands an ignored SIGINT down; a person's terminal does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    host = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOST), json.dumps(asdict(TIMES)), device.address, options.python, options.folder,
         options.identity, options.known_hosts, str(bundle.folder), str(job.uploads["f/frame.png"])],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    signal.signal(signal.SIGINT, before)
    try:
        assert host.stdout is not None
        assert any(line.strip() == "measure" for line in host.stdout)
        workers = board.workers()
        assert len(workers) == 1
        if hangs:  # in an SDK: it will not notice a broken pipe
            os.kill(workers[0], signal.SIGSTOP)
        host.send_signal(number)
        host.stdout.read()
        assert host.wait(60) != 0, "it went on to the end"
    finally:
        host.kill()
        host.wait()
        if host.stdout is not None:
            host.stdout.close()
    still_works(board, bundle, tmp_path)


def test_a_keeper_that_is_killed_takes_its_worker_along(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    def strike() -> None:
        for pid in set(board.processes()) - set(board.workers()):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(DeviceError, match="connection lost at stage 'measure'"):
        run(board.device(), long_job(bundle), when="measure", then=strike)
    still_works(board, bundle, tmp_path)


def test_a_worker_that_crashes_names_the_signal(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    def strike() -> None:
        for pid in board.workers():
            os.kill(pid, signal.SIGSEGV)

    with pytest.raises(RuntimeFailure, match=r"^board: measuring was killed by SIGSEGV at stage 'measure'"):
        run(board.device(), long_job(bundle), when="measure", then=strike)
    still_works(board, bundle, tmp_path)


def test_a_worker_that_hangs_or_takes_too_long_is_stopped(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    def hang() -> None:
        for pid in board.workers():
            os.kill(pid, signal.SIGSTOP)

    with pytest.raises(RuntimeFailure, match=r"^board: measuring told nothing for 5 s \(at stage '\w+'\) and was stopped"):
        run(board.device(times=replace(TIMES, stall_s=5.0)), long_job(bundle), when="measure", then=hang)
    assert board.quiet()
    with pytest.raises(RuntimeFailure, match=r"^board: measuring took more than 1 s .* and was stopped"):
        run(board.device(), long_job(bundle), timeout_s=1)
    still_works(board, bundle, tmp_path)


def test_a_disk_that_is_full(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    big = big_file(tmp_path)
    with small_disk(tmp_path / "small", BIG_BYTES) as disk:
        with pytest.raises(DeviceError) as caught:
            run(board.device(folder=disk / "work"), short_job(bundle, big), tmp_path / "into")
        assert told(caught).startswith("board: disk full: 4.2 MB are needed and 3.1 MB are free in ")
        assert told(caught).endswith("free some space there")
        assert not (tmp_path / "into" / "out").exists()


def test_a_disk_that_fills_up_meanwhile(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    big = big_file(tmp_path)
    with small_disk(tmp_path / "small", 2 * BIG_BYTES) as disk:
        with pytest.raises(DeviceError) as caught:
            run(board.device(folder=disk / "work"), short_job(bundle, big), tmp_path / "into", when="upload",
                then=lambda: fill(disk / "somebody else's"))
        assert told(caught).startswith("board: disk full")
        assert not board.processes(disk / "work")


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        while True:
            stream.write(bytes(1 << 16))


def test_what_no_job_needs_makes_room(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 2 * BIG_BYTES) as disk:
        for number in range(3):
            big = big_file(tmp_path)
            run(board.device(folder=disk / "work"), short_job(bundle, big), tmp_path / str(number))
        sizes = sorted(path.stat().st_size for path in (disk / "work" / "store").iterdir())
        assert sizes.count(BIG_BYTES) == 1
        assert len(sizes) > 1, "the bundle's own files were in use all the time"
