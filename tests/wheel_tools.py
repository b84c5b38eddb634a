"""Build the wheel and install it where nothing else is: what the tests of the package share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the sources, so that the working tree gets no build/ folder."""
    source = folder / "source"
    source.mkdir()
    for name in ("edgeseg", "exporters", "quantization", "targets", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "dist").glob("edgeseg-*.whl")
    return wheel


def empty_environment(folder: Path, python: str = sys.executable) -> Path:
    """Create a virtual environment that sees nothing of this one; gives its python."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True, capture_output=True)
    return folder / "bin" / "python"
