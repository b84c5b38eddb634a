"""Training batches. Order and augmentation are functions of (seed, epoch, position) alone, so a resumed run sees what it would have seen.

Random numbers come from Philox, a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the key is
the seed, the counter holds epoch, position and what the numbers are for. No generator state has to be saved, and threads cannot disturb it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.config import AugmentSection
from edgeseg.data.augment import augment
from edgeseg.data.store import FrameStore

_ORDER: Final = 1
_AUGMENT: Final = 2


@dataclass(frozen=True)
class Batch:
    """`frames_NHWC` uint8 RGB, `labels_NHW` uint8 (255 = ignore), and the samples they were cut from."""

    frames_NHWC: NDArray[np.uint8]
    labels_NHW: NDArray[np.uint8]
    ids: tuple[str, ...]


def generator(seed: int, *, purpose: int, epoch: int, index: int = 0) -> np.random.Generator:
    """Give the generator of one place in a run; the lowest word of Philox's counter is left to it."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, purpose, epoch, index]))


def epoch_order(length: int, *, seed: int, epoch: int) -> list[int]:
    """Sample indices in the order of `epoch`: a permutation drawn from (seed, epoch)."""
    return [int(i) for i in generator(seed, purpose=_ORDER, epoch=epoch).permutation(length)]


def batches_per_epoch(length: int, batch_size: int) -> int:
    """How many batches `batches` gives: whole ones only, but at least one."""
    return max(1, length // batch_size) if length else 0


def batches(
    store: FrameStore,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    crop_hw: tuple[int, int],
    section: AugmentSection,
    model_hw: tuple[int, int],
    resize: str,
    num_workers: int = 1,
) -> Iterator[Batch]:
    """Give the batches of one epoch, prepared ahead on `num_workers` threads (0 = when asked for).

    `model_hw` and `resize` are `[data] size` and `[data] resize`: frames of any size are trained on at the scale the device will see.
    An incomplete last batch is dropped; a store smaller than one batch is repeated (each time augmented afresh) to fill it.
    What comes out does not depend on `num_workers`.
    """
    order = epoch_order(len(store), seed=seed, epoch=epoch)

    def prepare(number: int) -> Batch:
        positions = range(number * batch_size, (number + 1) * batch_size)
        picks = [order[position % len(order)] for position in positions]
        frames = np.empty((batch_size, *crop_hw, 3), dtype=np.uint8)
        labels = np.empty((batch_size, *crop_hw), dtype=np.uint8)
        for row, (position, pick) in enumerate(zip(positions, picks, strict=True)):
            rng = generator(seed, purpose=_AUGMENT, epoch=epoch, index=position)
            frame, label = store[pick]
            frames[row], labels[row] = augment(frame, label, crop_hw=crop_hw, section=section, rng=rng, model_hw=model_hw, resize=resize)
        return Batch(frames, labels, tuple(store.samples[pick].id for pick in picks))

    total = batches_per_epoch(len(store), batch_size)
    if num_workers == 0:
        yield from map(prepare, range(total))
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="edgeseg-loader")
    waiting: deque[Future[Batch]] = deque()
    try:
        ahead = num_workers + 1
        for number in range(total):
            waiting.append(pool.submit(prepare, number))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the consumer stops early
        pool.shutdown(wait=True, cancel_futures=True)
