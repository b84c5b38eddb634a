"""Many small bundles timed in turns: the least of each counts, and a real process gives one number a bundle, in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import tiny_bundle

from edgeseg.core.errors import TargetError
from targets.boards import plan
from targets.measure.bench import sweep
from targets.measure.loop import NUM_TURNS, take_turns


def test_the_least_of_each_call_counts_and_busy_spells_do_not() -> None:
    now = 0
    made: list[str] = []

    def call(name: str, ms: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            made.append(name)
            busy = 1 if len(made) % 7 else 50
            now += round(ms * 1e6) * busy

        return run

    stages: list[float] = []
    found = take_turns([call("a", 2.0), call("b", 0.5)], lambda: now, lambda stage, done: stages.append(done))
    assert found == [2.0e6, 0.5e6]
    assert len(stages) == NUM_TURNS
    assert stages[-1] == 1
    assert made.index("b") < len(made) - 1 - made[::-1].index("a"), "they take turns"


def test_one_number_a_bundle_in_a_process_of_its_own(tmp_path: Path) -> None:
    bundles = [tiny_bundle(tmp_path / str(size), "null", height=size, width=size) for size in (16, 32)]
    how = plan("host", "null", "fp32", num_threads=1)
    found = sweep(bundles, how)
    assert len(found) == 2
    assert all(ms > 0 for ms in found)
    assert sweep([], how) == ()
    with pytest.raises(TargetError, match="does not run null"):
        sweep(bundles, plan("host", "openvino", "fp32", num_threads=1))
