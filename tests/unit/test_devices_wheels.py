"""The wheel of this edgeseg, and the wheels a board without network needs: worked out with the board's own markers, fetched by real pip."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.core.errors import ConfigError, DownloadError
from targets.devices.wheels import BoardPython, collect_wheels, repack
from targets.own_code import code_sha256, sha256_of_code

PI = BoardPython(glibc=(2, 36), markers={
    "implementation_name": "cpython", "implementation_version": "3.10.12", "os_name": "posix", "platform_machine": "aarch64",
    "platform_python_implementation": "CPython", "platform_release": "6.1", "platform_system": "Linux", "platform_version": "1",
    "python_full_version": "3.10.12", "python_version": "3.10", "sys_platform": "linux",
})


def write_wheel(folder: Path, name: str, *needs: str, version: str = "1.0", tag: str = "py3-none-any") -> Path:
    """A wheel with nothing in it but what it needs."""
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    metadata = "\n".join([f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", "Provides-Extra: pi",
                          *(f"Requires-Dist: {need}" for need in needs)])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata + "\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only index pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def collect(tmp_path: Path, index: Path, *needs: str, board: BoardPython = PI) -> list[str]:
    (tmp_path / "out").mkdir()
    wheel = write_wheel(tmp_path, "edgeseg", *needs)
    return [path.name for path in collect_wheels(wheel, ("pi",), board, tmp_path / "out", lambda text: None)]


def test_the_boards_markers_decide_and_not_this_machines(tmp_path: Path, index: Path) -> None:
    write_wheel(index, "alpha", 'old; python_version < "3.11"', 'new; python_version >= "3.11"', 'arm; platform_machine == "aarch64"')
    for name in ("old", "new", "runtime", "other"):
        write_wheel(index, name)
    for arch in ("aarch64", "x86_64"):
        write_wheel(index, "arm", tag=f"cp310-cp310-manylinux_2_28_{arch}")
    found = collect(tmp_path, index, "alpha", 'runtime; extra == "pi"', 'other; extra == "intel"')
    assert found == ["alpha-1.0-py3-none-any.whl", "arm-1.0-cp310-cp310-manylinux_2_28_aarch64.whl", "old-1.0-py3-none-any.whl",
                     "runtime-1.0-py3-none-any.whl"]


def test_what_is_too_new_for_the_boards_glibc_is_not_taken(tmp_path: Path, index: Path) -> None:
    write_wheel(index, "alpha", tag="cp310-cp310-manylinux_2_35_aarch64")
    with pytest.raises(DownloadError, match=r"Python 3\.10\.12 on aarch64 \(glibc 2\.31\).*alpha.*leave --offline out"):
        collect(tmp_path, index, "alpha", board=replace(PI, glibc=(2, 31)))


def test_a_bound_found_later_holds_for_what_was_fetched_before(tmp_path: Path, index: Path) -> None:
    write_wheel(index, "alpha", "gamma")
    write_wheel(index, "gamma", "beta<2")
    for version in ("1.5", "2.5"):
        write_wheel(index, "beta", version=version)
    assert "beta-1.5-py3-none-any.whl" in collect(tmp_path, index, "alpha", "beta>=1")
    assert not list((tmp_path / "out").glob("beta-2*"))


@pytest.mark.parametrize("board", [replace(PI, glibc=None), replace(PI, markers={**PI.markers, "platform_machine": "armv7l"})])
def test_boards_without_wheels_are_refused(tmp_path: Path, index: Path, board: BoardPython) -> None:
    with pytest.raises(ConfigError, match="64-bit Linux with glibc"):
        collect(tmp_path, index, "alpha", board=board)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that edgeseg was installed into from its wheel."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True)
    return folder


def distribution(folder: Path) -> importlib.metadata.Distribution:
    return next(iter(importlib.metadata.distributions(name="edgeseg", path=[str(folder)])))


def test_an_installation_is_packed_into_the_wheel_it_came_from(installed: Path, wheel: Path, tmp_path: Path) -> None:
    again = repack(distribution(installed), tmp_path)
    assert again.name == wheel.name
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
        assert all(first.read(name) == second.read(name) for name in first.namelist() if not name.endswith("RECORD"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--target", str(tmp_path / "from-it"), str(again)], check=True)
    assert (tmp_path / "from-it" / "targets" / "devices" / "board_setup.py").is_file()


def test_edgeseg_from_a_wheel_is_the_same_code_as_the_checkout(installed: Path, tmp_path: Path) -> None:
    packages = (installed / "edgeseg", installed / "targets")
    assert sha256_of_code(packages) == code_sha256()
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(installed / "targets" / "boards")], check=True)
    assert sha256_of_code(packages) == code_sha256(), "what Python compiled there does not count"


def test_an_installation_that_was_changed_is_not_sent_on(installed: Path, tmp_path: Path) -> None:
    module = installed / "edgeseg" / "__main__.py"
    kept = module.read_bytes()
    try:
        module.write_bytes(kept + b"# mine\n")
        with pytest.raises(ConfigError, match=r"edgeseg/__main__\.py was changed since it was installed"):
            repack(distribution(installed), tmp_path)
        module.unlink()
        with pytest.raises(ConfigError, match=r"lacks edgeseg/__main__\.py"):
            repack(distribution(installed), tmp_path)
    finally:
        module.write_bytes(kept)
