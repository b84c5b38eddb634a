"""What rank 0 leaves behind for the processes that are started again."""

from __future__ import annotations

import os
from pathlib import Path

from edgeseg.training.ranks import Ranks
from edgeseg.workflow.together import Crew


def test_the_launch_is_written_at_once(tmp_path: Path) -> None:
    """A new file takes the old one's place: whoever has the old one open never reads half of the new one."""
    work = tmp_path / "work"
    Crew(Ranks(), "first", 0).begin(work, resume=False)
    os.link(work / "launch", tmp_path / "old")
    second = Crew(Ranks(), "second", 1)
    assert not second.goes_on(work)
    second.begin(work, resume=True)
    assert second.goes_on(work)
    assert (tmp_path / "old").read_text() == "first"
    assert [path.name for path in work.iterdir()] == ["launch"]
