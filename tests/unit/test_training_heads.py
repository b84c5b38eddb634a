"""Networks with auxiliary heads in the loop: all heads learn, and an interrupted training goes on in the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from test_training_fit import files_of, run, tiny_config, write_tiny

from edgeseg.core.config import Config, ModelSection
from edgeseg.models import build
from edgeseg.models.heads import NetworkWithHeads
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.loop import TrainProgress


class Interrupted(Exception):
    pass


def config_of(root: Path, name: str) -> Config:
    return dataclasses.replace(tiny_config(root, epochs=2), model=ModelSection(name=name, width=0.05))


@pytest.mark.parametrize("name", ["bisenet_v2", "ddrnet_23_slim", "pidnet_s"])
def test_heads_learn_and_resume_is_bit_equal(name: str, tmp_path: Path) -> None:
    write_tiny(tmp_path / "data")
    config = config_of(tmp_path / "data", name)
    run(config, tmp_path / "unbroken")

    def stop(now: TrainProgress) -> None:
        if now.step == 6:  # inside the second epoch: the first is saved
            raise Interrupted

    with pytest.raises(Interrupted):
        run(config, tmp_path / "broken", on_progress=stop)
    run(config, tmp_path / "broken", resume=True)
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "unbroken")

    net, _ = load_checkpoint(tmp_path / "unbroken" / "best")
    fresh = build(config.model, 2, seed=config.train.seed).state_dict()
    assert isinstance(net, NetworkWithHeads)
    heads = [key for key in net.state_dict() if key.split(".")[0] in net.aux_layers and key.endswith("weight")]
    assert heads
    assert all(not torch.equal(net.state_dict()[key], fresh[key]) for key in heads)
