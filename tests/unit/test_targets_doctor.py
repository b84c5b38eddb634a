"""Doctor and machine: what is there, what is missing, what will bite, and never a guess."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from targets.doctor import Diagnosis, Row, examine
from targets.machine import NOT_AVAILABLE, describe_machine
from targets.runtimes import RUNTIMES


def versions(**known: str) -> Callable[[str], str | None]:
    return lambda name: known.get(name.replace("-", "_"))


def row(diagnosis: Diagnosis, what: str) -> Row:
    found = [r for r in diagnosis.rows if r.what == what]
    assert len(found) == 1, [r.what for r in diagnosis.rows]
    return found[0]


def test_this_machine() -> None:
    start = time.thread_time()
    diagnosis = examine()
    assert time.thread_time() - start < 1
    assert {r.status for r in diagnosis.rows} <= {"ok", "missing", "trap"}
    for name, runtime in RUNTIMES.items():
        assert row(diagnosis, name).status == ("ok" if runtime.version() else "missing")
    assert all(r.fix for r in diagnosis.rows if r.status == "missing")
    assert "host" in row(diagnosis, "targets").detail
    assert json.loads(json.dumps(diagnosis.to_json()))[0]["what"] == "machine"


def test_a_bare_board_is_told_what_to_type() -> None:
    diagnosis = examine(version_of=versions())
    assert row(diagnosis, "litert").fix == "pip install 'edgeseg[pi]'"
    assert row(diagnosis, "openvino").fix == "pip install 'edgeseg[intel]'"
    assert row(diagnosis, "torch").fix == "pip install 'edgeseg[train]'"
    assert row(diagnosis, "av").fix == "pip install 'edgeseg[video]'"
    assert row(diagnosis, "null").status == "ok"
    assert not [r for r in diagnosis.rows if r.status == "trap" and r.what != "governor"]


@pytest.mark.parametrize(("installed", "has", "status"), [
    ({"opencv_python_headless": "5.0.0"}, True, "ok"), ({"opencv_contrib_python": "4.10.0"}, True, "ok"), ({}, True, "ok"),
    ({}, False, "missing"),
])
def test_opencv_is_there_whoever_packed_it(installed: dict[str, str], has: bool, status: str) -> None:
    found = row(examine(version_of=versions(**installed), has_module=lambda name: has and name == "cv2"), "opencv")
    assert (found.status, found.version) == (status, next(iter(installed.values()), ""))
    assert found.fix == ("" if has else "pip install 'edgeseg[opencv]'")


@pytest.mark.parametrize(("installed", "what", "word"), [
    ({"tflite_runtime": "2.14.0", "numpy": "1.26.4"}, "tflite_runtime int8", "8 times slower"),
    ({"tflite_runtime": "2.14.0", "numpy": "2.4.6"}, "tflite_runtime numpy", "numpy 1"),
    ({"openvino": "2026.4.1"}, "openvino precision", "INFERENCE_PRECISION_HINT=f32"),
    ({"onnxruntime": "1.31.1", "onnxruntime_gpu": "1.31.1"}, "onnxruntime twice", "overwrite"),
    ({"torch": "2.13.0+cpu", "torchvision": "0.28.0"}, "torchvision", "nms does not exist"),
])
def test_traps(installed: dict[str, str], what: str, word: str) -> None:
    found = row(examine(version_of=versions(**installed)), what)
    assert found.status == "trap"
    assert word in found.detail


def test_a_pair_that_fits_is_no_trap() -> None:
    diagnosis = examine(version_of=versions(torch="2.13.0+cpu", torchvision="0.28.0+cpu", tflite_runtime="2.14.0", numpy="1.26.4"))
    assert "torchvision" not in [r.what for r in diagnosis.rows]
    assert "tflite_runtime numpy" not in [r.what for r in diagnosis.rows]


def test_threads_matter_where_there_are_several() -> None:
    machine = describe_machine()
    for cores, expected in ((1, 0), (4, 1)):
        rows = examine(replace(machine, cores=cores), version_of=versions(ai_edge_litert="2.3.0")).rows
        assert sum(r.what == "litert threads" for r in rows) == expected


def test_a_moving_clock_and_an_unused_gpu_are_traps(tmp_path: Path) -> None:
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 02:01:18 UTC 2025\n", encoding="utf-8")
    machine = replace(describe_machine(), governor="ondemand")
    diagnosis = examine(machine, version_of=versions(torch="2.13.0+cpu"), nvidia_driver=driver)
    assert row(diagnosis, "governor").status == "trap"
    assert (row(diagnosis, "cuda").status, row(diagnosis, "cuda").version) == ("trap", "570.124.06")
    assert row(examine(version_of=versions(torch="2.13.0"), nvidia_driver=driver), "cuda").status == "ok"


def test_absent_facts_are_not_available_and_never_zero(tmp_path: Path) -> None:
    machine = describe_machine(tmp_path)
    assert (machine.cpu, machine.cpu_vendor, machine.board, machine.governor) == (NOT_AVAILABLE,) * 4
    assert machine.memory_bytes is None
    assert machine.to_json()["memory_bytes"] == NOT_AVAILABLE
    assert machine.cores >= 1


def test_facts_of_a_machine_are_read_as_they_stand(tmp_path: Path) -> None:
    for name, text in {
        "proc/cpuinfo": "processor : 0\nvendor_id : AuthenticAMD\nmodel name : AMD EPYC 9B14\n",
        "proc/meminfo": "MemTotal:        8008460 kB\nMemFree: 1 kB\n",
        "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        "sys/class/dmi/id/sys_vendor": "LENOVO\n",
        "sys/class/dmi/id/product_name": "21HM\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    machine = describe_machine(tmp_path)
    assert (machine.cpu, machine.cpu_vendor, machine.board) == ("AMD EPYC 9B14", "AuthenticAMD", "LENOVO 21HM")
    assert (machine.memory_bytes, machine.os, machine.governor) == (8008460 * 1024, "Debian GNU/Linux 12 (bookworm)", "schedutil")
