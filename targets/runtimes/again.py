"""What was made for arrays that come again, as those of a camera's ring or a pipeline do.

To bind arrays takes a few microseconds in a loop of its own, and 75 between two frames of 6 ms each (int8 Fast-SCNN on an x86-64): by then
the processor has forgotten the code for it. For the same reason nothing here is more general than it has to be.
"""

from __future__ import annotations

import weakref
from typing import Any, Final, Generic, TypeVar

from numpy.typing import NDArray

Made = TypeVar("Made")
_MOST: Final = 64


class Again(Generic[Made]):
    """Remembers what was made for up to 64 pairs of a frame and the array its answer goes to, and keeps no array alive.

    What was made must not keep them alive either, and is not to be used after one of them is gone.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._made: dict[tuple[int, int], tuple[weakref.ref[NDArray[Any]], weakref.ref[NDArray[Any]], Made]] = {}

    def find(self, frame: NDArray[Any], answer: NDArray[Any]) -> Made | None:
        """Give what was made for exactly these arrays; `None` where nothing was."""
        found = self._made.get((id(frame), id(answer)))
        if found is not None and found[0]() is frame and found[1]() is answer:  # else they lie where others lay
            return found[2]
        return None

    def keep(self, frame: NDArray[Any], answer: NDArray[Any], made: Made) -> None:
        """Remember what was made for these arrays."""
        if len(self._made) >= _MOST:
            self._made.clear()
        self._made[id(frame), id(answer)] = weakref.ref(frame), weakref.ref(answer), made
