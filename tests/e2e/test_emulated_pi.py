"""The demo's kind of bundles on an emulated Raspberry Pi: golden frames and 20 test images, compared with this machine.

The environment is built once and kept in the cache (see docs/emulation.md); where neither it nor what builds it can be had, the reason is
said and nothing is tested.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from chain_tools import edgeseg
from numpy.typing import NDArray
from tiny_models import tiny_bundle
from waiting_tools import has_ended

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.errors import BundleError, DeviceError, DownloadError, MissingExtraError
from edgeseg.core.files import cache_root
from edgeseg.core.images import Frame
from edgeseg.core.instances import Answer
from edgeseg.core.manifest import Contract
from edgeseg.core.resizers import RESIZERS
from edgeseg.data.synthetic import CLASSES, PALETTE, draw_field, write_field
from edgeseg.models import build, normalise, upsample_logits
from exporters import EXPORTERS
from quantization import QUANTIZERS
from targets.boards import Plan
from targets.devices import LocalDevice
from targets.devices.base import Device
from targets.devices.emulated import EmulatedDevice
from targets.devices.remote import GivenAnswers, answers_on
from targets.runtimes import RuntimeOptions, open_session
from targets.verify import GOLDEN_AGREEMENT, check_golden

pytestmark = pytest.mark.slow
SIZE = (96, 128)
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
CASES = [(format_, precision) for format_ in RUNTIMES for precision in ("fp32", "int8")]
LIMIT = {"fp32": 0.9995, "int8": 0.99}
"""Share of pixels. Float sums come in another order, so single pixels near a tie may move; int8 rounds at every layer."""
NUM_IMAGES = 20


def device_for(board: str) -> EmulatedDevice:
    device = EmulatedDevice(board, "", cache_root(os.environ))
    try:
        print(device.prepare(print).words)
    except (DeviceError, MissingExtraError) as error:
        pytest.skip(str(error))
    except DownloadError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    return device


@pytest.fixture(scope="module")
def pi5() -> EmulatedDevice:
    return device_for("raspberry-pi-5")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Test images of twice the model's size: decoding and resizing are compared too."""
    folder = tmp_path_factory.mktemp("field")
    write_field(folder / "data", seed=7, counts={"test": NUM_IMAGES}, size_hw=(2 * SIZE[0], 2 * SIZE[1]))
    return sorted((folder / "data" / "images" / "test").iterdir())


def learnt() -> torch.nn.Module:
    """A small Fast-SCNN after some seconds on the synthetic field: every class occurs, and borders are where ties are."""
    net = build(ModelSection(name="fast_scnn", width=0.25), len(CLASSES), seed=1).train()
    optimiser = torch.optim.AdamW(net.parameters(), 5e-3)
    pairs = [draw_field(seed=7, split="train", index=i, size_hw=SIZE) for i in range(32)]
    frames, labels = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
    for step in range(60):
        chosen = torch.randint(0, len(pairs), (4,), generator=torch.Generator().manual_seed(step))
        logits = upsample_logits(net(normalise(frames[chosen])), SIZE)
        loss = torch.nn.functional.cross_entropy(logits, labels[chosen].long(), weight=torch.tensor([1.0, 3.0, 3.0]), ignore_index=255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Bundle]:
    folder, contract, net = tmp_path_factory.mktemp("bundles"), Contract(height=SIZE[0], width=SIZE[1]), learnt()
    calibration, golden = ([draw_field(seed=7, split="val", index=first + i, size_hw=SIZE)[0] for i in range(count)]
                           for first, count in ((0, 8), (8, 2)))

    def answer(bundle: Bundle) -> tuple[str, Callable[[Frame], Answer]]:
        runtime = RUNTIMES[bundle.manifest.format]
        return runtime, open_session(bundle, runtime, RuntimeOptions()).run

    def seal(model: ModelFiles) -> Bundle:
        info = BundleInfo(name=f"field-{model.format}-{model.precision}", contract=contract, classes=CLASSES, palette=PALETTE,
                          reference=None, parents=(), config_sha256="0" * 64)
        return seal_bundle(folder / info.name, model, info, golden_frames=golden, answer=answer)

    made = {}
    for format_ in RUNTIMES:
        for precision in ("fp32", "int8"):
            work = folder / f"work-{format_}-{precision}"
            work.mkdir()
            made[format_, precision] = seal(
                EXPORTERS[format_](net, contract, work) if precision == "fp32"
                else QUANTIZERS[format_](made[format_, "fp32"], calibration, work)
            )
    return made


def maps(answers: GivenAnswers) -> NDArray[np.uint8]:
    """The answers to the test images, uint8 [N, H, W]."""
    frame = np.zeros((*SIZE, 3), np.uint8)
    return np.stack([np.asarray(answers.run(frame)) for _ in range(NUM_IMAGES)])


def compare(device: Device, bundle: Bundle, images: list[Path]) -> GivenAnswers:
    """Hold a device's answers against this machine's; give them, used up."""
    runtime, limit = RUNTIMES[bundle.manifest.format], LIMIT[bundle.manifest.precision]
    with ExitStack() as stack:
        there, here = (stack.enter_context(answers_on(one, bundle, images, target="raspberry-pi-5", timeout_s=600))
                       for one in (device, LocalDevice()))
        there_NHW, here_NHW = maps(there), maps(here)
        same = float(np.mean(there_NHW == here_NHW))
        golden = check_golden(bundle, there)
        print(f"{device.name} {bundle.manifest.name}: {same:.6f} of the pixels, golden {golden:.6f}")
        assert there.runtime == here.runtime == runtime
        assert there.versions[runtime] == here.versions[runtime]
        assert there.machine.arch == "aarch64"
        assert there.measured_on.machine.startswith("emulated Raspberry Pi")
        assert not there.measured_on.is_target
        assert set(np.unique(here_NHW)) == set(range(len(CLASSES))), "a network that says one thing of everything would agree with anything"
        assert same >= limit
        assert golden >= min(GOLDEN_AGREEMENT, limit)
        assert float(np.mean(there_NHW == np.roll(here_NHW, 1, axis=2))) < limit, "one pixel aside is already told apart"
        return there


@pytest.mark.parametrize(("format_", "precision"), CASES, ids=["-".join(case) for case in CASES])
def test_a_pi_5_answers_as_this_machine_does(
    format_: str, precision: str, pi5: EmulatedDevice, bundles: dict[tuple[str, str], Bundle], images: list[Path]
) -> None:
    answers = compare(pi5, bundles[format_, precision], images)
    assert answers.machine.cpu.endswith("x Cortex-A76"), "how many of them, qemu 10 decides"


@pytest.mark.parametrize("format_", RUNTIMES)
def test_a_pi_4_has_other_int8_kernels_and_the_same_answers(
    format_: str, bundles: dict[tuple[str, str], Bundle], images: list[Path]
) -> None:
    answers = compare(device_for("raspberry-pi-4"), bundles[format_, "int8"], images)
    assert answers.machine.cpu.endswith("x Cortex-A72")


def test_frames_are_resized_there_as_here_by_opencv(pi5: EmulatedDevice, images: list[Path], tmp_path: Path) -> None:
    """Halved, then brought to three quarters; the null runtime's answer is a step of each pixel's brightness, so another filter shows."""
    pytest.importorskip("cv2")
    size = (SIZE[0] * 3 // 4, SIZE[1] * 3 // 4)
    by = {resizer: tiny_bundle(tmp_path / resizer, "null", height=size[0], width=size[1], resizer=resizer) for resizer in RESIZERS}
    told = []
    for bundle, device in ((by["opencv"], pi5), (by["opencv"], LocalDevice()), (by["pillow"], pi5)):
        with answers_on(device, bundle, images, target="host", how=Plan("null", RuntimeOptions()), timeout_s=600) as answers:
            told.append(np.stack([np.asarray(answers.run(np.zeros((*size, 3), np.uint8))) for _ in images]))
            assert ("opencv" in answers.versions) is (bundle is by["opencv"])
    np.testing.assert_array_equal(told[0], told[1])
    assert not np.array_equal(told[0], told[2])


def test_errors_come_back_as_they_were(pi5: EmulatedDevice, bundles: dict[tuple[str, str], Bundle], tmp_path: Path) -> None:
    broken = Bundle(tmp_path / "broken", bundles["tflite", "int8"].manifest)
    shutil.copytree(bundles["tflite", "int8"].folder, broken.folder)
    (broken.folder / "model.tflite").write_bytes(b"x" * broken.model_path.stat().st_size)
    told = rf"^emulated:raspberry-pi-5: {broken.folder}: model\.tflite was changed"
    with pytest.raises(BundleError, match=told), answers_on(pi5, broken, ()):
        pass


def test_verify_on_the_command_line_takes_the_board_as_its_target(
    pi5: EmulatedDevice, bundles: dict[tuple[str, str], Bundle], tmp_path: Path
) -> None:
    done = edgeseg("verify", str(bundles["tflite", "int8"].folder), "--device", pi5.address, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["device"], told["runtime"], told["golden_agreement"] >= LIMIT["int8"]) == (pi5.address, "litert", True)


HOST = """
import sys
from pathlib import Path
from edgeseg.core.bundle import open_bundle
from targets.devices import open_device
from targets.devices.remote import answers_on
bundle, image = map(Path, sys.argv[1:])
say = lambda stage, done: print(stage, flush=True)
with answers_on(open_device("emulated:raspberry-pi-5"), open_bundle(bundle), [image] * 2000, on_progress=say):
    pass
"""


def test_a_killed_host_leaves_no_emulator_behind(
    pi5: EmulatedDevice, bundles: dict[tuple[str, str], Bundle], images: list[Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", HOST, str(bundles["tflite", "int8"].folder), str(images[0])]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        for line in host.stdout:
            if line.strip() == "answer":
                break
        children = Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text(encoding="utf-8").split()
        host.kill()
    assert children
    assert all(has_ended(int(pid)) for pid in children), "the emulator outlives its host"
