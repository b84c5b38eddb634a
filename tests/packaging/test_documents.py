"""What the documents say about the code is true: exit codes, links, commands of the Makefile, targets."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edgeseg.core import errors
from targets.boards import TARGETS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_readme_lists_every_exit_code() -> None:
    members = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgesegError)]
    codes = {kind.exit_code for kind in members}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", read("README.md"), re.MULTILINE)}
    assert codes <= listed
    assert listed - codes == {0, 130, 141, 143}  # those of cli.main: done, Ctrl-C, closed pipe, SIGTERM


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (document.parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_paths_that_contributors_are_sent_to_exist(document: Path) -> None:
    for path in re.findall(r"`((?:edgeseg|exporters|quantization|targets|tests)/[a-z_/]+\.py)`", document.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path


def test_every_target_is_in_the_readme() -> None:
    for name in TARGETS:
        assert f"`{name}`" in read("README.md"), name
        assert f"`{name}`" in read("docs/targets.md"), name


def test_make_lists_its_targets() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout == listed
    for target in ("setup", "demo", "test", "lint", "wheel", "clean"):
        assert re.search(rf"^  {target} ", listed, re.MULTILINE), target


def test_decisions_are_listed_and_say_what_they_cost() -> None:
    for path in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        assert path.name in read("docs/adr/README.md")
        assert "**What it costs.**" in path.read_text(encoding="utf-8")


def test_an_old_python_is_refused_in_one_clear_line(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.9.2' && exit 0\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    command = ["sh", str(ROOT / ".ci" / "make_venv"), str(tmp_path / "venv"), str(old)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()
