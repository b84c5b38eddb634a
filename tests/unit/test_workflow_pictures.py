"""Frames spread evenly over a split."""

from __future__ import annotations

import pytest

from edgeseg.workflow.pictures import spread


@pytest.mark.parametrize(("total", "wanted", "expected"), [
    (9, 3, [0, 4, 8]), (2, 3, [0, 1]), (5, 8, [0, 1, 2, 3, 4]), (1, 4, [0]), (0, 3, []),
])
def test_as_many_as_there_are_and_never_one_twice(total: int, wanted: int, expected: list[int]) -> None:
    assert spread(total, wanted) == expected
