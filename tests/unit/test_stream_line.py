"""Frames of a source that does not wait: what is dropped, what is said, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from waiting_tools import comes_true

from edgeseg.core.errors import ConfigError, InputMissingError
from edgeseg.core.images import picture_of
from targets.sources import Source, SourceFrame
from targets.stream.line import Line, policy_for


def frame(number: int) -> SourceFrame:
    return SourceFrame(str(number), lambda: picture_of(np.zeros((2, 2, 3), np.uint8)))


class Burst:
    """Gives frames as fast as it can, then waits until it is let go."""

    def __init__(self, count: int) -> None:
        self.count, self.given = count, 0
        self.all_given, self.may_end = threading.Event(), threading.Event()

    def frames(self) -> Iterator[SourceFrame]:
        for number in range(self.count):
            self.given = number + 1
            yield frame(number)
        self.all_given.set()
        self.may_end.wait(60)

    def source(self) -> Source:
        return Source(self.frames(), count=None, fps=25, live="camera:0")


def names(line: Line) -> list[str]:
    return [item.name for item in line]


def open_line(burst: Burst, policy: str, **options: object) -> Line:
    settings = {"capacity": 3, "timeout_s": 60.0, "stopping": lambda: False, **options}
    return Line(burst.source(), policy, **settings)


@pytest.mark.parametrize(("policy", "left"), [("oldest", ["7", "8", "9"]), ("newest", ["0", "1", "2"])])
def test_too_many_frames_are_dropped_by_policy(policy: str, left: list[str]) -> None:
    burst = Burst(10)
    line = open_line(burst, policy)
    assert burst.all_given.wait(60)
    burst.may_end.set()
    assert names(line) == left
    assert line.dropped == 7
    line.close()


def test_never_makes_the_source_wait() -> None:
    burst = Burst(10)
    line = open_line(burst, "never")
    assert comes_true(lambda: burst.given == 4)
    assert not burst.all_given.wait(0.3)
    assert burst.given == 4  # three wait, one is in hand
    burst.may_end.set()
    assert names(line) == [str(i) for i in range(10)]
    assert line.dropped == 0
    line.close()


def test_a_source_that_stalls_is_given_up() -> None:
    burst = Burst(2)
    line = open_line(burst, "oldest", timeout_s=0.3)
    assert burst.all_given.wait(60)
    got = []
    with pytest.raises(InputMissingError, match=r"camera:0: no frame for 0\.3 s"):
        for item in line:
            got.append(item.name)
    assert got == ["0", "1"]
    burst.may_end.set()
    line.close()


def test_a_full_line_is_no_stall() -> None:
    burst = Burst(4)
    line = open_line(burst, "never", timeout_s=2.0)
    time.sleep(2.3)  # the fourth frame waits for room all the while
    burst.may_end.set()
    assert len(names(line)) == 4
    line.close()


def test_an_error_of_the_source_comes_after_the_frames_that_wait() -> None:
    def frames() -> Iterator[SourceFrame]:
        yield frame(0)
        raise InputMissingError("lost")

    line = Line(Source(frames(), count=None, fps=25, live="x"), "oldest", capacity=3, timeout_s=60, stopping=lambda: False)
    got = []
    with pytest.raises(InputMissingError, match="lost"):
        for item in line:
            got.append(item.name)
    assert got == ["0"]


def test_asked_to_stop_it_ends_though_the_source_hangs() -> None:
    asked = threading.Event()
    line = open_line(Burst(1), "oldest", stopping=asked.is_set, timeout_s=60.0)
    threading.Timer(0.2, asked.set).start()
    start = time.monotonic()
    assert names(line) == ["0"]
    assert time.monotonic() - start < 50


def test_policies() -> None:
    assert policy_for("", live=True) == "oldest"
    assert policy_for("never", live=True) == "never"
    assert policy_for("", live=False) == policy_for("never", live=False) == "never"
    with pytest.raises(ConfigError, match="of files every frame is answered"):
        policy_for("oldest", live=False)
    with pytest.raises(ConfigError, match="'latest' is unknown; one of never, oldest, newest"):
        policy_for("latest", live=True)
