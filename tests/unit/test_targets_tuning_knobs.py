"""What can be set in a runtime: every combination once, and back from a file only what there is."""

from __future__ import annotations

import pytest

from edgeseg.core.errors import TargetError
from targets.boards import Plan
from targets.runtimes import RUNTIMES, RuntimeOptions
from targets.tuning.knobs import KNOBS, PURPOSES, Board, fields_of, settings_of, thread_counts, with_fields

BOARD = Board(cores=4, smt=True, arithmetic="bf16")


def test_numbers_of_threads() -> None:
    assert thread_counts(1) == (1,)
    assert thread_counts(4) == (1, 2, 3, 4)
    assert thread_counts(24) == (1, 2, 4, 8, 16, 18, 24)


def test_every_runtime_has_its_knobs() -> None:
    assert {runtime for runtime, _ in KNOBS} <= set(RUNTIMES)
    with pytest.raises(TargetError, match="nothing to tune in onnxruntime on tensorrt; there is in null on cpu, onnxruntime"):
        settings_of(Plan("onnxruntime", RuntimeOptions(provider="tensorrt")), BOARD, "latency")


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize(("runtime", "provider"), KNOBS)
def test_settings_begin_with_the_default_and_none_is_twice(runtime: str, provider: str, purpose: str) -> None:
    how = Plan(runtime, RuntimeOptions(num_threads=3, provider=provider))
    settings = settings_of(how, BOARD, purpose)
    assert settings[0] is how.options
    assert all(one not in settings[:place] for place, one in enumerate(settings))
    if provider == "cpu":
        assert {one.num_threads for one in settings} == {1, 2, 3, 4}
        assert all(one.num_threads % one.streams == 0 for one in settings)
    assert purpose == "throughput" or {one.streams for one in settings} == {1}
    for one in settings:
        assert with_fields(how, fields_of(Plan(runtime, one)), cores=4).options == one


def test_what_a_board_lacks_is_not_tried() -> None:
    plain = settings_of(Plan("openvino", RuntimeOptions()), Board(cores=1, smt=False, arithmetic="f32"), "throughput")
    assert {(one.num_threads, one.streams, one.precision_hint) for one in plain} == {(1, 1, "f32")}
    assert {one.precision_hint for one in settings_of(Plan("openvino", RuntimeOptions()), BOARD, "latency")} == {"f32", "bf16"}


@pytest.mark.parametrize(("fields", "said"), [
    ({"num_threads": 0}, "num_threads cannot be 0"), ({"num_threads": 5}, "cannot be 5"),
    ({"num_threads": True}, "cannot be True"), ({"num_threads": "4"}, "cannot be '4'"),
    ({"extra.ENABLE_CPU_PINNING": "MAYBE"}, "cannot be 'MAYBE'"), ({"extra.PATH": "/"}, "has no 'extra.PATH' to set"),
    ({"provider": "gpu"}, "openvino on cpu has no 'provider' to set"), ({"precision_hint": "f8"}, "cannot be 'f8'"),
])
def test_fields_of_a_file_are_checked(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_fields(Plan("openvino", RuntimeOptions()), fields, cores=4)
