"""Training batches. Order and augmentation are functions of (seed, epoch, position) alone, so a resumed run sees what it would have seen.

Random numbers come from Philox, a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the key is
the seed, the counter holds epoch, position and what the numbers are for. No generator state has to be saved, and threads cannot disturb it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.config import AugmentSection
from edgeseg.data.augment import augment
from edgeseg.data.store import FrameStore

T = TypeVar("T")

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


def augmentation_generator(seed: int, *, epoch: int, position: int) -> np.random.Generator:
    """Give the generator that augments the frame at `position` of an epoch."""
    return generator(seed, purpose=_AUGMENT, epoch=epoch, index=position)


def epoch_order(length: int, *, seed: int, epoch: int) -> list[int]:
    """Sample indices in the order of `epoch`: a permutation drawn from (seed, epoch)."""
    return [int(i) for i in generator(seed, purpose=_ORDER, epoch=epoch).permutation(length)]


def batches_per_epoch(length: int, batch_size: int) -> int:
    """How many batches `batches` gives: whole ones only, but at least one."""
    return max(1, length // batch_size) if length else 0


def slice_positions(number: int, batch_size: int, part: tuple[int, int]) -> range:
    """Positions in an epoch of the slice `part` = (rank, count) of batch `number`; slices are of one size."""
    rank, count = part
    share = batch_size // count
    start = number * batch_size + rank * share
    return range(start, start + share)


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
    resizer: str = "pillow",
    num_workers: int = 1,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Give the batches of one epoch, prepared ahead on `num_workers` threads (0 = when asked for).

    `model_hw`, `resize` and `resizer` are `[data] size`, `resize` and `resizer`: frames of any size are trained on as the device will see
    them.
    An incomplete last batch is dropped; a store smaller than one batch is repeated (each time augmented afresh) to fill it.
    What comes out does not depend on `num_workers`. With `part` = (rank, count) each batch is that slice of the whole batch.
    """
    order = epoch_order(len(store), seed=seed, epoch=epoch)

    def prepare(number: int) -> Batch:
        positions = slice_positions(number, batch_size, part)
        picks = [order[position % len(order)] for position in positions]
        frames = np.empty((len(picks), *crop_hw, 3), dtype=np.uint8)
        labels = np.empty((len(picks), *crop_hw), dtype=np.uint8)
        for row, (position, pick) in enumerate(zip(positions, picks, strict=True)):
            rng = augmentation_generator(seed, epoch=epoch, position=position)
            frame, label = store[pick]
            frames[row], labels[row] = augment(
                frame, label, crop_hw=crop_hw, section=section, rng=rng, model_hw=model_hw, resize=resize, resizer=resizer
            )
        return Batch(frames, labels, tuple(store.samples[pick].id for pick in picks))

    return prepared(prepare, batches_per_epoch(len(store), batch_size), num_workers=num_workers)


def prepared(prepare: Callable[[int], T], total: int, *, num_workers: int) -> Iterator[T]:
    """Give `prepare(0)`, `prepare(1)`, ... `total` of them, in order, made ahead on `num_workers` threads (0 = when asked for)."""
    if num_workers == 0:
        yield from map(prepare, range(total))
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="edgeseg-loader")
    waiting: deque[Future[T]] = deque()
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
