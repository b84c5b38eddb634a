"""What a board gets: the wheel with `[pi]` in an empty environment. No torch there, and a bundle runs.

On the Python of these tests and, where there is one, on 3.10 (what JetPack 6 ships).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wheel_tools import ROOT, empty_environment

from edgeseg.core.bundle import open_bundle

pytestmark = pytest.mark.slow
HOST_ONLY = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "litert_torch", "ai_edge_quantizer", "torch_pruning", "safetensors")


def find_python_310() -> str | None:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in (shutil.which("python3.10"), *map(str, sorted(pyenv.glob("versions/3.10.*/bin/python3.10")))):
        if python and subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode == 0:
            return python
    return None


@pytest.fixture(scope="module", params=["this-python", "python-3.10"])
def board(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and LiteRT in it."""
    python = sys.executable if request.param == "this-python" else find_python_310()
    if python is None:
        pytest.skip("no Python 3.10 on this machine; ruff and mypy hold the device side to 3.10")
    inside = empty_environment(tmp_path_factory.mktemp("board") / "venv", python)
    pip = [str(inside), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    done = subprocess.run([*pip, f"{wheel}[pi]", "-c", str(ROOT / "constraints.txt")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return inside.parent


def call(board: Path, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8"}
    command = [str(board / "edgeseg"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_nothing_of_the_host_side_is_there(board: Path, tmp_path: Path) -> None:
    code = f"import importlib.util as u, json; print(json.dumps([n for n in {HOST_ONLY!r} if u.find_spec(n)]))"
    done = subprocess.run([str(board / "python"), "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_commands_answer(board: Path, tmp_path: Path) -> None:
    for arguments in (["--help"], ["--version"], ["doctor"], ["targets"], ["init", "--all"]):
        done = call(board, *arguments, cwd=tmp_path)
        assert done.returncode == 0, (arguments, done.stderr)
        assert done.stdout.strip()
        assert done.stderr == ""


def test_a_bundle_gives_its_golden_answers(board: Path, tflite_bundle: Path, tmp_path: Path) -> None:
    done = call(board, "verify", tflite_bundle, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True


def test_a_changed_byte_is_noticed(board: Path, tflite_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tflite_bundle, tmp_path / "bundle")
    model = tmp_path / "bundle" / "model.tflite"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    done = call(board, "verify", "bundle", cwd=tmp_path)
    assert done.returncode == 11
    assert "model.tflite was changed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_predict_answers_as_the_host_does(board: Path, tflite_bundle: Path, tmp_path: Path) -> None:
    frame, expected = open_bundle(tflite_bundle).golden_pairs()[0]
    Image.fromarray(frame).save(tmp_path / "frame.png")
    done = call(board, "predict", tflite_bundle, "frame.png", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (mask,) = (tmp_path / "out" / "masks").glob("*.png")
    with Image.open(mask) as image:
        assert np.array_equal(np.asarray(image), expected)


def test_bench_measures(board: Path, tflite_bundle: Path, tmp_path: Path) -> None:
    done = call(board, "bench", tflite_bundle, "--quick", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["quick"] is True
    assert result["inference"]["p50_ms"] > 0


def test_what_needs_the_host_says_which_extra_is_missing(board: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "masks").mkdir()
    for i in range(8):
        Image.fromarray(np.full((32, 32, 3), 20 * i, np.uint8)).save(tmp_path / "data" / "images" / f"{i}.png")
        Image.fromarray((np.indices((32, 32)).sum(axis=0) % 2).astype(np.uint8)).save(tmp_path / "data" / "masks" / f"{i}.png")
    (tmp_path / "edgeseg.toml").write_text('[data]\ndir = "data"\nsize = [32, 32]\n', encoding="utf-8")
    done = call(board, "train", cwd=tmp_path)
    assert done.returncode == 69, done.stderr
    assert "pip install 'edgeseg[" in done.stderr.splitlines()[-1]
