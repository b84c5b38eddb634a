"""Losses, weights, schedule, averaging, checkpoints and evaluation, each against its definition."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeseg.core.config import ModelSection, TrainSection
from edgeseg.core.errors import ConfigError, InputMissingError, TrainingError
from edgeseg.core.files import read_json, write_json
from edgeseg.core.images import resize_frame, write_class_map, write_frame
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import score
from edgeseg.data.dataset import Sample
from edgeseg.data.store import FrameStore
from edgeseg.models import build, upsample_logits
from edgeseg.training.checkpoint import CheckpointMeta, load_checkpoint, open_checkpoint, save_checkpoint
from edgeseg.training.device import pick_device, pick_precision
from edgeseg.training.ema import Ema
from edgeseg.training.evaluate import evaluate, torch_predictor
from edgeseg.training.fast_cpu import keep_strided_depthwise_in_fp32, sampled_scores
from edgeseg.training.losses import class_weights
from edgeseg.training.schedule import Schedule


def test_class_weights_follow_eigen_and_fergus() -> None:
    first = np.array([[0, 0, 0, 1]], dtype=np.uint8)  # class 1 is in this frame only
    second = np.array([[0, 0, 2, 255]], dtype=np.uint8)
    frequency = np.array([5 / 7, 1 / 4, 1 / 3])
    expected = np.median(frequency) / frequency
    got = class_weights([first, second], num_classes=4, rule="median_frequency")
    np.testing.assert_allclose(got, [*expected, 1.0], rtol=1e-6)
    roots = class_weights([first, second], num_classes=4, rule="sqrt_median_frequency")
    np.testing.assert_allclose(roots, [*np.sqrt(expected), 1.0], rtol=1e-6)
    assert class_weights([first], num_classes=4, rule="none").tolist() == [1.0] * 4


def test_schedule_warms_up_then_decays_to_nothing() -> None:
    schedule = Schedule(epochs=10, lr=2.0, warmup_epochs=2)
    rates = [schedule.lr_at(step, 5) for step in range(50)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[30] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 20 / 40)))
    assert 0 < rates[-1] < 0.01
    poly = Schedule(epochs=10, lr=2.0, decay="poly")
    assert poly.lr_at(25, 5) == pytest.approx(2.0 * 0.5**0.9)


def test_fine_tuning_takes_its_own_epochs_and_rate() -> None:
    tuned = Schedule.of(TrainSection(warmup_epochs=3), epochs=10, lr=1e-4)
    assert (tuned.epochs, tuned.lr, tuned.warmup_epochs) == (10, 1e-4, 1.0)


def test_ema_follows_weights_and_norm_statistics() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    with torch.no_grad():
        net[0].weight.fill_(0.0)
    ema = Ema(net, decay=0.9)
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[1].running_mean.fill_(4.0)
        net[1].num_batches_tracked.fill_(7)
    ema.update(net, step=10_000)
    assert float(ema.net[0].weight) == pytest.approx(0.1)
    assert float(ema.net[1].running_mean) == pytest.approx(0.4)
    assert int(ema.net[1].num_batches_tracked) == 7
    ema.update(net, step=0)  # warm-up: decay (1 + 0) / (10 + 0)
    assert float(ema.net[0].weight) == pytest.approx(0.1 * 0.1 + 0.9)


@pytest.mark.parametrize("step", range(4))
def test_sampled_scores_are_the_reference_upsampling_at_those_pixels(step: int) -> None:
    logits, labels = torch.randn(2, 3, 8, 10), torch.randint(0, 3, (2, 60, 80))
    scores, sampled = sampled_scores(logits, labels, step)
    top, left = step // 2, step % 2
    torch.testing.assert_close(scores, upsample_logits(logits, (60, 80))[:, :, top::2, left::2], rtol=1e-5, atol=1e-5)
    assert torch.equal(sampled, labels[:, top::2, left::2])


def test_scores_at_a_fine_stride_are_compared_at_every_pixel() -> None:
    scores, labels = sampled_scores(torch.randn(1, 3, 20, 20), torch.zeros(1, 80, 80), step=3)
    assert scores.shape[2:] == labels.shape[1:] == (80, 80)


def test_fp32_detour_changes_only_the_precision() -> None:
    net = build(ModelSection(width=0.25), 3).train()
    net.get_submodule("classifier.dropout").eval()
    x = torch.randn(2, 3, 64, 64)
    expected = net(x)
    keys = list(net.state_dict())
    keep_strided_depthwise_in_fp32(net)
    assert torch.equal(net(x), expected)
    assert list(net.state_dict()) == keys
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(x).float().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_cuda_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        pick_device(TrainSection(device="cuda"))
    assert pick_device(TrainSection()).type == "cpu"


def test_auto_precision_is_bf16_only_where_the_processor_has_it() -> None:
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert pick_precision(TrainSection(), torch.device("cpu")) == ("bf16" if native else "fp32")
    assert pick_precision(TrainSection(precision="fp32"), torch.device("cpu")) == "fp32"


META = CheckpointMeta(
    model=ModelSection(width=0.25), num_classes=3, classes=("a", "b", "c"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    contract=Contract(height=32, width=48), config_sha256="0" * 64, dataset="none", dataset_sha256="1" * 64, metrics={"val_miou": 0.5},
)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    net = build(META.model, 3, seed=4)
    saved = save_checkpoint(tmp_path / "c", net, META)
    loaded, meta = load_checkpoint(tmp_path / "c")
    assert not loaded.training
    assert meta == saved.meta
    assert open_checkpoint(tmp_path / "c").sha256 == saved.sha256
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c", "checkpoint.json", "weights.safetensors"]


def test_sha256_moves_with_a_weight(tmp_path: Path) -> None:
    net = build(META.model, 3)
    first = save_checkpoint(tmp_path / "c", net, META).sha256
    with torch.no_grad():
        net.classifier.scores.bias[0] += 1e-3
    assert save_checkpoint(tmp_path / "c", net, META).sha256 != first


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="edgeseg train"):
        load_checkpoint(tmp_path)
    folder = tmp_path / "c"
    save_checkpoint(folder, build(META.model, 3), META)
    weights = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(TrainingError, match="was changed"):
        load_checkpoint(folder)
    (folder / "weights.safetensors").write_bytes(weights)
    meta = read_json(folder / "checkpoint.json")
    write_json(folder / "checkpoint.json", {**meta, "schema": 99})
    with pytest.raises(TrainingError, match="schema 99"):
        load_checkpoint(folder)
    write_json(folder / "checkpoint.json", {**meta, "model": {"name": "unet", "width": 0.125, "depth": 1}})
    with pytest.raises(TrainingError, match="do not fit unet"):
        load_checkpoint(folder)


def test_evaluate_counts_at_frame_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = []
    for i, (h, w) in enumerate([(40, 60), (64, 48)]):
        frame, label = rng.integers(0, 256, (h, w, 3), dtype=np.uint8), rng.integers(0, 3, (h, w), dtype=np.uint8)
        write_frame(tmp_path / f"{i}.png", frame)
        write_class_map(tmp_path / f"{i}_mask.png", label)
        samples.append(Sample(id=str(i), split="val", image=tmp_path / f"{i}.png", label=tmp_path / f"{i}_mask.png"))
    store = FrameStore(samples, num_classes=3, memory_limit_mb=100)
    seen = []

    def one(frame: np.ndarray) -> np.ndarray:
        seen.append(frame.shape)
        return np.ones(frame.shape[:2], dtype=np.uint8)

    done: list[tuple[int, int]] = []
    confusions = evaluate(one, store, Contract(height=32, width=32), 3, on_frame=lambda i, n: done.append((i, n)))
    assert confusions.shape == (2, 3, 3)
    assert seen == [(32, 32, 3)] * 2
    assert done == [(1, 2), (2, 2)]
    assert int(confusions[0].sum()) == 40 * 60
    assert score(confusions.sum(axis=0)).iou[0] == 0.0
    np.testing.assert_array_equal(confusions[1][:, 1], np.bincount(store[1][1].reshape(-1), minlength=3))


def test_torch_predictor_is_the_reference_decision() -> None:
    net = build(ModelSection(width=0.25), 3)
    frame = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    got = torch_predictor(net, Contract(height=40, width=56))(resize_frame(frame, 40, 56))
    assert got.dtype == np.uint8
    assert got.shape == (40, 56)
    assert not net.training
