"""Every board of the registry is whole: its runtimes exist, it refuses what it does not run, and it knows its machine when it sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import tiny_bundle

from edgeseg.core.errors import ConfigError, RuntimeFailure, TargetError
from edgeseg.core.manifest import FORMATS, PRECISIONS
from targets.boards import TARGETS, Target, find_target, measured_on, plan
from targets.machine import Machine, describe_machine
from targets.measure.bench import bench
from targets.runtimes import RUNTIMES, open_session
from targets.runtimes import openvino as openvino_room
from targets.runtimes.onnxruntime import available_providers
from targets.runtimes.openvino import available_providers as openvino_providers

TREES: dict[str, dict[str, str]] = {
    "intel-cpu": {"proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) Ultra 7 155H\n"},
    "intel-gpu": {  # a card, in a computer with another maker's processor
        "proc/cpuinfo": "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD Ryzen 5 7600\n",
        "sys/class/drm/renderD128/device/vendor": "0x8086\n",
        "sys/class/drm/renderD128/device/device": "0x56a0\n",
    },
    "intel-npu": {  # without its processor, which is an intel-cpu by itself
        "sys/class/accel/accel0/device/vendor": "0x8086\n",
        "sys/class/accel/accel0/device/device": "0x7d1d\n",
    },
    "raspberry-pi-4": {
        "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n" * 4,
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0",
    },
    "raspberry-pi-5": {
        "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n" * 4,
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    },
    "jetson-orin-nano": {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n\n" * 6,
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    },
}
"""What boards say about themselves, in the layout of their own /proc."""


def machine_of(tree: dict[str, str], root: Path) -> Machine:
    for name, text in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return describe_machine(root)


@pytest.fixture(params=TARGETS.values(), ids=list(TARGETS))
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    return found


def test_is_whole(target: Target) -> None:
    assert TARGETS[target.name] is target
    assert target.title
    assert target.about
    assert target.runs
    for run in target.runs:
        assert run.format in FORMATS
        assert run.format in RUNTIMES[run.runtime].formats
    assert target.precisions
    assert set(target.precisions) <= set(PRECISIONS)
    assert "int8" in target.precisions
    assert ("fp32" in target.precisions) == (target.arithmetic == "f32")


def test_plans_what_it_runs_and_refuses_the_rest(target: Target) -> None:
    for format in FORMATS:
        for precision in PRECISIONS:
            if format in target.formats and precision in target.precisions:
                runtime, options = plan(target, format, precision)
                assert any((run.format, run.runtime, run.provider) == (format, runtime, options.provider) for run in target.runs)
                assert 1 <= options.num_threads <= describe_machine().cores
            else:
                refused = precision if format in target.formats else format
                with pytest.raises(TargetError, match=f"{target.name} does not run {refused}"):
                    plan(target, format, precision)


def test_threads_are_those_asked_for(target: Target) -> None:
    assert plan(target, target.formats[0], "int8", num_threads=3).options.num_threads == 3
    four = replace(describe_machine(), cores=4)
    assert plan(target, target.formats[0], "int8", machine=four).options.num_threads == 4


@pytest.mark.parametrize("board", TREES)
def test_a_board_is_known_by_what_it_says(board: str, target: Target, tmp_path: Path) -> None:
    machine = machine_of(TREES[board], tmp_path)
    assert target.detect(machine) == (target.name in (board, "host"))


def test_every_board_has_a_recorded_tree() -> None:
    assert set(TREES) == set(TARGETS) - {"host"}


def test_a_number_from_elsewhere_says_so(tmp_path: Path) -> None:
    pi = machine_of(TREES["raspberry-pi-5"], tmp_path)
    there = measured_on(TARGETS["raspberry-pi-5"], pi)
    assert (there.is_target, there.words) == (True, "Raspberry Pi 5 Model B Rev 1.0 (4x Cortex-A76)")
    elsewhere = measured_on(TARGETS["raspberry-pi-4"], pi)
    assert not elsewhere.is_target
    assert elsewhere.words.endswith("not the target")


def test_unknown_target_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'raspberry-pi-5'"):
        find_target("raspbery-pi-5")


@pytest.mark.skipif("gpu" in openvino_providers(), reason="an Intel GPU is here, so the bundle runs")
def test_an_intel_gpu_is_refused_where_there_is_none(tmp_path: Path) -> None:
    runtime, options = plan("intel-gpu", "openvino", "fp32")
    with pytest.raises(TargetError, match="openvino sees no GPU on this machine; it sees CPU"):
        open_session(tiny_bundle(tmp_path, "openvino"), runtime, options)


@pytest.mark.skipif("npu" in openvino_providers(), reason="an Intel NPU is here, so the bundle runs")
def test_an_intel_npu_is_refused_where_there_is_none(tmp_path: Path) -> None:
    runtime, options = plan("intel-npu", "openvino", "int8")
    assert (options.provider, options.precision_hint) == ("npu", "f16"), "it has no f32"
    assert plan("intel-npu", "openvino", "int8", precision_hint="f16").options == options
    with pytest.raises(TargetError, match="intel-npu computes float parts in f16 and has no f32; leave --arithmetic out"):
        plan("intel-npu", "openvino", "int8", precision_hint="f32")
    with pytest.raises(TargetError, match="openvino sees no NPU on this machine; it sees CPU"):
        open_session(tiny_bundle(tmp_path, "openvino"), runtime, options)


def test_what_an_intel_npu_cannot_compile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played by a processor that is given no model; a real NPU was not at hand."""
    monkeypatch.setitem(openvino_room._DEVICES, "npu", "CPU")
    bundle = tiny_bundle(tmp_path, "openvino")
    bundle.model_path.write_text("<net/>", encoding="utf-8")
    with pytest.raises(RuntimeFailure, match=r"^openvino cannot load openvino/\S+ \(") as caught:
        open_session(bundle, "openvino", plan("intel-npu", "openvino", "int8").options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif("cuda" in available_providers(), reason="CUDA is here, so a Jetson's bundle runs")
def test_a_gpu_board_is_refused_where_there_is_no_gpu(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "onnx")
    runtime, options = plan("jetson-orin-nano", "onnx", "fp32")
    with pytest.raises(TargetError, match="has no TensorrtExecutionProvider"):
        open_session(bundle, runtime, options)
    with pytest.raises(TargetError, match="has no TensorrtExecutionProvider"):
        bench(bundle, [bundle.folder / bundle.manifest.golden[0].frame], target="jetson-orin-nano", quick=True)
