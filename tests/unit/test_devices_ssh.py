"""A board over SSH, on a real sshd: the good path, and every way a board can be unwilling. What breaks in the middle is in tests/e2e."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from sshd_tools import NEEDS_SSHD, TIMES, Board, Proxy, login, running
from tiny_models import tiny_bundle, tiny_frame
from waiting_tools import comes_true

import targets
from edgeseg import __version__
from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BusyError, ConfigError, DataError, DeviceError, MissingExtraError, RuntimeFailure, TargetError
from edgeseg.core.images import write_frame
from targets.boards import Plan
from targets.devices import DeviceOptions, Job, connect, open_device
from targets.devices.address import parse_ssh
from targets.devices.remote import answers_on
from targets.devices.session import START
from targets.devices.ssh import SshDevice, quoted_path
from targets.measure.bench import bench
from targets.measure.process import WORKER
from targets.own_code import code_sha256
from targets.runtimes import RuntimeOptions
from targets.verify import check_golden

pytestmark = NEEDS_SSHD
NEEDS_AGENT = pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="ssh-agent is missing (Debian: openssh-client)")
ROOT = Path(next(iter(targets.__path__))).resolve().parent


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with running(tmp_path_factory.mktemp("board")) as board:
        yield board


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path, "null")


def silent(stage: str, done: float) -> None:
    pass


def ask(board: Board, bundle: Bundle, **how: object) -> None:
    """Have the bundle's golden frames answered there: the shortest job."""
    with answers_on(board.device(**how), bundle, (), timeout_s=300) as session:  # type: ignore[arg-type]
        assert check_golden(bundle, session) == 1.0


def one_line(error: pytest.ExceptionInfo[DeviceError]) -> str:
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 72
    return str(error.value)


def test_a_job_runs_there_and_names_survive(board: Board, tmp_path: Path) -> None:
    folder = tmp_path / "my $(touch oops) bundle's \"best\"; `id` & co"
    folder.mkdir()
    bundle = tiny_bundle(folder, "null")
    moved = bundle.folder.rename(folder / "a b' $(c) \"d\"")
    frame = tmp_path / "field $HOME 'x' $(touch oops)\n*.png"
    write_frame(frame, tiny_frame())
    upload = f"frames/0/{frame.name}"
    request = {"job": "answer", "target": "host", "files": [upload], "bundle": f"bundles/{moved.name}", "runtime": "null", "options": {},
               "out": "out $(touch oops)' \"x\""}
    stages: list[str] = []
    result = board.device().run(
        Job(request, {f"bundles/{moved.name}": moved, upload: frame}, (request["out"],)), what="it's $(touch oops)", timeout_s=300,
        on_progress=lambda stage, done: stages.append(stage), into=tmp_path / "into",
    )
    assert result["num_answers"] == len(list((tmp_path / "into" / request["out"]).iterdir())) == 1 + len(bundle.manifest.golden)
    assert stages[0] == "upload"
    assert stages[-1] == "answer"
    assert list(tmp_path.rglob("oops")) == list(board.folder.rglob("oops")) == []
    assert board.quiet()
    assert not (board.work / "jobs").exists()


def test_what_is_there_is_not_sent_again(board: Board, bundle: Bundle) -> None:
    ask(board, bundle)
    proxy = Proxy(board.port)
    try:
        board.know(proxy.port)
        big = bundle.folder.parent / "big.bin"
        big.write_bytes(os.urandom(3 << 20))
        job = Job({"job": "answer", "target": "host", "files": [], "bundle": "b/x", "runtime": "null", "options": {}, "out": "out"},
                  {"b/x": bundle.folder, "more/big.bin": big, "more/again.bin": big})
        board.device(port=proxy.port).run(job, what="x", timeout_s=300, on_progress=silent)
        first = proxy.passed
        board.device(port=proxy.port).run(job, what="x", timeout_s=300, on_progress=silent)
        again = proxy.passed - first
    finally:
        proxy.close()
        board.know()
    assert 3 << 20 < first < 4 << 20  # one copy of both
    assert again < 100_000


def test_a_file_that_was_changed_in_the_store_is_sent_again(board: Board, bundle: Bundle) -> None:
    ask(board, bundle)
    stored = sorted((board.work / "store").iterdir())
    assert stored
    assert all(path.stat().st_mode & 0o222 == 0 for path in stored)
    for path in stored:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    ask(board, bundle)


def test_what_a_board_was_sent_is_for_one_user(board: Board, bundle: Bundle) -> None:
    """Home folders of older systems may be read by everybody."""
    board.work.chmod(0o755)
    ask(board, bundle)
    assert board.work.stat().st_mode & 0o777 == 0o700


def test_errors_of_the_worker_arrive_as_they_were(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^board: torn\.png: not a readable image"), answers_on(board.device(), bundle, [torn]):
        pass
    assert board.quiet()


def test_an_unknown_host_key_is_never_taken(board: Board, bundle: Bundle) -> None:
    (board.folder / "known_hosts").write_text("", encoding="utf-8")
    try:
        with pytest.raises(DeviceError) as caught:
            ask(board, bundle)
        assert (board.folder / "known_hosts").read_text(encoding="utf-8") == ""
    finally:
        board.know()
    said = one_line(caught)
    assert said.startswith(f"board: its host key is not known (ssh-ed25519 {board.host_key.get_fingerprint()})")
    assert said.endswith(f"type once: ssh -o UserKnownHostsFile={board.folder}/known_hosts -p {board.port} {login()}@127.0.0.1")


def test_a_changed_host_key_is_told_from_an_unknown_one(board: Board, bundle: Bundle) -> None:
    board.know(key=asyncssh.generate_private_key("ssh-ed25519"))
    try:
        with pytest.raises(DeviceError) as caught:
            ask(board, bundle)
    finally:
        board.know()
    assert "its host key CHANGED" in one_line(caught)
    assert one_line(caught).endswith(f"type: ssh-keygen -f {board.folder}/known_hosts -R '[127.0.0.1]:{board.port}'")


def test_a_file_of_host_keys_that_is_missing_is_no_licence(board: Board, bundle: Bundle) -> None:
    (board.folder / "known_hosts").unlink()
    try:
        with pytest.raises(DeviceError, match=r"the file of host keys .*known_hosts cannot be read"):
            ask(board, bundle)
    finally:
        board.know()


def test_a_key_that_is_refused(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "my $(other) key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(other))
    with pytest.raises(DeviceError) as caught:
        ask(board, bundle, identity=other)
    assert f"the key {other} was refused for " in one_line(caught)
    assert f"type: ssh-copy-id -i '{other}' -p {board.port} " in one_line(caught)
    assert one_line(caught).endswith(f"ssh-add '{other}'")


def test_a_worker_that_does_not_start_there_one_that_fails_and_one_that_is_killed(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        ask(board, bundle, python=wrapped(tmp_path, "sys.executable='/bin/false'"))
    assert one_line(caught) == "board: edgeseg does not start there; type: edgeseg devices setup board"
    with pytest.raises(RuntimeFailure) as failed:
        board.device().run(Job({"job": "nope"}), what="looking", timeout_s=300, on_progress=print)
    assert str(failed.value).startswith("board: looking ended without an answer (exit 1) at stage 'start' (last words: KeyError: 'nope')")

    def kill(stage: str, done: float) -> None:
        for pid in board.workers() if stage == "measure" else ():  # which takes a minute
            with suppress(ProcessLookupError):  # what it had said before is heard when it is gone
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(RuntimeFailure) as killed:
        bench(bundle, [tmp_path / "null" / bundle.manifest.golden[0].frame], quick=True, minutes=1, device=board.device(), on_progress=kill)
    assert str(killed.value).endswith("was killed by SIGKILL at stage 'measure'; type: edgeseg devices check board")


def test_a_runtime_that_is_not_there_is_installed_there_and_not_here(board: Board, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "tflite")
    words = r"^board: tflite_runtime.* is not installed; type there: pip install 'edgeseg\[pi-legacy\]'$"
    with (
        pytest.raises(MissingExtraError, match=words),
        answers_on(board.device(), bundle, (), how=Plan("tflite_runtime", RuntimeOptions())),
    ):
        pass
    opencv = MissingExtraError("cv2 is not installed; type: pip install 'edgeseg[opencv]' (on a board: edgeseg devices setup NAME)")
    assert str(board.device()._for_there(opencv)) == "cv2 is not installed; type there: pip install 'edgeseg[opencv]'"
    set_up = SshDevice("ssh://pi", "pi", DeviceOptions())
    for words in ("litert is not installed; type: pip install 'edgeseg[pi-legacy]'",
                  "litert is not installed; type: pip install 'edgeseg[pi-legacy]' (on a board: another way)"):
        assert str(set_up._for_there(MissingExtraError(words))) == ("litert is not installed; type: edgeseg devices setup pi --extra "
                                                                    "pi-legacy (and --extra for each other runtime it is to keep)")


def test_a_board_without_opencv_refuses_a_bundle_that_resizes_by_it(board: Board, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "null", resizer="opencv")
    worker, code = tmp_path / "worker", f"import sys,runpy;sys.modules['cv2']=None;runpy.run_module('{WORKER}',run_name='__main__')"
    worker.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "{code}"\n', encoding="utf-8")
    worker.chmod(0o755)
    with pytest.raises(MissingExtraError) as caught:
        ask(board, bundle, python=wrapped(tmp_path, f"sys.executable='{worker}'"))
    assert str(caught.value) == "board: cv2 is not installed; type there: pip install 'edgeseg[opencv]'"


def test_a_key_that_is_none(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "torn").write_text("-----BEGIN NONSENSE-----", encoding="utf-8")
    for name in ("torn", "gone"):
        with pytest.raises(DeviceError) as caught:
            ask(board, bundle, identity=tmp_path / name)
        one_line(caught)


def at_home(board: Board, home: Path, monkeypatch: pytest.MonkeyPatch, *, config: str = "") -> SshDevice:
    """The board for a user who has a name for it in ~/.ssh/config, and names nothing else."""
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text(
        f"Host the-farm\n  HostName 127.0.0.1\n  Port {board.port}\n  User {login()}\n{config}", encoding="utf-8"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return SshDevice("ssh://the-farm", "", DeviceOptions(python=sys.executable, folder=str(board.work)), TIMES)


def answers(device: SshDevice, bundle: Bundle) -> float:
    with answers_on(device, bundle, (), timeout_s=300) as session:
        return check_golden(bundle, session)


def test_ssh_config_and_the_usual_files_hold(board: Board, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = at_home(board, tmp_path / "home", monkeypatch)
    shutil.copy(board.folder / "user_key", tmp_path / "home" / ".ssh" / "id_ed25519")
    with pytest.raises(DeviceError, match=r"^ssh://the-farm: its host key is not known .* type once: ssh the-farm$"):
        answers(device, bundle)
    shutil.copy(board.folder / "known_hosts", tmp_path / "home" / ".ssh" / "known_hosts")
    assert answers(device, bundle) == 1.0


def test_ssh_config_cannot_turn_the_check_off(board: Board, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = "  StrictHostKeyChecking no\n  UserKnownHostsFile none\n"
    with pytest.raises(DeviceError, match="its host key is not known"):
        answers(at_home(board, tmp_path / "home", monkeypatch, config=loose), bundle)


def test_an_old_key_in_the_file_of_the_system(board: Board, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, system = at_home(board, tmp_path / "home", monkeypatch), tmp_path / "ssh_known_hosts"
    board.know(key=asyncssh.generate_private_key("ssh-ed25519"))
    shutil.copy(board.folder / "known_hosts", system)
    board.know()
    monkeypatch.setattr(connect, "_SYSTEM_KNOWN_HOSTS", system)
    with pytest.raises(DeviceError) as caught:
        answers(device, bundle)
    assert one_line(caught).endswith(f"type: sudo ssh-keygen -f {system} -R '[127.0.0.1]:{board.port}'")


def answers_at(path: Path) -> bool:
    """Whether somebody listens there already: the name is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextmanager
def agent_with(key: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An agent that holds a key."""
    folder = Path(tempfile.mkdtemp(prefix="agent"))  # tmp_path is too long for the name of a socket
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(folder / "socket")], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(folder / "socket"))
        assert comes_true(lambda: answers_at(folder / "socket"))
        subprocess.run(["ssh-add", "-q", str(key)], check=True)
        yield
    finally:
        agent.kill()
        agent.wait()
        shutil.rmtree(folder)


@NEEDS_AGENT
def test_keys_of_the_agent(board: Board, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = at_home(board, tmp_path / "home", monkeypatch)
    shutil.copy(board.folder / "known_hosts", tmp_path / "home" / ".ssh" / "known_hosts")
    with pytest.raises(DeviceError, match=r"your keys were refused for the-farm; type: ssh-copy-id the-farm, or, .*: ssh-add$"):
        answers(device, bundle)
    with agent_with(board.folder / "user_key", monkeypatch):
        assert answers(device, bundle) == 1.0


@NEEDS_AGENT
def test_a_key_with_a_passphrase_is_left_to_the_agent(
    board: Board, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    locked = Path(shutil.copy(board.folder / "user_key", tmp_path / "locked"))
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", str(locked)], check=True, stdout=subprocess.DEVNULL)
    with pytest.raises(DeviceError) as caught:
        ask(board, bundle, identity=locked)
    assert f"the key {locked} was refused for " in one_line(caught)
    assert one_line(caught).endswith(f", or, if the key has a passphrase: ssh-add {locked}")
    with agent_with(board.folder / "user_key", monkeypatch):
        ask(board, bundle, identity=locked)


def test_bench_there(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    device = board.device()
    result = bench(bundle, [(tmp_path / "null" / bundle.manifest.golden[0].frame)], quick=True, device=device)
    assert (result.device, result.runtime, result.bundle_sha256) == (device.address, "null", bundle.manifest.sha256)
    with pytest.raises(TargetError, match=r"^board: intel-cpu does not run null; it runs openvino"):
        bench(bundle, [(tmp_path / "null" / bundle.manifest.golden[0].frame)], target="intel-cpu", quick=True, device=device)


def test_nobody_listens(board: Board, bundle: Bundle) -> None:
    with socket.socket() as taken:  # bound, so that nobody else is given its port meanwhile
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
        with pytest.raises(DeviceError, match=rf"^board: 127\.0\.0\.1 refuses connections to port {port}; is sshd running there\?"):
            ask(board, bundle, port=port)


@pytest.mark.parametrize(("python", "told"), [
    ("/no/such $(python)", "exit 127"), ("~/no such python'", "exit 127"), ("/etc/passwd", "exit 126"), ("/bin/true", "exit 0"),
])
def test_no_python(board: Board, bundle: Bundle, python: str, told: str) -> None:
    with pytest.raises(DeviceError) as caught:
        ask(board, bundle, python=python)
    assert one_line(caught).startswith(f"board: {python} does not run there ({told}")
    assert one_line(caught).endswith("type: edgeseg devices setup board")


def wrapped(folder: Path, before: str) -> str:
    """A Python of which `before` is true: it is run ahead of what the host asks for."""
    path = folder / "python with a name"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "import sys;{before};$3"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_python_too_old(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    python = wrapped(tmp_path, "sys.version_info=(3,8,10)")
    with pytest.raises(DeviceError, match=r"there is Python 3\.8, edgeseg needs 3\.10 or newer; type: edgeseg devices setup board"):
        ask(board, bundle, python=python)


@pytest.mark.parametrize("name", ["python2.7", "python3.8", "python3.9"])
def test_old_pythons_understand_what_starts_the_keeper(name: str) -> None:
    found = shutil.which(name)
    if found is None or subprocess.run([found, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no {name} here")
    ended = subprocess.run([found, "-c", START], capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == (f"edgeseg-board {name.removeprefix('python')}\n", 0)


def test_no_edgeseg_and_another_edgeseg(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        ask(board, bundle, python=wrapped(tmp_path, "sys.modules['targets']=None"))
    assert "edgeseg does not start" in one_line(caught)
    assert "ModuleNotFoundError" in one_line(caught)
    with pytest.raises(DeviceError, match=r"^board has edgeseg 0\.0\.1, this machine .*type: edgeseg devices setup board"):
        ask(board, bundle, python=wrapped(tmp_path, "import edgeseg;edgeseg.__version__='0.0.1'"))


def test_the_same_version_of_other_code(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    """A board that was set up with the checkout as it was before the last edit."""
    for package in ("edgeseg", "targets"):
        shutil.copytree(ROOT / package, tmp_path / "there" / package, ignore=shutil.ignore_patterns("__pycache__"))
    python = wrapped(tmp_path, f"sys.path.insert(0,'{tmp_path}/there')")
    ask(board, bundle, python=python)  # another place, the same code
    with (tmp_path / "there/targets/measure/bench.py").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    with pytest.raises(DeviceError) as caught:
        ask(board, bundle, python=python)
    said = rf"board has other code of edgeseg {re.escape(__version__)} \(\w{{8}}, this machine {code_sha256()[:8]}\); type: .* setup board"
    assert re.fullmatch(said, one_line(caught))


def test_login_scripts_may_talk(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    ask(board, bundle, python=wrapped(tmp_path, "print('Welcome to the farm');print('-'*70)"))
    with pytest.raises(DeviceError, match="prints too much at login"):
        ask(board, bundle, python=wrapped(tmp_path, "print('x'*200_000)"))


def test_two_hosts_at_once(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    """The second is told who was first; the first does not notice."""
    frame = tmp_path / "frame.png"
    write_frame(frame, tiny_frame())
    told: list[BaseException] = []
    job = Job({"job": "bench", "target": "host", "quick": True, "files": ["f/frame.png"], "bundle": "b/x", "runtime": "null",
               "options": {}},
              {"b/x": bundle.folder, "f/frame.png": frame})

    def second(stage: str, done: float) -> None:
        if stage == "measure" and not told:
            with pytest.raises(BusyError) as caught:
                elsewhere(lambda: ask(board, bundle))
            told.append(caught.value)

    patient = board.device(times=replace(TIMES, silence_s=240.0))  # for it says nothing while the second tries
    assert patient.run(job, what="measuring demo-int8", timeout_s=300, on_progress=second)["quick"]
    assert "board: in use by " in str(told[0])
    assert ", measuring demo-int8, since 20" in str(told[0])
    assert str(told[0]).endswith(" UTC; wait for it to end")
    assert board.quiet()


def elsewhere(call: Callable[[], None]) -> None:
    """Run a call in a thread of its own, for this one runs an event loop already."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


def test_a_board_that_was_taken_over(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    """It sends a file that nobody asked for; test_devices_words.py looks where such files go."""
    patch = "k.Keeper._give=lambda s,n:s._line.send({'file':'answers/../../evil','bytes':0})"
    evil = wrapped(tmp_path, f"import targets.devices.keeper as k;{patch}")
    with pytest.raises(DeviceError, match=r"sends a file 'answers/\.\./\.\./evil' that nobody asked for"):
        ask(board, bundle, python=evil)


def test_a_result_of_the_right_code_that_is_none(board: Board, bundle: Bundle, tmp_path: Path) -> None:
    """tests/unit/test_devices_received.py looks at every kind of result."""
    said = "s._line.send({'worker':{'result':{'runtime':7}}}),s._line.send({'ended':0,'last_words':''})"
    evil = wrapped(tmp_path, f"import targets.devices.keeper as k;k.Keeper._run=lambda s,r:({said})")
    with pytest.raises(DeviceError) as caught:
        bench(bundle, [tmp_path / "null" / bundle.manifest.golden[0].frame], quick=True, device=board.device(python=evil))
    assert "(in BenchResult: bundle is missing)" in one_line(caught)
    assert one_line(caught).endswith("type: edgeseg devices setup board")


@pytest.mark.parametrize(("address", "user_and_host", "port"), [
    ("ssh://pi@pi5", "pi@pi5", None), ("ssh://pi5:2222/", "pi5", 2222), ("ssh://a.b-c@[::1]:22", "a.b-c@::1", 22),
])
def test_addresses(address: str, user_and_host: str, port: int | None) -> None:
    where = parse_ssh(address)
    assert (where.login, where.port) == (user_and_host, port)
    assert open_device(address, "pi").name == "pi"


@pytest.mark.parametrize("address", [
    "ssh://", "ssh://pi@", "ssh:pi5", "ssh://pi@host:notaport", "ssh://pi@host:0", "ssh://pi@host/path", "ssh://pi@-oProxyCommand=x",
    "ssh://-x@host", "ssh://$(id)@host", "ssh://pi@ho%20st", "ssh://pi%20x@host", "ssh://pi@host:99999", "ssh://pi@ho;st",
])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="expected ssh://user@host"):
        open_device(address)


def test_no_password_in_an_address() -> None:
    with pytest.raises(ConfigError, match="ssh-copy-id") as caught:
        open_device("ssh://pi:raspberry@pi5")
    assert "raspberry" not in str(caught.value)


def test_home_is_the_boards() -> None:
    said = subprocess.run(["/bin/sh", "-c", f"printf %s {quoted_path('~/a b$(c)')}"], capture_output=True, text=True, check=True,
                          env={"HOME": "/home/the pi"})
    assert said.stdout == "/home/the pi/a b$(c)"


def test_times_out_on_a_board_that_does_not_answer(bundle: Bundle, board: Board) -> None:
    proxy = Proxy(board.port)
    proxy.stall_after = 0
    board.know(proxy.port)
    try:
        with pytest.raises(DeviceError, match="no answer within 1 s; is the board on"):
            ask(board, bundle, port=proxy.port, times=type(TIMES)(connect_s=1.0))
    finally:
        proxy.close()
        board.know()
