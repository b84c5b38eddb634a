"""The wheel holds the four packages and nothing else; what it says about itself is right."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from edgeseg import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = {"edgeseg", "exporters", "quantization", "targets"}


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_holds_exactly_the_four_packages(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} == {*PACKAGES, f"edgeseg-{__version__}.dist-info"}


def test_it_holds_every_module_and_data_file_of_them(names: set[str]) -> None:
    tracked = subprocess.run(["git", "ls-files", *sorted(PACKAGES)], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    here = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert here - names == set()
    assert {name for name in tracked if (ROOT / name).exists()} - names == set()
    assert {"edgeseg/py.typed", "edgeseg/report/page.css"} <= names


def test_it_holds_code_and_style_only(names: set[str]) -> None:
    inside = [name for name in names if ".dist-info/" not in name]
    assert {Path(name).suffix for name in inside} == {".py", ".typed", ".css"}
    assert not [name for name in inside if "test" in name.lower()]


def test_it_says_what_it_is(wheel: Path, names: set[str]) -> None:
    info = f"edgeseg-{__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_string(archive.read(f"{info}/METADATA").decode())
        commands = archive.read(f"{info}/entry_points.txt").decode()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"{info}/licenses/LICENSE" in names
    assert set(metadata.get_all("Provides-Extra")) >= {"train", "export", "pi", "intel", "onnx", "video", "jetson", "dev"}
    plain = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert {need.split(">")[0].split(";")[0].strip() for need in plain} == {"numpy", "pillow", "typer", "rich", "tomli"}
    assert "edgeseg = edgeseg.cli.main:main" in commands


def test_every_extra_that_code_names_exists(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_string(archive.read(f"edgeseg-{__version__}.dist-info/METADATA").decode())
    named = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for part in path.read_text(encoding="utf-8").split('extra="')[1:]:
                named.add(part.split('"')[0])
    assert named
    assert named <= set(metadata.get_all("Provides-Extra"))


def test_every_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [*project["dependencies"], *(need for extra in project["optional-dependencies"].values() for need in extra)]
    wanted = {re.split(r"[><=\[;]", need)[0].strip() for need in needs} - {"edgeseg"}
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert wanted - {line.split("==")[0] for line in lines} == set()


def test_the_layers_are_really_enforced(tmp_path: Path) -> None:
    """A sibling that imports a sibling, a lower layer that imports a higher one, and torch on a board must each fail the lint."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    (tmp_path / "targets" / "bad_one.py").write_text("import exporters\nimport torch\n", encoding="utf-8")
    (tmp_path / "edgeseg" / "core" / "bad_two.py").write_text("import edgeseg.report.model\n", encoding="utf-8")
    lint = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as lint; lint()"
    done = subprocess.run([sys.executable, "-c", lint, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    for broken in ("targets.bad_one -> exporters", "targets.bad_one -> torch", "edgeseg.core.bad_two -> edgeseg.report.model"):
        assert broken in done.stdout, done.stdout
