"""The null runtime: answers frames with no SDK at all, so that the whole chain can be tried and tested anywhere.

The entry file is JSON, `{"num_classes": C}`; the class of a pixel is its brightness cut into C equal steps. The answer depends on
every pixel, so a frame that was mixed up, flipped or resized otherwise is noticed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg import __version__
from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError, TargetError
from edgeseg.core.files import read_json
from edgeseg.core.images import Frame
from targets.runtimes.base import CheckedSession, RuntimeOptions, Session


class NullRuntime:
    """Executes format `null`: `{"num_classes": C}` in JSON."""

    formats = frozenset({"null"})

    def version(self) -> str | None:
        """The version of edgeseg: there is no SDK."""
        return __version__

    def open(self, bundle: Bundle, options: RuntimeOptions) -> Session:
        """See `Runtime.open`."""
        if options.provider != "cpu":
            raise TargetError(f"the null runtime runs on cpu, not on {options.provider}")
        num_classes = _read_num_classes(bundle)

        def execute(frame_HWC: Frame) -> NDArray[np.uint8]:
            brightness: NDArray[np.uint32] = frame_HWC.sum(axis=2, dtype=np.uint32)
            class_map: NDArray[np.uint8] = (brightness * num_classes // 766).astype(np.uint8)
            return class_map

        return CheckedSession("null", bundle.manifest.contract, {"runtime": "null", "provider": "cpu"}, execute)


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
