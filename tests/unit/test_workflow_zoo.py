"""The zoo check: settled random weights mean something, crashes and hangs become words, a real network passes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from edgeseg.core.config import ModelSection
from edgeseg.core.errors import ConfigError
from edgeseg.core.images import Frame
from edgeseg.models import build, normalise
from edgeseg.workflow.ui import Silent
from edgeseg.workflow.zoo import check, run_worker
from edgeseg.workflow.zoo_worker import settle
from exporters import EXPORTERS


def frames(count: int = 8) -> list[Frame]:
    from edgeseg.data.synthetic import draw_field

    return [draw_field(seed=3, split="train", index=i, size_hw=(64, 96))[0] for i in range(count)]


@pytest.mark.parametrize("name", ["fast_scnn", "lraspp_mobilenet_v3_small", "pidnet_s"])
def test_settled_scores_have_mean_zero_and_deviation_one(name: str) -> None:
    net = build(ModelSection(name=name, width=0.5), 5)
    momenta = [module.momentum for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    settle(net, frames())
    assert not net.training
    assert [module.momentum for module in net.modules() if isinstance(module, nn.BatchNorm2d)] == momenta
    with torch.inference_mode():
        scores = net(normalise(torch.from_numpy(np.stack(frames()))))
    torch.testing.assert_close(scores.mean(dim=(0, 2, 3)), torch.zeros(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(scores.std(dim=(0, 2, 3)), torch.ones(5), atol=1e-3, rtol=0)
    assert len(scores.argmax(1).unique()) == 5


def python(code: str, *, timeout_s: float = 120.0) -> str:
    return run_worker([sys.executable, "-c", code], "{}", timeout_s=timeout_s)


def test_every_end_of_a_process_is_said_in_words() -> None:
    assert python("input()") == ""
    assert python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") == "the process was killed by SIGSEGV"
    assert python("import time; time.sleep(600)", timeout_s=0.5) == "took more than 0.5 s and was stopped"
    ended = python("raise ValueError('this network is broken')")
    assert ended == "the process ended with exit code 1: ValueError: this network is broken"


def test_a_worker_does_not_outlive_its_parent() -> None:
    code = (
        "import json, sys; from edgeseg.workflow import zoo_worker; import time;"
        "zoo_worker.examine = lambda request: time.sleep(600); zoo_worker.main()"
    )
    import subprocess

    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write("{}\n")
        process.stdin.close()
        assert process.wait(timeout=300) == 1


def test_unknown_network_and_too_small_a_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--model 'fast_scn' is unknown; did you mean 'fast_scnn'"):
        check(["fast_scn"], size_hw=(64, 96), timeout_s=1, ui=Silent())
    with pytest.raises(ConfigError, match="--size 32 96"):
        check(["fast_scnn"], size_hw=(32, 96), timeout_s=1, ui=Silent())


def test_a_format_that_is_not_made_of_a_network_is_left_out_with_the_reason() -> None:
    report = check(["mask_rcnn"], size_hw=(64, 96), timeout_s=0.2, ui=Silent())
    assert [row.format for row in report.rows if row.left_out] == ["tensorrt"]
    (row,) = (row for row in report.rows if row.left_out)
    assert row.passed
    assert row.line() == f"mask_rcnn tensorrt: left out; {row.fp32.notes['agreement']}"
    assert "a class a pixel" in row.left_out
    assert not report.passed  # the others took too long


def test_a_check_that_times_out_gives_rows_with_reasons() -> None:
    report = check(["fast_scnn"], size_hw=(64, 96), timeout_s=0.2, ui=Silent())
    assert not report.passed
    assert [row.format for row in report.rows] == list(EXPORTERS)
    for row in report.rows:
        assert row.fp32.notes["agreement"] == row.note == "took more than 0.2 s and was stopped"
