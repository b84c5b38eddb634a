"""`--help` answers at once, and a device never loads torch."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from chain_tools import command
from tiny_models import tiny_bundle

HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "litert_torch", "ai_edge_litert", "ai_edge_quantizer", "tflite_runtime", "jax")


def _modules(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_fast() -> None:
    """In seconds of a processor: how long it waited for one says how busy the machine is."""
    times = []
    for _ in range(5):
        before = _children_cpu_s()
        subprocess.run(command("--help"), capture_output=True, check=True)
        times.append(_children_cpu_s() - before)
    assert min(times) < 0.5, times


@pytest.mark.parametrize(
    "code",
    [
        "import edgeseg.cli.main",
        "import targets, targets.boards, targets.verify, targets.predict, targets.doctor",
        "import edgeseg.report.page",
        "import edgeseg.workflow.bundles",
    ],
)
def test_no_sdk_is_imported_before_it_is_needed(code: str) -> None:
    assert _modules(code) & set(HEAVY) == set()


@pytest.mark.parametrize(("format_", "sdk"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("tflite", "ai_edge_litert")])
def test_predict_loads_its_own_runtime_and_no_torch(tmp_path: Path, format_: str, sdk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    bundle = tiny_bundle(tmp_path, format_)
    code = (
        f"from edgeseg.cli.main import run\n"
        f"assert run(['predict', {str(bundle.folder)!r}, {str(bundle.folder / 'golden')!r}, '--out', {str(tmp_path / 'out')!r}]) == 0"
    )
    loaded = _modules(code)
    assert sdk in loaded
    assert loaded & {"torch", "onnx", "nncf", "litert_torch"} == set()
    assert list((tmp_path / "out" / "masks").iterdir())


ONLY_FOR_FILES_AND_PEOPLE = {
    "PIL", "_hashlib", "asyncio", "decimal", "difflib", "email", "importlib.metadata", "openvino.tools.ovc", "rich", "shutil", "socket",
    "statistics", "subprocess", "tempfile", "typer", "zipfile",
}
"""What a frame in memory is answered without; it made the runner a fifth larger than the runtime alone."""

ANSWER_A_FRAME = """
from pathlib import Path
import numpy as np
from edgeseg.core.bundle import open_bundle
from targets.boards import plan
from targets.runtimes import open_session
bundle = open_bundle(Path(folder))
how = plan("host", bundle.manifest.format, bundle.manifest.precision, num_threads=1)
contract = bundle.manifest.contract
open_session(bundle, how.runtime, how.options).run(np.zeros((contract.height, contract.width, 3), np.uint8))
"""


@pytest.mark.parametrize(
    ("format_", "sdk"), [("onnx", "onnxruntime"), ("openvino", "openvino._pyopenvino"), ("tflite", "ai_edge_litert.interpreter")]
)
def test_a_frame_in_memory_is_answered_with_little_loaded(tmp_path: Path, format_: str, sdk: str) -> None:
    bundle = tiny_bundle(tmp_path, format_)
    loaded = _modules(f"folder = {str(bundle.folder)!r}\n{ANSWER_A_FRAME}")
    alone = _modules("import numpy, ctypes" if format_ == "openvino" else f"import numpy, {sdk}")  # all of OpenVINO loads its converter
    assert sdk in loaded
    assert (loaded - alone) & ONLY_FOR_FILES_AND_PEOPLE == set()
