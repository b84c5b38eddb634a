"""What was made for arrays that come again, as those of `targets.stream.ring` do.

To bind arrays takes a few microseconds in a loop of its own, and 75 between two frames of 6 ms each (int8 Fast-SCNN on an x86-64): by then
the processor has forgotten the code for it. For the same reason nothing here is more general than it has to be.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
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
        self._made: dict[tuple[int, int], tuple[weakref.ref[NDArray[Any]], weakref.ref[NDArray[Any]], Made | None]] = {}

    def of(self, frame: NDArray[Any], answer: NDArray[Any], make: Callable[[NDArray[Any], NDArray[Any]], Made]) -> Made | None:
        """Give what `make` made for exactly these arrays when they came for the second time; `None` at their first.

        To make it costs more than to bind them once, and most arrays that come once do not come again.
        """
        key = id(frame), id(answer)
        found = self._made.get(key)
        if found is not None and found[0]() is frame and found[1]() is answer:  # else they lie where others lay
            if found[2] is not None:
                return found[2]
            made = make(frame, answer)
            self._made[key] = found[0], found[1], made
            return made
        if len(self._made) >= _MOST:
            self._made.clear()
        self._made[key] = weakref.ref(frame), weakref.ref(answer), None
        return None
