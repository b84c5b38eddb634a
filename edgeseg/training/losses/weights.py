"""Class weights, counted from the training labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.images import ClassMap


def class_weights(labels: Iterable[ClassMap], *, num_classes: int, rule: str) -> NDArray[np.float32]:
    """Class weights from the training labels.

    `median_frequency` (Eigen and Fergus, 1411.4734): weight_c = median(freq) / freq_c with freq_c = pixels of c / labelled pixels of
    the frames that hold c; `sqrt_median_frequency` its square root; `none` ones. A class that never occurs gets 1.
    """
    pixels, seen_in = np.zeros(num_classes), np.zeros(num_classes)
    if rule == "none":
        return np.ones(num_classes, dtype=np.float32)
    for label in labels:
        counts = np.bincount(label.reshape(-1), minlength=256)[:num_classes]
        pixels += counts
        seen_in += (counts > 0) * counts.sum()
    weights = np.ones(num_classes)
    present = pixels > 0
    frequency = pixels[present] / seen_in[present]
    weights[present] = np.median(frequency) / frequency
    if rule == "sqrt_median_frequency":
        weights = np.sqrt(weights)
    return weights.astype(np.float32)
