"""The aarch64 environment that emulated boards share: built once, kept by what it was asked to hold, never changed afterwards.

    CACHE/emulation/KEY/environment.json    what it holds: every package and wheel with its SHA-256, versions, size, time
                        system/             Debian's arm64 packages, unpacked
                        wheels/             aarch64 wheels, unpacked
                        boards/BOARD/       what qemu shows in place of /: links into system/, and the board's own proc/ and sys/
                        code/, compiled/    links to the edgeseg that runs; what Python compiled

KEY is the hash of the distribution's release, the packages, the wheels with their versions, and the boards' files. The folder takes its
name when it is whole, so a killed build leaves nothing that could be taken for one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import edgeseg
import targets
from edgeseg.core.errors import DownloadError, MissingExtraError, RuntimeFailure
from edgeseg.core.files import patient_lock, read_json, sha256_file, sha256_json, sweep_temporaries, write_json
from targets.devices.emulation.boards import BOARDS, EMPTY_FOLDERS, machine_files
from targets.devices.emulation.debian import fetch_packages, require_apt, suite, unpack
from targets.devices.emulation.qemu import fetch_qemu, find_qemu
from targets.devices.wheels import BoardPython, platform_options
from targets.measure.process import Interpreter

_RECIPE: Final = 1
"""To be raised when the way it is built changes."""
_PACKAGES: Final = ("python3", "libgomp1", "libstdc++6")
_WHEELS: Final = {
    "numpy": "numpy", "pillow": "PIL.Image", "ai-edge-litert": "ai_edge_litert.interpreter", "onnxruntime": "onnxruntime",
    "opencv-python-headless": "cv2",
}
"""Wheel, in the version that is installed here, so that answers differ by the processor alone, or the newest of what is not -> its module
that has to load; each does the detection of the processor that goes wrong first."""
_WHERE_HERE: Final = ("opencv-python-headless",)
"""Wheels that are left out where this machine does not have their module: 40 MB for a resizer that few bundles ask for."""
_LONGEST_S: Final = 900.0
_KEPT_VARIABLES: Final = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "OMP_NUM_THREADS")
_CHECK: Final = """
import importlib, importlib.metadata, json, platform, sys
modules, wheels = (words.split() for words in sys.argv[1:])
for name in modules:
    importlib.import_module(name)
print(json.dumps({"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in wheels}}))
"""

Say = Callable[[str], None]
"""Called with what is being done."""


@dataclass(frozen=True)
class Environment:
    """A whole environment in the cache, and the emulator for it."""

    folder: Path
    qemu: Path
    facts: Mapping[str, Any]
    """What environment.json holds."""

    @property
    def words(self) -> str:
        """What it holds, what it weighs and what it took, for a person."""
        facts = self.facts
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        return (f"{len(facts['packages'])} arm64 packages of {facts['suite']}, {len(facts['wheels'])} aarch64 wheels ({versions}); "
                f"{facts['size_bytes'] / 1e6:.0f} MB in {self.folder}, built in {facts['seconds']:.0f} s")

    def interpreter(self, board: str) -> Interpreter:
        """What runs a worker on a board: no variable of this machine's own Python or loader comes along."""
        code, root = _code(self.folder), self.folder / "boards" / board
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return Interpreter(
            command=(str(self.qemu), "-cpu", BOARDS[board].cpu, "-L", str(root), str(_python(self.folder / "system"))),
            packages=code,
            environment={
                **kept, "PYTHONPATH": os.pathsep.join((str(code), str(self.folder / "wheels"))), "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1",
                "PYTHONPYCACHEPREFIX": str(self.folder / "compiled"),
            },
        )


def open_environment(cache: Path, say: Say) -> Environment:
    """Give the environment, built first where the cache does not hold it.

    Args:
        cache: folder for what serves every run.
        say: told what is being fetched, and who else is building.

    Raises:
        DeviceError: it has to be built, and this machine has no apt.
        MissingExtraError: it has to be built, and this Python has no pip.
        DownloadError: a package or a wheel cannot be had.
        RuntimeFailure: what was built does not run here.
    """
    wanted, kept = _wanted(), cache.expanduser().absolute() / "emulation"
    folder = kept / sha256_json(wanted)[:16]
    qemu, facts = find_qemu(kept), _read(folder)
    if qemu is not None and facts is not None:
        return Environment(folder, qemu, facts)
    with patient_lock(kept / "lock", holder="edgeseg", on_wait=lambda who: say(f"waiting for {who}, which builds the emulation")):
        sweep_temporaries(kept)
        qemu = find_qemu(kept) or fetch_qemu(kept, say)
        facts = _read(folder) or _build(folder, wanted, qemu, say)
    return Environment(folder, qemu, facts)


def _wanted() -> dict[str, Any]:
    return {
        "recipe": _RECIPE, "suite": suite(), "packages": list(_PACKAGES), "wheels": _wheels(),
        "boards": {name: [board.cpu, machine_files(board)] for name, board in BOARDS.items()}, "shadowed": list(EMPTY_FOLDERS),
    }


def _wheels() -> list[str]:
    wanted = (name for name, module in _WHEELS.items() if name not in _WHERE_HERE or importlib.util.find_spec(module) is not None)
    return [_pinned(name) for name in wanted]


def _pinned(name: str) -> str:
    try:
        return f"{name}=={importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return name


def _read(folder: Path) -> dict[str, Any] | None:
    """What a whole environment holds; `None` where there is none."""
    try:
        facts: dict[str, Any] = read_json(folder / "environment.json")
    except FileNotFoundError:
        return None
    return facts


def _build(folder: Path, wanted: Mapping[str, Any], qemu: Path, say: Say) -> dict[str, Any]:
    """Build under a name of ours, try it out, and give it its own."""
    require_apt("the emulated board is made of Debian packages")
    begun = time.monotonic()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    system = temporary / "system"
    system.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="edgeseg-apt-") as work:
        say("fetching arm64 packages")
        packages = fetch_packages(_PACKAGES, arch="arm64", work=Path(work))
        say("unpacking arm64 packages")
        unpack(packages, system)
        held = {package.name: sha256_file(package) for package in packages}
    say("fetching aarch64 wheels")
    wheels = _install_wheels(wanted["wheels"], temporary / "wheels", _python(system).name.removeprefix("python"), _glibc_minor(held))
    for name in BOARDS:
        _lay_board(name, temporary)
    say("trying the emulation out")
    facts = {
        "suite": wanted["suite"], "packages": held, "wheels": wheels,
        "versions": _try_out(Environment(temporary, qemu, {}), wanted["wheels"]),
        "size_bytes": sum(path.lstat().st_size for path in temporary.rglob("*") if path.is_symlink() or path.is_file()),
        "seconds": round(time.monotonic() - begun, 1),
    }
    write_json(temporary / "environment.json", facts)
    os.sync()  # ten thousand files: one call for all of them, before the name says that they are whole
    temporary.rename(folder)
    return facts


def _python(system: Path) -> Path:
    """The interpreter itself, by its full name: `python3.11`."""
    found = (path for path in (system / "usr/bin").glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name))
    return next(found)


def _glibc_minor(packages: Mapping[str, str]) -> int:
    """`libc6_2.36-9_arm64.deb` -> 36."""
    (minor,) = [int(found[1]) for found in (re.match(r"libc6_2\.(\d+)", name) for name in packages) if found]
    return minor


def _install_wheels(wanted: list[str], folder: Path, python: str, glibc_minor: int) -> dict[str, str]:
    """Let pip fetch, check (by the index's hashes) and unpack wheels for another machine; give their names and SHA-256.

    pip answers environment markers for the Python it runs on (pip issue 11664); `_try_out` finds what might be missing for that.
    """
    board = BoardPython(markers={"platform_machine": "aarch64", "python_full_version": python}, glibc=(2, glibc_minor))
    with tempfile.TemporaryDirectory(prefix="edgeseg-pip-") as work:
        report = Path(work) / "report.json"
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile",
            "--no-warn-conflicts", "--target", str(folder), "--report", str(report), "--only-binary=:all:",
            *platform_options(board), *wanted,
        ]
        done = _run(command, {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}, Path(work), doing="fetching aarch64 wheels")
        if "No module named pip" in done.stderr:
            raise MissingExtraError("pip is not installed here, and fetches the aarch64 wheels; type: python -m ensurepip")
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or ["nothing"]
            raise DownloadError(f"fetching {', '.join(wanted)} for Python {python} on aarch64: pip says {told[-1]}; check the network")
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    files = [one["download_info"] for one in installed]
    return {file["url"].rpartition("/")[2]: file["archive_info"]["hashes"]["sha256"] for file in files}


def _lay_board(name: str, folder: Path) -> None:
    """Lay what qemu shows in place of /: the packages by links, the board's own files beside them."""
    root = folder / "boards" / name
    root.mkdir(parents=True)
    for path in sorted((folder / "system").iterdir()):
        (root / path.name).symlink_to(f"../../system/{path.name}")
    for empty in EMPTY_FOLDERS:
        (root / empty).mkdir(parents=True)
    for file, text in machine_files(BOARDS[name]).items():
        place = root / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


def _try_out(environment: Environment, wheels: list[str]) -> dict[str, str]:
    """Import everything on an emulated board; give the versions."""
    names = [wheel.partition("==")[0] for wheel in wheels]
    interpreter = environment.interpreter(next(iter(BOARDS)))
    command = [*interpreter.command, "-c", _CHECK, " ".join(_WHEELS[name] for name in names), " ".join(names)]
    done = _run(command, interpreter.environment, interpreter.packages, doing="trying the emulation out")
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"exit {done.returncode}"]
        raise RuntimeFailure(f"{environment.qemu} does not run what was built: {lines[-1]}; qemu 7.2 and 10.0 are known to")
    versions: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return versions


def _run(command: list[str], environment: Mapping[str, str], folder: Path, *, doing: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, env=dict(environment), cwd=folder, capture_output=True, text=True, errors="replace", check=False,
                              timeout=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        raise RuntimeFailure(f"{doing} took more than {_LONGEST_S:.0f} s; check the network and the load of this machine") from error


def _code(folder: Path) -> Path:
    """A folder with nothing but links to the running edgeseg: beside its packages there may be wheels of this machine."""
    packages = {"edgeseg": Path(edgeseg.__file__).resolve().parent, "targets": Path(next(iter(targets.__path__))).resolve()}
    code = folder / "code" / sha256_json({name: str(path) for name, path in packages.items()})[:16]
    code.mkdir(parents=True, exist_ok=True)
    for name, path in packages.items():
        try:
            (code / name).symlink_to(path)
        except FileExistsError:
            continue
    return code
