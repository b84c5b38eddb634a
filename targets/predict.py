"""Frames in, masks and overlays out; from an instance model the objects, too.

Legend: H/W = rows/columns of the frame.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import EdgesegError, RuntimeFailure, explain_os_error, telling_line
from edgeseg.core.files import atomic_path, write_json
from edgeseg.core.images import ClassMap, Frame, place, to_frame, to_model, write_class_map, write_frame
from edgeseg.core.instances import as_class_map
from edgeseg.core.lazy import require
from targets.instances import (
    MIN_SCORE,
    OVERLAY_SHARE,
    at_least,
    describe,
    draw,
    find_instances,
    object_colours,
    object_map,
    shown_found,
)
from targets.runtimes.base import Session
from targets.sources import Source, open_source

MASKS: Final = "masks"
OVERLAYS: Final = "overlays"
OBJECTS: Final = "objects"
OVERLAY_VIDEO: Final = "overlay.mp4"


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was written."""

    num_frames: int
    masks: Path
    """Folder of maps at frame size: palette PNGs whose pixel values are class indices, or (instances) numbers of objects, 0 = none."""
    overlays: Path | None
    """Folder of overlay PNGs, or the overlay video; `None` where none were asked for."""
    objects: Path | None = None
    """Folder of JSON files, one a frame: class, score, box and number of each object; `None` for a semantic model."""


def predict_frame(session: Session, bundle: Bundle, frame_HWC: Frame) -> ClassMap:
    """Answer one frame of any size with a semantic model: uint8 [H, W] at frame size."""
    contract = bundle.manifest.contract
    placement = place((frame_HWC.shape[0], frame_HWC.shape[1]), (contract.height, contract.width), contract.resize)
    return to_frame([as_class_map(session.run(model_frame)) for model_frame in to_model(frame_HWC, placement)], placement)


def overlay(frame_HWC: Frame, class_map_HW: ClassMap, palette: tuple[tuple[int, int, int], ...]) -> Frame:
    """Blend the classes' colours over a frame, half and half; pixels without a colour (255 = ignore) stay as they are."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(palette)] = palette
    coloured = np.asarray(Image.blend(Image.fromarray(frame_HWC), Image.fromarray(colours[class_map_HW]), OVERLAY_SHARE))
    return np.where(class_map_HW[:, :, np.newaxis] < len(palette), coloured, frame_HWC)


def predict_source(
    session: Session, bundle: Bundle, source: Path, out: Path, *, overlays: bool = True, min_score: float = MIN_SCORE,
    on_frame: Callable[[int, int | None], None] = lambda done, count: None,
) -> Predicted:
    """Answer an image, a folder or a video into `out/masks/` and `out/overlays/` (`out/overlay.mp4` for a video).

    An instance model's objects with a score of at least `min_score` also go into `out/objects/`, one JSON file a frame.
    Every file appears whole or not at all. `on_frame` gets the frames done and, where the source says it, how many there are.

    Raises:
        InputMissingError, DataError: see `targets.sources.open_source`; what was written before a damaged frame stays.
        OutputError, NoPermissionError: `out` cannot be written.
        RuntimeFailure: the runtime or the video encoder failed.
    """
    opened = open_source(source)
    try:
        return _predict(session, bundle, opened, out, overlays, min_score, on_frame)
    except OSError as error:
        raise explain_os_error(error, doing="predicting, at") from error


@dataclass(frozen=True)
class _Result:
    """What is written of one frame."""

    map_HW: ClassMap
    palette: tuple[tuple[int, int, int], ...]
    draw: Callable[[], Frame]
    objects: dict[str, Any] | None


def _predict(
    session: Session, bundle: Bundle, source: Source, out: Path, overlays: bool, min_score: float,
    on_frame: Callable[[int, int | None], None],
) -> Predicted:
    done, instances = 0, bundle.manifest.contract.task == "instance"
    place_for_overlays = (out / OVERLAY_VIDEO if source.is_video else out / OVERLAYS) if overlays else None
    with _overlay_writer(place_for_overlays, source.fps) as write_overlay:
        for done, item in enumerate(source, start=1):
            frame = item.frame_HWC
            result = _objects(session, bundle, frame, min_score) if instances else _classes(session, bundle, frame)
            write_class_map(out / MASKS / f"{item.name}.png", result.map_HW, palette=result.palette)
            if result.objects is not None:
                write_json(out / OBJECTS / f"{item.name}.json", {"frame": item.name, **result.objects})
            if write_overlay is not None:
                write_overlay(item.name, result.draw())
            on_frame(done, source.count)
    return Predicted(num_frames=done, masks=out / MASKS, overlays=place_for_overlays, objects=out / OBJECTS if instances else None)


def _classes(session: Session, bundle: Bundle, frame_HWC: Frame) -> _Result:
    palette = bundle.manifest.palette
    class_map_HW = predict_frame(session, bundle, frame_HWC)
    return _Result(class_map_HW, palette, lambda: overlay(frame_HWC, class_map_HW, palette), None)


def _objects(session: Session, bundle: Bundle, frame_HWC: Frame, min_score: float) -> _Result:
    classes, frame_hw = bundle.manifest.classes, (frame_HWC.shape[0], frame_HWC.shape[1])
    found = at_least(find_instances(session, bundle.manifest.contract, frame_HWC), min_score)
    return _Result(
        object_map(found, frame_hw), ((0, 0, 0), *object_colours(len(found))),
        lambda: draw(frame_HWC, shown_found(found, classes, frame_hw)), describe(found, classes, frame_hw),
    )


def _overlay_writer(place: Path | None, fps: float | None) -> contextlib.AbstractContextManager[Callable[[str, Frame], None] | None]:
    if place is None:
        return contextlib.nullcontext()
    return _video_writer(place, fps) if fps is not None else _picture_writer(place)


@contextlib.contextmanager
def _picture_writer(folder: Path) -> Iterator[Callable[[str, Frame], None]]:
    yield lambda name, frame_HWC: write_frame(folder / f"{name}.png", frame_HWC)


@contextlib.contextmanager
def _video_writer(path: Path, fps: float) -> Iterator[Callable[[str, Frame], None]]:
    """H.264 at the source's rate; the file takes its name when the last frame is in it."""
    av = require("av", extra="video")
    with atomic_path(path) as temporary:
        container = av.open(str(temporary), "w", format="mp4")
        stream: Any = None

        def write(name: str, frame_HWC: Frame) -> None:
            nonlocal stream
            H, W = frame_HWC.shape[0] // 2 * 2, frame_HWC.shape[1] // 2 * 2  # 4:2:0 colour needs even sides
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC[:H, :W]), format="rgb24")
            container.mux(stream.encode(picture))

        try:
            yield write
            if stream is not None:
                container.mux(stream.encode(None))
            container.close()
        except (EdgesegError, OSError):
            raise
        except av.error.FFmpegError as error:
            raise RuntimeFailure(f"av failed to write {path.name}: {telling_line(error)}") from error
        finally:
            container.close()
