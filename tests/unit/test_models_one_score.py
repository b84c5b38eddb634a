"""Two classes as one score a pixel: built, learnt from, decided and checkpointed as two classes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeseg.core.config import ModelSection, TrainSection
from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Contract
from edgeseg.models import ContractModule, build, normalise
from edgeseg.training.checkpoint import CheckpointMeta, load_checkpoint, save_checkpoint
from edgeseg.training.losses import total_loss

SECTION = ModelSection(name="unet", width=0.125, depth=2, one_score=True)


def red_against_blue(seed: int) -> tuple[Tensor, Tensor]:
    """Frames uint8 [4, 24, 32, 3] and labels: class 1 is red, a third of the pixels."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(4, 3, 4, generator=generator) < 0.35).repeat_interleave(8, 1).repeat_interleave(8, 2)
    frames = torch.where(labels.unsqueeze(-1), torch.tensor([200, 40, 60]), torch.tensor([60, 40, 200]))
    noise = torch.randint(-25, 26, frames.shape, generator=generator)
    return (frames + noise).to(torch.uint8), labels.long()


@pytest.mark.parametrize("loss", [{"bce": 1.0}, {"focal": 1.0, "dice": 0.5}])
def test_it_learns_and_answers_both_classes(loss: dict[str, float]) -> None:
    net = build(SECTION, 2, seed=1).train()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    for step in range(25):
        frames, labels = red_against_blue(step)
        scores = net(normalise(frames))
        assert scores.shape == (4, 1, 24, 32)
        optimiser.zero_grad()
        total_loss(scores, labels, torch.ones(2), TrainSection(loss=loss)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    frames, labels = red_against_blue(99)
    for contract in (Contract(height=24, width=32), Contract(height=24, width=32, decision="threshold", threshold=0.5)):
        with torch.inference_mode():
            answers = ContractModule(net.eval(), contract)(frames)
        assert float((answers == labels).float().mean()) > 0.97


def test_a_checkpoint_brings_it_back(tmp_path: Path) -> None:
    net = build(SECTION, 2, seed=1).eval()
    save_checkpoint(tmp_path / "c", net, CheckpointMeta(
        model=SECTION, num_classes=2, classes=("no", "yes"), palette=((0, 0, 0), (1, 1, 1)), contract=Contract(height=24, width=32),
        config_sha256="0" * 64, dataset="none", dataset_sha256="1" * 64,
    ))
    loaded, meta = load_checkpoint(tmp_path / "c")
    assert meta.num_classes == 2
    x = torch.randn(1, 3, 24, 32)
    with torch.inference_mode():
        np.testing.assert_array_equal(loaded(x).numpy(), net(x).numpy())


def test_more_than_two_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="two classes apart, not unet with 3; set one_score = false"):
        build(SECTION, 3)
