"""A bundle's answers, given on a device and judged here: `targets.verify` takes them as it takes a session of this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import DeviceError, EdgesegError, require_path
from edgeseg.core.images import ClassMap, Frame, read_class_map
from edgeseg.core.instances import Answer, read_instances
from edgeseg.core.manifest import Manifest
from targets.boards import MeasuredOn, Plan, Target, Wishes, find_target
from targets.devices.base import Device, Job, Progress
from targets.devices.received import received
from targets.devices.words import nonsense, plain
from targets.machine import Machine
from targets.measure.bench import side

TIMEOUT_S: Final = 4 * 3600.0
_OUT: Final = "answers"


@dataclass(frozen=True, kw_only=True)
class _Answered:
    """The result of job `answer`."""

    num_answers: int
    runtime: str
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    machine: Machine
    measured_on: MeasuredOn


class GivenAnswers:
    """A `Session` that says again, one by one and in the same order, what the device said: of the frames, then of the golden frames."""

    def __init__(self, folder: Path, said: _Answered, manifest: Manifest, device: str) -> None:
        """Take the files of `folder` as job `answer` wrote them, for a bundle of `manifest`; `said` = its result."""
        self._device, self._manifest = device, manifest
        self.settings, self.runtime, self.versions, self.machine = said.settings, said.runtime, said.versions, said.machine
        self.measured_on = said.measured_on
        """Where the answers come from."""
        self._files = iter(sorted(folder.iterdir()))

    def run(self, frame_HWC: Frame, out: ClassMap | None = None) -> Answer:
        """Give the next answer; the caller asks for the frames that were sent, in the same order.

        Raises:
            DeviceError: the device left it out, or it is none.
        """
        contract, num_classes = self._manifest.contract, len(self._manifest.classes)
        shape = (contract.height, contract.width)
        assert frame_HWC.shape[:2] == shape, "frames at model size"
        path = next(self._files, None)
        if path is None:
            raise nonsense(self._device, "fewer answers than frames")
        try:
            if contract.task == "instance":
                found = read_instances(path)
                known = bool(((found.classes_K > 0) & (found.classes_K < num_classes)).all())
            else:
                class_map = read_class_map(path)
                known = class_map.shape == shape and bool(class_map.max() < num_classes)
        except (EdgesegError, OSError) as error:  # OSError: a folder of that name
            raise nonsense(self._device, f"{plain(path.name)} is no answer") from error
        if not known:
            raise nonsense(self._device, f"{plain(path.name)} is of another size or of other classes")
        if contract.task == "instance":
            return found
        if out is None:
            return class_map
        np.copyto(out, class_map)
        return out

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
    place = f"bundles/{bundle.folder.resolve().name}"
    files = {f"frames/{i:06}/{path.name}": require_path(path, what="frame") for i, path in enumerate(frames)}
    request = {"job": "answer", "target": target.name, "files": list(files), "out": _OUT, **side(place, target, how or Wishes())}
    with tempfile.TemporaryDirectory(prefix="edgeseg-answers-") as name:
        raw = device.run(
            Job(request, {place: bundle.folder, **files}, (_OUT,)), what=f"verifying {bundle.manifest.name}", timeout_s=timeout_s,
            on_progress=on_progress, into=Path(name),
        )
        folder = Path(name) / _OUT
        count, said = sum(1 for _ in folder.iterdir()), received(_Answered, raw, device.name)
        if count != said.num_answers:
            raise DeviceError(f"{device.name} says it gave {said.num_answers} answers and {count} arrived; run the same command again")
        yield GivenAnswers(folder, said, bundle.manifest, device.name)
