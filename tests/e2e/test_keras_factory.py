"""A Keras model through `[model] factory`, as docs/import.md shows it: trains, exports, and every pixel is as torch answers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from chain_tools import edgeseg, write_tiny_project

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="keras is not installed; it comes with pip install 'edgeseg[keras]'",
)
CONFIG = """
name = "keras"
targets = ["host"]

[data]
dir = "data"
size = [64, 96]

[model]
factory = "my_net:build"

[train]
epochs = 4
batch_size = 4
eval_every = 2
warmup_epochs = 1

[export]
formats = ["openvino"]
"""


def shown_in_the_docs() -> str:
    """The module of docs/import.md."""
    text = (Path(__file__).parents[2] / "docs" / "import.md").read_text(encoding="utf-8")
    return text.split("```python\n")[1].split("```")[0]


def test_the_network_of_the_docs_trains_and_exports(tmp_path: Path) -> None:
    write_tiny_project(tmp_path, config=CONFIG)
    (tmp_path / "my_net.py").write_text(shown_in_the_docs())
    done = edgeseg("train", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "runs/keras/checkpoints/trained/history.json").read_text())["epochs"]
    assert history[-1]["loss"] < history[0]["loss"]
    done = edgeseg("export", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (verified,) = json.loads(done.stdout)["verified"]
    assert verified["agreement"] >= 0.999
