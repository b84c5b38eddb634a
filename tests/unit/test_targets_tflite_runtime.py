"""tflite_runtime for real, in an environment of its own: it needs numpy < 2 and Python up to 3.11. Built once under `.envs/`, reused."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tiny_models import tiny_bundle

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tflite_runtime==2.14.0", "numpy<2", "pillow", "typer", "rich")

SCRIPT = """
    import dataclasses, json, sys
    from pathlib import Path
    import numpy as np
    from edgeseg.core.bundle import Bundle, open_bundle
    from edgeseg.core.errors import BundleError, DataError, RuntimeFailure, TargetError
    from targets.boards import plan
    from targets.doctor import examine
    from targets.measure.bench import bench
    from targets.predict import predict_source
    from targets.runtimes import RUNTIMES, RuntimeOptions, open_session
    from targets.verify import verify

    whole, half, out = open_bundle(Path(sys.argv[1])), open_bundle(Path(sys.argv[2])), Path(sys.argv[3])
    frame, expected = whole.golden_pairs()[0]
    runtime, options = plan("raspberry-pi-4", "tflite", "fp32", num_threads=1)
    session = open_session(whole, runtime, options)
    first = session.run(frame)
    session.run(255 - frame)

    def error_of(call):
        try:
            call()
        except (BundleError, DataError, RuntimeFailure, TargetError) as error:
            return [type(error).__name__, str(error)]

    half.model_path.write_bytes(half.model_path.read_bytes()[: half.size_bytes // 2])
    resized = dataclasses.replace(whole.manifest, contract=dataclasses.replace(whole.manifest.contract, height=20))
    golden = whole.folder / whole.manifest.golden[0].frame
    measured = bench(whole, [golden], target="raspberry-pi-4", quick=True)
    print(json.dumps({
        "runtime": runtime, "version": RUNTIMES[runtime].version(), "numpy": np.__version__, "settings": dict(session.settings),
        "kept": bool((first == expected).all()),
        "half": error_of(lambda: open_session(half, runtime, options)),
        "resized": error_of(lambda: open_session(Bundle(whole.folder, resized), runtime, options)),
        "cuda": error_of(lambda: open_session(whole, runtime, RuntimeOptions(provider="cuda"))),
        "frame": error_of(lambda: session.run(frame[1:])),
        "verified": verify(session, whole, [("golden", frame, expected)]).to_json(),
        "predicted": predict_source(session, whole, golden, out).num_frames,
        "bench": [measured.runtime, measured.inference.num_frames, measured.measured_on.is_target],
        "traps": [row.what for row in examine().rows if row.status == "trap"],
        "foreign": sorted({"torch", "ai_edge_litert", "onnxruntime", "openvino"} & set(sys.modules)),
    }))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """Interpreter of the environment with tflite_runtime, built if it is not there yet."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip(f"tflite_runtime 2.14.0 has no wheel for Python {sys.version_info[0]}.{sys.version_info[1]}; run the tests with 3.11")
    folder = ROOT / ".envs" / "tflite_runtime"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "installed"
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != " ".join(PACKAGES):
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *PACKAGES]
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                shutil.rmtree(folder, ignore_errors=True)
                pytest.skip(f"tflite_runtime cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
            stamp.write_text(" ".join(PACKAGES), encoding="utf-8")
    return folder / "bin/python"


def test_a_tflite_bundle_runs_in_tflite_runtime(python: Path, tmp_path: Path) -> None:
    whole, half = tiny_bundle(tmp_path / "a", "tflite"), tiny_bundle(tmp_path / "b", "tflite")
    command = [str(python), "-c", textwrap.dedent(SCRIPT), str(whole.folder), str(half.folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["runtime"], said["version"]) == ("tflite_runtime", "2.14.0")
    assert said["numpy"].startswith("1.")
    assert said["settings"]["num_threads"] == "1"
    assert said["kept"]
    assert said["half"][0] == "RuntimeFailure"
    assert "tflite_runtime cannot load tflite/model.tflite" in said["half"][1]
    assert said["resized"][0] == "BundleError"
    assert said["cuda"] == ["TargetError", "tflite_runtime runs on cpu, not on cuda; choose provider cpu"]
    assert said["frame"][0] == "DataError"
    assert (said["verified"]["miou"], said["verified"]["golden_passed"]) == (1.0, True)
    assert said["predicted"] == 1
    assert said["bench"][0] == "tflite_runtime"
    assert said["bench"][1] >= 50
    assert "tflite_runtime int8" in said["traps"]
    assert said["foreign"] == []
