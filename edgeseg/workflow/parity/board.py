"""The highest rung of the parity ladder: the bundle itself, answered by a device; nothing can be looked at there but the answers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import Frame, write_frame
from edgeseg.core.instances import as_class_map
from edgeseg.workflow.parity.seen import Rung
from edgeseg.workflow.places import Place
from edgeseg.workflow.ui import Ui


def board_rung(
    name: str, precision: str, bundle: Bundle, frames: Sequence[Frame], *, place: Place, target: str, arithmetic: str, ui: Ui,
) -> Rung:
    """Let a device answer `frames` (uint8 HWC at model size), which travel as PNG.

    Raises:
        TargetError: the target or the device cannot run the bundle.
        DeviceError: the device cannot be used.
    """
    how = place.plan(target, bundle.manifest, precision_hint=arithmetic)
    with tempfile.TemporaryDirectory(prefix="edgeseg-ladder-") as folder:
        files = [Path(folder) / f"{number:04}.png" for number in range(len(frames))]
        for file, frame in zip(files, frames, strict=True):
            write_frame(file, frame)
        with place.session(bundle, files, target=target, how=how, ui=ui) as session:
            maps = [as_class_map(session.run(frame)) for frame in frames]
    words = f"{how.runtime} x{how.options.num_threads}, {how.options.precision_hint}, {place.machine.cpu}"
    if how.options.precision_hint != "f32":
        precision = how.options.precision_hint
    return Rung(f"{name} on {place.device.name}", precision, words, bundle, how, maps, elsewhere=place.device.name)
