"""What a board installs: the wheel of this very edgeseg, and for a board without network every wheel it needs.

`edgeseg_wheel` says how it came by the wheel. A checkout (an editable installation is one) is built with `python -m build`; an edgeseg
that was installed from a wheel is packed again from its RECORD (PEP 376, PEP 427), each file compared with the hash that stands there.

`collect_wheels` works out what is needed itself, since `pip download --platform` answers environment markers for the machine it runs on
(pip issue 11664): the board's own marker values (PEP 508) decide, wheel by wheel, and pip only fetches.
"""

from __future__ import annotations

import base64
import email.parser
import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import edgeseg
from edgeseg.core.errors import ConfigError, DownloadError, MissingExtraError, RuntimeFailure
from edgeseg.core.lazy import require

_PACKAGES: Final = ("edgeseg", "exporters", "quantization", "targets")
_BESIDE: Final = ("pyproject.toml", "README.md", "LICENSE")
_LEFT_OUT: Final = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Files of a `.dist-info` folder that an installer wrote."""
_OLDEST_GLIBC_MINOR: Final = {"aarch64": 17, "x86_64": 5}
"""Oldest glibc 2.N that manylinux tags of an architecture speak of (PEP 600)."""
_MAX_ROUNDS: Final = 30
_LONGEST_S: Final = 1800.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class BuiltWheel:
    """The wheel of this edgeseg."""

    path: Path
    how: str
    """Where it comes from, in words."""


@dataclass(frozen=True, kw_only=True)
class BoardPython:
    """The Python of a board, as it describes itself."""

    markers: Mapping[str, str]
    """Environment markers (PEP 508): `python_version`, `platform_machine` ..."""
    glibc: tuple[int, int] | None
    """Version of its C library; `None` = another one."""

    @property
    def arch(self) -> str:
        """As `uname -m` says."""
        return self.markers["platform_machine"]

    @property
    def version(self) -> str:
        """`3.11.2`."""
        return self.markers["python_full_version"]

    @property
    def words(self) -> str:
        """For a person."""
        libc = "no glibc" if self.glibc is None else f"glibc {self.glibc[0]}.{self.glibc[1]}"
        return f"Python {self.version} on {self.arch} ({libc})"


@dataclass
class _Need:
    """One package that is needed."""

    specifier: Any
    extras: set[str] = field(default_factory=set)
    wheel: Path | None = None
    read_for: frozenset[str] | None = None
    """The extras its requirements were read for."""


def edgeseg_wheel(folder: Path) -> BuiltWheel:
    """Give the wheel of the edgeseg that runs, made in `folder`.

    Raises:
        MissingExtraError: this is a checkout, and what builds it is not installed.
        RuntimeFailure: it cannot be built.
        ConfigError: this edgeseg was installed in a way that does not say what belongs to it, or was changed since.
    """
    root = Path(edgeseg.__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file():
        return BuiltWheel(_build(root, folder), f"built from the checkout {root}")
    distribution = _installed(root)
    return BuiltWheel(repack(distribution, folder), f"packed again from the installation in {root}")


def collect_wheels(wheel: Path, extras: Collection[str], board: BoardPython, folder: Path, on_progress: Say) -> list[Path]:
    """Fetch every wheel that `wheel` with `extras` needs on a board, from the indexes this machine's pip knows, into `folder`.

    Raises:
        DownloadError: there is no wheel of something for that board, or no index can be reached.
        MissingExtraError: `packaging` or pip is not installed here.
        ConfigError: no wheels are made for such a board.
    """
    requirements = require("packaging.requirements", extra="devices")
    utils = require("packaging.utils", extra="devices")
    options = platform_options(board)
    needs: dict[str, _Need] = {"edgeseg": _Need(require("packaging.specifiers", extra="devices").SpecifierSet(), set(extras), wheel)}
    for _ in range(_MAX_ROUNDS):
        for need in list(needs.values()):
            if need.wheel is not None and need.read_for != frozenset(need.extras):
                need.read_for = frozenset(need.extras)
                for requirement in map(requirements.Requirement, _requires(need.wheel)):
                    if _applies(requirement.marker, board, need.extras):
                        _add(needs, utils.canonicalize_name(requirement.name), requirement)
        missing = {name: need for name, need in needs.items() if need.wheel is None}
        if not missing:
            if any(need.read_for != frozenset(need.extras) for need in needs.values()):
                continue
            return sorted(need.wheel for name, need in needs.items() if name != "edgeseg" and need.wheel is not None)
        on_progress(f"collecting {', '.join(sorted(missing))}")
        _download([f"{name}{need.specifier}" for name, need in missing.items()], options, folder, board)
        for found in folder.glob("*.whl"):
            name = utils.canonicalize_name(utils.parse_wheel_filename(found.name)[0])
            if name in missing:
                needs[name].wheel = found
    raise DownloadError(f"what edgeseg[{','.join(extras)}] needs does not settle for {board.words}; set the board up without --offline")


def _build(root: Path, folder: Path) -> Path:
    """Build from a copy, so that the checkout gets no build/ folder."""
    require("build", extra="dev")
    with tempfile.TemporaryDirectory(prefix="edgeseg-wheel-") as work:
        for name in _PACKAGES:
            shutil.copytree(root / name, Path(work) / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in _BESIDE:
            shutil.copyfile(root / name, Path(work) / name)
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), work]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_S)
        except subprocess.TimeoutExpired as error:
            raise RuntimeFailure(f"the wheel of {root} was not built within {_LONGEST_S:.0f} s; type: make wheel") from error
    if done.returncode:
        raise RuntimeFailure(f"the wheel of {root} cannot be built: {_last_line(done.stdout + done.stderr)}; type: make wheel")
    (wheel,) = folder.glob("edgeseg-*.whl")
    return wheel


def _installed(root: Path) -> importlib.metadata.Distribution:
    """The distribution that the running edgeseg belongs to."""
    for distribution in importlib.metadata.distributions(name="edgeseg", path=[str(root)]):
        if distribution.read_text("RECORD") is not None and distribution.read_text("WHEEL") is not None:
            return distribution
    raise ConfigError(f"edgeseg in {root} has no record of its files, so no wheel can be made of it; install it from a wheel or a checkout")


def repack(distribution: importlib.metadata.Distribution, folder: Path) -> Path:
    """Write the wheel that an installation came from, compiled files and the installer's own left out."""
    wheel = folder / f"edgeseg-{distribution.version}-py3-none-any.whl"
    rows = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(distribution.files or (), key=str):
            inside = path.as_posix()
            if path.parts[0] == ".." or path.suffix == ".pyc" or (path.parent.suffix == ".dist-info" and path.name in _LEFT_OUT):
                continue
            try:
                data = Path(str(distribution.locate_file(path))).read_bytes()
            except FileNotFoundError as error:
                raise ConfigError(f"the installed edgeseg lacks {inside}; install it again") from error
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            if path.hash is not None and (path.hash.mode, path.hash.value) != ("sha256", digest):
                raise ConfigError(f"the installed {inside} was changed since it was installed; install edgeseg again")
            archive.writestr(inside, data)
            rows.append(f"{inside},sha256={digest},{len(data)}")
        record = next(path for path in distribution.files or () if path.name == "RECORD").as_posix()
        archive.writestr(record, "\n".join([*rows, f"{record},,", ""]))
    return wheel


def _requires(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1)
        message = email.parser.Parser().parsestr(archive.read(name).decode("utf-8"), headersonly=True)
    return [str(line) for line in message.get_all("Requires-Dist") or []]


def _applies(marker: Any, board: BoardPython, extras: Collection[str]) -> bool:  # noqa: ANN401 - packaging.markers.Marker
    return marker is None or any(marker.evaluate({**board.markers, "extra": extra}) for extra in ("", *extras))


def _add(needs: dict[str, _Need], name: str, requirement: Any) -> None:  # noqa: ANN401 - packaging.requirements.Requirement
    utils = require("packaging.utils", extra="devices")
    need = needs.setdefault(name, _Need(requirement.specifier))
    need.extras |= set(requirement.extras)
    need.specifier &= requirement.specifier
    if name != "edgeseg" and need.wheel is not None and not need.specifier.contains(
        utils.parse_wheel_filename(need.wheel.name)[1], prereleases=True
    ):
        need.wheel.unlink()
        need.wheel, need.read_for = None, None


def platform_options(board: BoardPython) -> list[str]:
    """Give what tells pip to take wheels for another machine's Python.

    Raises:
        ConfigError: no wheels are made for such a machine.
    """
    if board.glibc is None or board.glibc[0] != 2 or board.arch not in _OLDEST_GLIBC_MINOR:
        raise ConfigError(f"no wheels can be collected for {board.words}; edgeseg runs on 64-bit Linux with glibc (aarch64 or x86_64)")
    minors = range(board.glibc[1], _OLDEST_GLIBC_MINOR[board.arch] - 1, -1)
    tags = [*(f"manylinux_2_{minor}_{board.arch}" for minor in minors), f"manylinux2014_{board.arch}", f"linux_{board.arch}"]
    return ["--implementation", "cp", "--python-version", board.version, *(part for tag in tags for part in ("--platform", tag))]


def _download(needed: list[str], options: list[str], folder: Path, board: BoardPython) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
               "--dest", str(folder), *options, *needed]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        raise DownloadError(f"wheels for {board.words} took more than {_LONGEST_S:.0f} s; check this machine's network") from error
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise MissingExtraError("pip is not installed here, and collects the wheels; type: python -m ensurepip")
    raise DownloadError(f"wheels for {board.words} cannot be collected: {_last_line(done.stderr)}; check this machine's network, or set "
                        "the board up from its own index: leave --offline out")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["nothing was said"])[-1].removeprefix("ERROR:").strip()
