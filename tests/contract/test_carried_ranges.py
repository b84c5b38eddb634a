"""Ranges learnt in torch arrive in every format: each value finds its tensor, and the int8 bundle answers as the rounding network did."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from export_tools import CASES, RUNTIME_OF, exported, frames_of, seal, trained
from test_exporters import same

from edgeseg.core.images import ClassMap, Frame
from edgeseg.models import ContractModule, fold, normalise
from quantization import QUANTIZERS, Int8Plan
from quantization.carry import LearntRanges, carry, learnt
from quantization.qat import FakeQuantized, settle, watched
from targets.runtimes import RuntimeOptions, open_session

NAME = "fast_scnn"
pytestmark = pytest.mark.parametrize("format", QUANTIZERS)


@functools.cache
def rounding() -> FakeQuantized:
    """The case's network with ranges too narrow by half: it clips, so what is carried can be told from what is calibrated."""
    inputs = [normalise(torch.from_numpy(frame[None])) for frame in frames_of(NAME, 4, first=5000)]
    net = FakeQuantized(fold(trained(NAME)), inputs[0])
    settle(net, inputs)
    with torch.no_grad():
        net.log_low.fill_(np.log(0.5))
        net.log_high.fill_(np.log(0.5))
    return net


@functools.cache
def ranges() -> LearntRanges:
    net, (probe,) = rounding(), frames_of(NAME, 1, first=5000)
    values = watched(net, normalise(torch.from_numpy(probe[None])))
    return learnt(net.slot_names(), net.ranges(), probe, [(slot, x.numpy()) for slot, x in values])


def answers_of_torch(frames: list[Frame]) -> list[ClassMap]:
    module = ContractModule(rounding(), CASES[NAME].contract).eval()
    with torch.no_grad():
        return [module(torch.from_numpy(frame[None]))[0].numpy() for frame in frames]


def test_learnt_ranges_arrive_and_are_what_the_bundle_computes_with(format: str, tmp_path: Path) -> None:
    bundle, frames = exported(format, NAME), frames_of(NAME, 8, first=9000)
    carried = carry(ranges(), bundle)
    assert carried.lost == ()
    assert len(carried.ranges) >= 0.95 * len(rounding().slots)
    assert carried.facts() == {"carried": len(carried.ranges), "calibrated": carried.calibrated, "lost": []}
    writer = QUANTIZERS[format].prepare(bundle, frames_of(NAME, 4, first=5000))
    expected, agreed = answers_of_torch(frames), {}
    for name, plan in (("calibrated", Int8Plan()), ("carried", Int8Plan(ranges=carried.ranges))):
        (tmp_path / name / "work").mkdir(parents=True)
        session = open_session(seal(NAME, writer.write(plan, tmp_path / name / "work")), RUNTIME_OF[format], RuntimeOptions())
        agreed[name] = same([session.run(frame) for frame in frames], expected)
        session.close()
    assert agreed["carried"] > 0.985
    assert 1 - agreed["carried"] < (1 - agreed["calibrated"]) / 3
