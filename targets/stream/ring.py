"""The arrays of the frames under way, which come again: model inputs, and where their answers go.

A runner binds an array that comes again once (`targets.runtimes.again`), and its memory is there already.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from edgeseg.core.images import ClassMap, Frame, Placement
from edgeseg.core.instances import Answer
from edgeseg.core.manifest import Contract
from targets.runtimes.base import Session


def answer_array(contract: Contract) -> ClassMap | None:
    """Give memory for a class map at model size; `None` for a model that answers with objects."""
    return np.empty((contract.height, contract.width), np.uint8) if contract.task == "semantic" else None


class Arrays:
    """What one frame needs: as many model inputs as it has windows, each with the class map that answers it."""

    def __init__(self, contract: Contract) -> None:
        """Have none yet."""
        self._contract = contract
        self._inputs: list[Frame] = []
        self._answers: list[ClassMap | None] = []

    def room(self, placement: Placement) -> list[Frame]:
        """Give arrays for the model inputs of a frame; the same ones each time."""
        h, w = self._contract.height, self._contract.width
        while len(self._inputs) < len(placement.windows):
            self._inputs.append(np.empty((h, w, 3), np.uint8))
            self._answers.append(answer_array(self._contract))
        return self._inputs[: len(placement.windows)]

    def run(self, session: Session, window: int, frame_HWC: Frame) -> Answer:
        """Answer the model input of a window; a class map holds until this is called for that window again."""
        return session.run(frame_HWC, self._answers[window])


class Ring:
    """Arrays that are not in use. Those of a frame are its own until they are given back, so there are as many as frames are under way.

    Any thread may take and give back. What is never given back, of a frame that failed, is no loss but of its memory, while it is held.
    """

    def __init__(self, contract: Contract) -> None:
        """Have none yet."""
        self._contract = contract
        self._spare: deque[Arrays] = deque()

    def take(self) -> Arrays:
        """Give the arrays that were given back last, or new ones."""
        try:
            return self._spare.pop()
        except IndexError:
            return Arrays(self._contract)

    def give_back(self, arrays: Arrays) -> None:
        """Let another frame have them; nobody looks at them any more."""
        self._spare.append(arrays)
