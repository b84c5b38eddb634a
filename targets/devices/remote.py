"""A bundle's answers, given on a device and judged here: `targets.verify` takes them as it takes a session of this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import DeviceError, require_path
from edgeseg.core.images import Frame, read_class_map
from edgeseg.core.instances import Answer, read_instances
from targets.boards import MeasuredOn, Plan, Target, Wishes, find_target
from targets.devices.base import Device, Job, Progress
from targets.machine import Machine
from targets.measure.bench import side

TIMEOUT_S: Final = 4 * 3600.0
_OUT: Final = "answers"


class GivenAnswers:
    """A `Session` that says again, one by one and in the same order, what the device said: of the frames, then of the golden frames."""

    def __init__(self, folder: Path, raw: Mapping[str, Any], shape: tuple[int, int]) -> None:
        """Take the files of `folder` as job `answer` wrote them; `raw` = its result, `shape` = rows and columns at model size."""
        self.settings: Mapping[str, str] = dict(raw["settings"])
        self.runtime: str = raw["runtime"]
        self.versions: Mapping[str, str] = dict(raw["versions"])
        self.machine = Machine(**raw["machine"])
        self.measured_on = MeasuredOn(**raw["measured_on"])
        """Where the answers come from."""
        self._files = iter(sorted(folder.iterdir()))
        self._shape = shape

    def run(self, frame_HWC: Frame) -> Answer:
        """Give the next answer; the caller asks for the frames that were sent, in the same order."""
        assert frame_HWC.shape[:2] == self._shape, "frames at model size"
        path = next(self._files, None)
        assert path is not None, "more frames are asked for than were sent"
        return read_class_map(path) if path.suffix == ".png" else read_instances(path)

    def close(self) -> None:
        """See `Session.close`: nothing is held."""


@contextmanager
def answers_on(
    device: Device, bundle: Bundle, frames: Sequence[Path], *, target: Target | str = "host", how: Plan | Wishes | None = None,
    timeout_s: float = TIMEOUT_S, on_progress: Progress = lambda stage, done: None,
) -> Iterator[GivenAnswers]:
    """Let a device answer image files and the bundle's golden frames; yield the answers as a session. They are gone at the end.

    The files are decoded and resized there, so that is verified too. Golden frames alone: `frames = ()`.

    Raises:
        TargetError: the target or the device cannot run the bundle.
        DeviceError: the device cannot be reached or used, or it gave another number of answers than it says.
        RuntimeFailure: the runtime crashed there (the signal is named) or took too long.
    """
    target = find_target(target) if isinstance(target, str) else target
    contract = bundle.manifest.contract
    place = f"bundles/{bundle.folder.resolve().name}"
    files = {f"frames/{i:06}/{path.name}": require_path(path, what="frame") for i, path in enumerate(frames)}
    request = {"job": "answer", "target": target.name, "files": list(files), "out": _OUT, **side(place, target, how or Wishes())}
    with tempfile.TemporaryDirectory(prefix="edgeseg-answers-") as name:
        raw = device.run(
            Job(request, {place: bundle.folder, **files}, (_OUT,)), what=f"verifying {bundle.manifest.name}", timeout_s=timeout_s,
            on_progress=on_progress, into=Path(name),
        )
        folder = Path(name) / _OUT
        count = sum(1 for _ in folder.iterdir())
        if count != raw["num_answers"]:
            raise DeviceError(f"{device.name} says it gave {raw['num_answers']} answers and {count} arrived; run the same command again")
        yield GivenAnswers(folder, raw, (contract.height, contract.width))
