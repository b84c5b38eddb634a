"""This machine as a device: the worker in a process of its own, in a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from edgeseg.core.errors import ConfigError, EdgesegError
from edgeseg.core.files import atomic_folder
from targets.devices.base import Device, DeviceOptions, Job, Progress, retold
from targets.measure.process import run_worker

ADDRESS: Final = "local"


class LocalDevice:
    """Runs jobs here. Uploads are links: nothing is copied."""

    name: Final = ADDRESS
    address: Final = ADDRESS

    def run(self, job: Job, *, what: str, timeout_s: float, on_progress: Progress, into: Path | None = None) -> dict[str, Any]:
        """See `Device.run`."""
        with tempfile.TemporaryDirectory(prefix="edgeseg-job-") as name:
            folder = Path(name)
            link_uploads(job, folder)
            try:
                result = run_worker({**job.request, "folder": name}, what=what, timeout_s=timeout_s, on_progress=on_progress)
            except EdgesegError as error:
                raise retold(error, job.uploads) from error
            collect(job, folder, into)
            return result


def link_uploads(job: Job, folder: Path) -> None:
    """Lay links to a job's uploads into its folder."""
    for name, source in job.uploads.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source.resolve())


def collect(job: Job, folder: Path, into: Path | None) -> None:
    """Copy what a job left in its folder to `into`, each folder at once and whole."""
    for name in job.downloads:
        assert into is not None, "a job with downloads needs a folder for them"
        with atomic_folder(into / name) as temporary:
            shutil.copytree(folder / name, temporary, dirs_exist_ok=True)


def open_local(address: str, name: str, options: DeviceOptions) -> Device:
    """Give this machine; see `targets.devices.open_device`."""
    if address != ADDRESS or options != DeviceOptions():
        raise ConfigError(f"device '{address}': this machine is called '{ADDRESS}' and takes no options")
    return LocalDevice()
