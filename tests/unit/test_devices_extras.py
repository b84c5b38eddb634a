"""Which runtime a board gets when nobody says."""

from __future__ import annotations

import pytest

from targets.boards import TARGETS
from targets.devices.inventory import Entry
from targets.devices.probe import BoardFacts
from targets.devices.setup import EXTRAS, chosen_extras, fitting_extra
from targets.devices.wheels import BoardPython


def board(arch: str, model: str = "") -> BoardFacts:
    python = BoardPython(glibc=(2, 36), markers={"platform_machine": arch, "python_full_version": "3.11.2"})
    return BoardFacts(python=python, version=(3, 11, 2), executable="/usr/bin/python3", has_venv=True, bits=64, model=model,
                      disk_free_bytes=1 << 30)


@pytest.mark.parametrize(("facts", "extra"), [
    (board("aarch64", "Raspberry Pi 5 Model B Rev 1.0"), "pi"),
    (board("aarch64", "NVIDIA Jetson Orin Nano Developer Kit"), "jetson"),
    (board("x86_64"), "intel"),
    (board("aarch64"), "pi"),
])
def test_a_board_says_what_it_is(facts: BoardFacts, extra: str) -> None:
    chosen, why = fitting_extra(Entry(name="b", address="ssh://b"), facts)
    assert chosen == (extra,)
    assert why.startswith("for ")


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "host"])
def test_every_target_has_one(target: str) -> None:
    chosen, why = fitting_extra(Entry(name="b", address="ssh://b", target=target), board("x86_64"))
    assert set(chosen) <= set(EXTRAS)
    assert why == f"for target {target}"


def test_opencv_comes_beside_a_runtime() -> None:
    entry = Entry(name="b", address="ssh://b")
    assert chosen_extras(entry, board("aarch64"), ()) == (("pi",), "for aarch64")
    assert chosen_extras(entry, board("aarch64"), ("opencv",)) == (("pi", "opencv"), "for aarch64")
    assert chosen_extras(entry, board("aarch64"), ("opencv", "onnx")) == (("opencv", "onnx"), "as asked for")
