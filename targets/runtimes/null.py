"""The null runtime: answers frames with no SDK at all, so that the whole chain can be tried and tested anywhere.

The entry file is JSON, `{"num_classes": C}`; the class of a pixel is its brightness cut into C equal steps. The answer depends on
every pixel, so a frame that was mixed up, flipped or resized otherwise is noticed. For task `instance` all pixels of a class (but the
darkest, which is background) are one object: their box, their share of it as score, and which cells of it they fill as mask.

Legend: K = slots, C = classes, H/W = rows/columns at model size, h/w = rows/columns of a mask inside its box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg import __version__
from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError, TargetError
from edgeseg.core.files import read_json
from edgeseg.core.images import ClassMap, Frame
from edgeseg.core.instances import MASK_SIZE
from targets.runtimes.base import Answers, CheckedSession, RuntimeOptions
from targets.runtimes.options import refuse_options


class NullRuntime:
    """Executes format `null`: `{"num_classes": C}` in JSON."""

    formats = frozenset({"null"})

    def version(self) -> str | None:
        """The version of edgeseg: there is no SDK."""
        return __version__

    def open(self, bundle: Bundle, options: RuntimeOptions) -> CheckedSession:
        """See `Runtime.open`."""
        if options.provider != "cpu":
            raise TargetError(f"the null runtime runs on cpu, not on {options.provider}")
        refuse_options("the null runtime", options)
        num_classes, contract = _read_num_classes(bundle), bundle.manifest.contract

        def execute(frame_HWC: Frame, answers: Answers) -> None:
            brightness: NDArray[np.uint32] = frame_HWC.sum(axis=2, dtype=np.uint32)
            class_map = (brightness * num_classes // 766).astype(np.uint8)
            if contract.task == "semantic":
                answers[0][:] = class_map
            else:
                _objects(class_map, num_classes, answers)

        return CheckedSession("null", bundle.manifest, {"runtime": "null", "provider": "cpu"}, execute)


def _objects(class_map_HW: ClassMap, num_classes: int, answers: Answers) -> None:
    """One object a class, as many as there are slots."""
    detections_K6, masks_Khw = answers
    for slot, index in enumerate(range(1, min(num_classes, len(detections_K6) + 1))):
        mine = class_map_HW == index
        rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
        if not len(rows):
            continue
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        inside = mine[y0:y1, x0:x1]
        detections_K6[slot] = (x0, y0, x1, y1, inside.mean(), index)
        cell_rows = ((np.arange(MASK_SIZE) + 0.5) * (y1 - y0) / MASK_SIZE).astype(np.int64)
        cell_columns = ((np.arange(MASK_SIZE) + 0.5) * (x1 - x0) / MASK_SIZE).astype(np.int64)
        masks_Khw[slot] = inside[np.ix_(cell_rows, cell_columns)] * np.uint8(255)


def _read_num_classes(bundle: Bundle) -> int:
    expected = '{"num_classes": C} with C = the number of classes'
    try:
        raw = read_json(bundle.model_path)
    except ValueError as error:
        raise BundleError(f"{bundle.model_path.name}: not JSON ({error}); expected {expected}") from error
    got = raw.get("num_classes") if isinstance(raw, dict) else None
    if type(got) is not int or got != len(bundle.manifest.classes):
        raise BundleError(f"{bundle.model_path.name}: num_classes is {got!r}; expected {expected}")
    return got
