"""The loop on a tiny data set: it learns, and `kill -9` at any moment changes no bit of what it ends with."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.core.config import AugmentSection, Config, DataSection, ModelSection, TrainSection
from edgeseg.core.errors import DataError, TrainingError
from edgeseg.core.files import read_json, sha256_file, write_json
from edgeseg.core.images import write_class_map, write_frame
from edgeseg.data.dataset import Dataset, load_dataset
from edgeseg.data.store import FrameStore
from edgeseg.models import build
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.loop import FitResult, TrainProgress, fit

HW = (32, 48)


def tiny_config(root: Path, **train: object) -> Config:
    """Three epochs of four steps of a network so narrow that it takes a second."""
    section = TrainSection(
        epochs=3, batch_size=2, lr=1e-2, warmup_epochs=0.5, eval_every=1, precision="fp32", device="cpu", ema=0.9, seed=7,
    )
    return Config(
        data=DataSection(dir=str(root), size=HW), model=ModelSection(width=0.05), augment=AugmentSection(),
        train=dataclasses.replace(section, **train),  # type: ignore[arg-type]
    )


def write_tiny(root: Path) -> None:
    """Write eight training frames and two of val: a bright box on a dark ground."""
    rng = np.random.default_rng(3)
    for split, count in (("train", 8), ("val", 2)):
        for i in range(count):
            label = np.zeros(HW, dtype=np.uint8)
            top, left = int(rng.integers(0, 16)), int(rng.integers(0, 24))
            label[top : top + 14, left : left + 20] = 1
            frame = (40 + 150 * label[:, :, None] + rng.integers(0, 40, (*HW, 3))).astype(np.uint8)
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            write_frame(root / "images" / split / f"{split}{i}.png", frame)
            write_class_map(root / "masks" / split / f"{split}{i}.png", label)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


def stores_of(data: Dataset) -> tuple[FrameStore, FrameStore]:
    train, val = (FrameStore(data.splits[split], num_classes=2, memory_limit_mb=100) for split in ("train", "val"))
    return train, val


def run(config: Config, out: Path, **options: object) -> FitResult:
    torch.set_num_threads(1)
    data = load_dataset(config.data, seed=config.train.seed)
    net = build(config.model, 2, seed=config.train.seed)
    return fit(net, data, config, out, stores=stores_of(data), **options)  # type: ignore[arg-type]


def files_of(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


# The child dies of a real SIGKILL: at a step, or at the n-th rename of a folder (each folder is replaced by up to two renames).
CHILD = """
import os, signal, sys
from pathlib import Path
import test_training_fit as tiny
root, out, at_step, at_rename = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
real, count = Path.rename, 0
def rename(self, target):
    global count
    count += 1
    if count == at_rename:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.rename = rename
def die(now):
    if now.step == at_step:
        os.kill(os.getpid(), signal.SIGKILL)
tiny.run(tiny.tiny_config(root), out, resume=True, on_progress=die)
"""


def child(root: Path, out: Path, *, at_step: int = -1, at_rename: int = -1) -> int:
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", CHILD, str(root), str(out), str(at_step), str(at_rename)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def test_killed_at_any_moment_it_ends_in_the_same_bits(root: Path, tmp_path: Path) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    run(tiny_config(root), unbroken)
    assert child(root, broken, at_step=6) == -9  # inside the second epoch: the first is saved
    assert (broken / "last").exists()
    assert child(root, broken, at_rename=2) == -9  # between the two renames that replace `best` or `last`
    assert child(root, broken, at_rename=3) == -9
    assert child(root, broken) == 0
    assert files_of(broken) == files_of(unbroken)  # weights, averages, moments, best checkpoint, history; and no litter
    assert {name.split("/")[0] for name in files_of(broken)} == {"best", "last"}


def test_state_is_put_back_when_killed_between_the_renames(root: Path, tmp_path: Path) -> None:
    config, out = tiny_config(root), tmp_path / "run"
    run(config, out)
    expected = files_of(out)
    (out / "last").rename(out / ".last.1.old")
    steps: list[int] = []
    run(config, out, resume=True, on_progress=lambda now: steps.append(now.step))
    assert steps == []  # nothing had to be trained again
    assert files_of(out) == expected


def test_it_learns_and_reports(root: Path, tmp_path: Path) -> None:
    seen: list[TrainProgress] = []
    ticks = iter(range(10_000))
    config = dataclasses.replace(tiny_config(root, epochs=10, eval_every=10), model=ModelSection(name="unet", width=0.125, depth=1))
    result = run(config, tmp_path / "run", on_progress=seen.append, clock=lambda: float(next(ticks)))
    assert result.best_score > 0.8
    assert result.history[-1].loss < 0.5 * result.history[0].loss
    assert [record.score is None for record in result.history] == [True] * 9 + [False]
    assert [now.step for now in seen] == [*range(1, 41), 40]
    assert seen[19].seconds_left == 20.0
    assert seen[-1].score == result.best_score == result.best.meta.metrics["val_miou"]
    assert (result.precision, result.device) == ("fp32", "cpu")
    net, meta = load_checkpoint(tmp_path / "run" / "best")
    assert (meta.contract.height, meta.contract.width) == HW
    assert meta.classes == load_dataset(tiny_config(root).data, seed=0).classes
    assert sum(p.numel() for p in net.parameters()) > 0


def test_the_network_given_is_left_alone(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, epochs=1)
    data = load_dataset(config.data, seed=0)
    net = build(config.model, 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fit(net, data, config, tmp_path / "run", stores=stores_of(data))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_zero_epochs_keep_the_weights_given(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root)
    result = run(config, tmp_path / "run", epochs=0)
    loaded, _ = load_checkpoint(result.best.folder)
    start = build(config.model, 2, seed=config.train.seed)
    assert all(torch.equal(value, start.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert result.best_epoch == 0


def test_weights_that_do_not_get_better_can_be_kept(root: Path, tmp_path: Path) -> None:
    learnt = run(tiny_config(root, epochs=10, eval_every=10), tmp_path / "first").best
    net = load_checkpoint(learnt.folder)[0]
    config = tiny_config(root, epochs=1, lr=1.0, clip_norm=0.0)
    data = load_dataset(config.data, seed=config.train.seed)
    for keep_start, epoch in ((True, 0), (False, 1)):
        result = fit(net, data, config, tmp_path / f"{epoch}", stores=stores_of(data), keep_start=keep_start)
        assert result.best_epoch == epoch
    kept = load_checkpoint(tmp_path / "0" / "best")[0].state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())
    assert len(result.history) == 1


def test_resume_of_another_configuration_says_what_differs(root: Path, tmp_path: Path) -> None:
    run(tiny_config(root, epochs=1), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"train\.lr was 0\.01, now 0\.02; .*or begin again with: edgeseg train --restart"):
        run(tiny_config(root, epochs=1, lr=0.02), tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match="or begin again with: edgeseg prune --restart"):
        run(tiny_config(root, epochs=1, precision="bf16"), tmp_path / "run", resume=True, again="edgeseg prune --restart")


def test_whose_filter_resizes_is_part_of_what_is_resumed(root: Path, tmp_path: Path) -> None:
    """Pillow's has no name in the state, so that trainings begun before there was a choice go on."""
    config = tiny_config(root, epochs=1)
    smaller = dataclasses.replace(config, data=dataclasses.replace(config.data, size=(24, 32)))
    by_opencv = dataclasses.replace(smaller, data=dataclasses.replace(smaller.data, resizer="opencv"))
    first, second = (run(one, tmp_path / f"{i}") for i, one in enumerate((smaller, by_opencv)))
    assert first.history[0].loss != second.history[0].loss
    with pytest.raises(TrainingError, match=r"data\.resizer was None, now 'opencv'"):
        run(by_opencv, tmp_path / "0", resume=True)


def test_threads_and_torch_are_part_of_what_is_resumed(root: Path, tmp_path: Path) -> None:
    config, state = tiny_config(root, epochs=1), tmp_path / "run" / "last" / "state.json"
    run(config, tmp_path / "run")
    for key, was in (("threads", 7), ("torch", "1.0"), ("processes", 2)):
        saved = read_json(state)
        write_json(state, {**saved, "identity": {**saved["identity"], key: was}})
        with pytest.raises(TrainingError, match=f"{key} was {was!r}, now .*edgeseg train --restart"):
            run(config, tmp_path / "run", resume=True)
        write_json(state, saved)
    run(config, tmp_path / "run", resume=True)


def test_a_state_of_another_version_is_no_damage(root: Path, tmp_path: Path) -> None:
    run(tiny_config(root, epochs=1), tmp_path / "run")
    path = tmp_path / "run" / "last" / "state.json"
    write_json(path, {**read_json(path), "schema": 1})
    with pytest.raises(TrainingError, match=r"another version of edgeseg .*edgeseg train --restart"):
        run(tiny_config(root, epochs=1), tmp_path / "run", resume=True)


def test_a_damaged_state_is_refused(root: Path, tmp_path: Path) -> None:
    run(tiny_config(root, epochs=1), tmp_path / "run")
    path = tmp_path / "run" / "last" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(TrainingError, match="is damaged"):
        run(tiny_config(root, epochs=1), tmp_path / "run", resume=True)


def test_without_resume_it_starts_over(root: Path, tmp_path: Path) -> None:
    run(tiny_config(root, epochs=1), tmp_path / "run")
    first = files_of(tmp_path / "run")
    steps: list[int] = []
    run(tiny_config(root, epochs=1), tmp_path / "run", on_progress=lambda now: steps.append(now.step))
    assert steps[:4] == [1, 2, 3, 4]
    assert files_of(tmp_path / "run") == first


def test_a_loss_that_is_not_finite_names_the_frames(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root)
    data = load_dataset(config.data, seed=0)
    net = build(config.model, 2)
    with torch.no_grad():
        net.get_submodule("classifier.scores").weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) at step 0 \(frames .*train\d.*, .*train\d.*\)"):
        fit(net, data, config, tmp_path / "run", stores=stores_of(data))
    assert not (tmp_path / "run" / "last").exists()


def test_bf16_and_averaging_off_also_train(root: Path, tmp_path: Path) -> None:
    result = run(tiny_config(root, epochs=2, precision="bf16", ema=0.0, schedule="poly", clip_norm=0.0), tmp_path / "run")
    assert result.precision == "bf16"
    again = run(tiny_config(root, epochs=2, precision="bf16", ema=0.0, schedule="poly", clip_norm=0.0), tmp_path / "again")
    assert result.best.sha256 == again.best.sha256


def test_a_val_split_without_labels_is_refused_before_the_first_step(tmp_path: Path) -> None:
    write_tiny(tmp_path / "data")
    for path in (tmp_path / "data/masks/val").iterdir():
        write_class_map(path, np.full(HW, 255, dtype=np.uint8))
    (tmp_path / "data/dataset.json").write_text('{"classes": ["ground", "box"]}', encoding="utf-8")
    steps: list[int] = []
    with pytest.raises(DataError, match="no pixel of val is labelled"):
        run(tiny_config(tmp_path / "data", eval_every=3), tmp_path / "run", on_progress=lambda now: steps.append(now.step))
    assert not steps
