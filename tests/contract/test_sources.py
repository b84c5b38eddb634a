"""Every kind of source in `SOURCES`: it is meant by what is typed for it, by nothing else, and says in one line what is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from tiny_models import tiny_frame

from edgeseg.core.errors import DataError, EdgesegError
from edgeseg.core.images import write_frame
from targets.sources import SOURCES, SourceOptions, open_source

TYPED: Final = {
    "rtsp": ("rtsp://127.0.0.1:1/a.mp4", "RTSPS://127.0.0.1:1/a"),
    "camera": ("camera:97", "camera:97:640x480@30", "/dev/video97"),
    "folder": (".",),
    "video": ("gone.mp4", "a b/GONE.MKV"),
    "image": ("gone.png", "a b/gone.JPG"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_what_is_typed_means_one_kind(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in TYPED[kind]:
        assert next(name for name, other in SOURCES.items() if other.takes(text)) == kind  # an address may end like a file
        with pytest.raises(EdgesegError) as caught:
            open_source(text, SourceOptions(timeout_s=5))
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code in (66, 69)  # not there, or the extra is missing


def test_a_folder_that_is_called_like_a_video(tmp_path: Path) -> None:
    write_frame(tmp_path / "drive.mp4" / "a.png", tiny_frame())
    assert [frame.name for frame in open_source(tmp_path / "drive.mp4")] == ["a"]


def test_no_two_images_of_a_folder_share_a_name(tmp_path: Path) -> None:
    files = ["a.jpg", "a.png", "a.jpg.png", "a.jpg.png.bmp", "b.png", "c.png.png", "sub/a.png"]
    (tmp_path / "sub").mkdir()
    for file in files:
        (tmp_path / file).touch()  # names are given before a file is read
    names = [frame.name for frame in open_source(tmp_path)]
    assert names == ["a.jpg", "a.jpg.png", "a.jpg.png.bmp", "a.png", "b", "c.png", "sub/a"]


def test_no_kind_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"notes\.txt is neither an image nor a video"):
        open_source(tmp_path / "notes.txt")
