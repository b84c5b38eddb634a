"""Frames in, masks and overlays out; from an instance model the objects, too. Decoding, inference and output side by side.

Legend: H/W = rows/columns of the frame.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError, EdgesegError, InputMissingError, explain_os_error
from edgeseg.core.files import fsync_folder, write_json
from edgeseg.core.images import (
    ClassMap,
    Frame,
    Picture,
    Placement,
    jpeg_scale,
    picture_to_model,
    to_frame,
    to_model,
    write_class_map,
    write_jpeg,
)
from edgeseg.core.instances import Answer, as_class_map, as_instances
from edgeseg.core.paste import to_frame_boxes
from targets.instances import (
    MIN_SCORE,
    OVERLAY_SHARE,
    at_least,
    describe,
    draw,
    object_colours,
    object_map,
    shown_found,
)
from targets.machine import describe_machine
from targets.runtimes.base import Session
from targets.sources import Source, SourceFrame, SourceOptions, is_live, open_source
from targets.stream.line import Line, policy_for
from targets.stream.pipeline import Pipeline
from targets.stream.ring import Arrays, Ring
from targets.stream.video import OverlayVideo

MASKS: Final = "masks"
OVERLAYS: Final = "overlays"
OBJECTS: Final = "objects"
OVERLAY_VIDEO: Final = "overlay.mp4"
MAX_WORKERS: Final = 4

OnFrame = Callable[[int, "int | None", int], None]
"""Gets the frames done, how many there are where the source says it, and how many were dropped."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What the caller decides about a prediction."""

    overlays: bool = True
    min_score: float = MIN_SCORE
    drop: str = ""
    """One of `targets.stream.line.POLICIES`; empty = `oldest` for a live source, `never` for files (which take nothing else)."""
    max_frames: int | None = None
    timeout_s: float = 10.0
    """A live source that gives no frame for this long has ended."""
    fast_jpeg: bool = False
    """Decode JPEG files at reduced scale where the model takes fewer pixels. Faster; a few pixels are answered otherwise."""
    workers: int = 0
    """Threads that decode, resize and write; 0 = by the processors this process may use."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was written."""

    num_frames: int
    masks: Path
    """Folder of maps at frame size: palette PNGs whose pixel values are class indices, or (instances) numbers of objects, 0 = none."""
    overlays: Path | None
    """Folder of overlay JPEGs, or the overlay video; `None` where none were asked for."""
    objects: Path | None = None
    """Folder of JSON files, one a frame: class, score, box and number of each object; `None` for a semantic model."""
    live: str = ""
    """Name of a live source; empty for files."""
    drop: str = "never"
    dropped: int = 0
    """Frames of a live source that were not answered, by the policy `drop`."""
    damaged: int = 0
    """Frames of a live source that could not be decoded."""
    seconds: float = 0.0
    """From asking for the first frame to the last result."""
    stopped: bool = False
    """The caller asked to stop before the source ended."""
    lost: EdgesegError | None = None
    """How a live source was lost (no frame in time, connection cut); what was written before is whole."""

    @property
    def fps(self) -> float:
        """Frames answered per second."""
        return self.num_frames / self.seconds if self.seconds else 0.0


def predict_frame(session: Session, bundle: Bundle, frame_HWC: Frame) -> ClassMap:
    """Answer one frame of any size with a semantic model: uint8 [H, W] at frame size."""
    contract = bundle.manifest.contract
    placement = contract.place((frame_HWC.shape[0], frame_HWC.shape[1]))
    return to_frame([as_class_map(session.run(model_frame)) for model_frame in to_model(frame_HWC, placement)], placement)


def overlay(frame_HWC: Frame, class_map_HW: ClassMap, palette: tuple[tuple[int, int, int], ...]) -> Frame:
    """Blend the classes' colours over a frame, half and half; pixels without a colour (255 = ignore) stay as they are."""
    coloured = Image.fromarray(class_map_HW)
    coloured.putpalette([value for colour in palette for value in colour])
    blended = np.asarray(Image.blend(Image.fromarray(frame_HWC), coloured.convert("RGB"), OVERLAY_SHARE))
    if class_map_HW.max(initial=0) < len(palette):
        return blended
    return np.where(class_map_HW[:, :, np.newaxis] < len(palette), blended, frame_HWC)


def source_for(bundle: Bundle, source: Path | str, options: PredictOptions) -> Callable[[], Source]:
    """Open files for a bundle, so that what is wrong with them is said before a session is opened; gives what hands the source out.

    A camera or a stream is looked at and opened only then: nobody takes its frames while a session is opened, which may take minutes.

    Raises:
        ConfigError: a drop policy for files, `fast_jpeg` together with overlays, or no camera.
        InputMissingError, DataError: see `targets.sources.open_source`.
    """
    contract = bundle.manifest.contract
    if options.fast_jpeg and options.overlays:
        raise ConfigError("a JPEG decoded at reduced scale has no pixels to draw an overlay on; add --no-overlay to --fast-jpeg")
    scale_of = (lambda frame_hw: jpeg_scale(frame_hw, (contract.height, contract.width), contract.resize)) if options.fast_jpeg else None
    how = SourceOptions(timeout_s=options.timeout_s, scale_of=scale_of)
    live = is_live(source)
    policy_for(options.drop, live=live)
    if live:
        return partial(open_source, source, how)
    opened = open_source(source, how)
    return lambda: opened


def predict_source(
    session: Session, bundle: Bundle, source: Source | Path | str, out: Path, options: PredictOptions | None = None, *,
    on_frame: OnFrame = lambda done, count, dropped: None, asked_to_stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
) -> Predicted:
    """Answer a source, opened or as typed, into `out/masks/` and `out/overlays/` (`out/overlay.mp4` for a video).

    An instance model's objects with a score of at least `min_score` also go into `out/objects/`, one JSON file a frame.
    Every file appears whole or not at all; the overlay video is finished however this ends, but for a second signal. `asked_to_stop`
    is asked before each frame: no new one is taken then, and those under way are finished.

    Raises:
        ConfigError, InputMissingError, DataError: see `source_for`; what was written before a damaged frame stays.
        OutputError, NoPermissionError: `out` cannot be written.
        RuntimeFailure: the runtime or the video encoder failed.
    """
    options = options or PredictOptions()
    opened = source if isinstance(source, Source) else source_for(bundle, source, options)()
    steps = _Steps(session, bundle, out, options, video=opened.is_video)
    try:
        return _stream(opened, steps, options, on_frame, asked_to_stop, clock)
    except OSError as error:
        raise explain_os_error(error, doing="predicting, at") from error


def _stream(
    source: Source, steps: _Steps, options: PredictOptions, on_frame: OnFrame, asked_to_stop: Callable[[], bool],
    clock: Callable[[], float],
) -> Predicted:
    policy = policy_for(options.drop, live=bool(source.live))
    workers = options.workers or max(2, min(MAX_WORKERS, describe_machine().cores - 1))
    pipeline = Pipeline(
        steps.prepare, steps.answer, steps.finish, workers=workers, depth=1 if source.live else workers + 1, asked_to_stop=asked_to_stop,
    )
    lost: list[InputMissingError] = []
    done, start = 0, clock()
    with contextlib.ExitStack() as held:
        held.callback(steps.sync_names)
        line = None
        if source.live:
            line = Line(source, policy, capacity=workers, timeout_s=options.timeout_s, stopping=pipeline.stopping)
            held.callback(line.close)
        frames = islice(iter(source) if line is None else _until_lost(line, lost), options.max_frames)
        video = held.enter_context(contextlib.closing(OverlayVideo(steps.out / OVERLAY_VIDEO, source.fps or 1.0)))
        results = held.enter_context(contextlib.closing(pipeline.results(frames)))
        for done, result in enumerate(results, start=1):
            if result.video_frame is not None:
                video.write(result.video_frame, result.time_s)
            on_frame(done, source.count, line.dropped if line is not None else 0)
    if lost and not done:
        raise lost[0]
    shown = (steps.out / OVERLAY_VIDEO if source.is_video else steps.out / OVERLAYS) if options.overlays else None
    return Predicted(
        num_frames=done, masks=steps.out / MASKS, overlays=shown, objects=steps.out / OBJECTS if steps.instances else None,
        live=source.live, drop=policy, dropped=line.dropped if line is not None else 0, damaged=source.damage.num_frames,
        seconds=clock() - start, stopped=asked_to_stop(), lost=lost[0] if lost else None,
    )


def _until_lost(line: Line, lost: list[InputMissingError]) -> Iterator[SourceFrame]:
    """Frames of a live source; that it was lost ends them, and is noted."""
    try:
        yield from line
    except InputMissingError as error:
        lost.append(error)


@dataclass(frozen=True)
class _Ready:
    """A frame at model size; `arrays` are its own until it is written."""

    name: str
    time_s: float | None
    picture: Picture
    placement: Placement
    inputs: list[Frame]
    arrays: Arrays


@dataclass(frozen=True)
class _Written:
    """A frame whose files are written; `video_frame` is to be appended in order."""

    time_s: float | None
    video_frame: Frame | None


class _Steps:
    """The three steps of a frame: to model size, the network, to files."""

    def __init__(self, session: Session, bundle: Bundle, out: Path, options: PredictOptions, *, video: bool) -> None:
        self.out = out
        self.instances = bundle.manifest.contract.task == "instance"
        self._session, self._manifest, self._options, self._video = session, bundle.manifest, options, video
        self._folders: set[Path] = set()
        self._ring = Ring(bundle.manifest.contract)

    def prepare(self, item: SourceFrame) -> _Ready:
        """Decode and resize."""
        contract = self._manifest.contract
        picture = item.read()
        placement, arrays = contract.place(picture.frame_hw), self._ring.take()
        inputs = picture_to_model(picture, placement, arrays.room(placement))
        return _Ready(item.name, item.time_s, picture, placement, inputs, arrays)

    def answer(self, ready: _Ready) -> tuple[_Ready, list[Answer]]:
        """Run the network: on one thread, for all frames."""
        return ready, [ready.arrays.run(self._session, window, model_frame) for window, model_frame in enumerate(ready.inputs)]

    def finish(self, answered: tuple[_Ready, list[Answer]]) -> _Written:
        """Bring the answer to frame size and write it."""
        ready, answers = answered
        shown = self._objects(ready, answers[0]) if self.instances else self._classes(ready, answers)
        self._ring.give_back(ready.arrays)  # what is shown is an array of its own
        if shown is None or self._video:
            return _Written(ready.time_s, shown)
        path = self.out / OVERLAYS / f"{ready.name}.jpg"
        write_jpeg(path, shown, sync_name=False)
        self._folders.add(path.parent)
        return _Written(ready.time_s, None)

    def sync_names(self) -> None:
        """Make the names of everything written durable: once for all of them, for it costs as much as writing one."""
        for folder in self._folders:
            fsync_folder(folder)

    def _write_map(self, name: str, map_HW: ClassMap, palette: tuple[tuple[int, int, int], ...]) -> None:
        path = self.out / MASKS / f"{name}.png"
        write_class_map(path, map_HW, palette=palette, sync_name=False)
        self._folders.add(path.parent)

    def _classes(self, ready: _Ready, answers: list[Answer]) -> Frame | None:
        palette = self._manifest.palette
        class_map_HW = to_frame([as_class_map(answer) for answer in answers], ready.placement)
        self._write_map(ready.name, class_map_HW, palette)
        return overlay(ready.picture.frame_HWC, class_map_HW, palette) if self._options.overlays else None

    def _objects(self, ready: _Ready, answer: Answer) -> Frame | None:
        classes, frame_hw = self._manifest.classes, ready.placement.frame_hw
        found = at_least(to_frame_boxes(as_instances(answer), ready.placement), self._options.min_score)
        palette = ((0, 0, 0), *object_colours(len(found)))
        self._write_map(ready.name, object_map(found, frame_hw), palette)
        facts: dict[str, Any] = {"frame": ready.name, **describe(found, classes, frame_hw)}
        write_json(self.out / OBJECTS / f"{ready.name}.json", facts)
        return draw(ready.picture.frame_HWC, shown_found(found, classes, frame_hw)) if self._options.overlays else None
