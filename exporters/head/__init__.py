"""The decision head: class scores at the network's stride in, uint8 class map at model size out, without writing all scores.

The plain form (bilinear resize, then argmax) writes and reads back C floats a pixel to keep one byte: 30 to 58 % of a small
network's time, and int8 leaves it untouched. Here the same function takes other forms, the fastest one in each runtime
(`exporters.head.choice`). All give the answer of the first maximum; they differ from torch's own only where two scores are equal to
within float rounding.
"""

from exporters.head.banded import BAND_BYTES, BandedHead, ResizeHead
from exporters.head.cells import CellHead, cells_fit
from exporters.head.choice import FASTEST, NO_BYTES, fastest, head_for
from exporters.head.decisions import DECISIONS
from exporters.head.interpolation import bilinear_matrix
from exporters.head.whole import WholeHead

__all__ = [
    "BAND_BYTES", "DECISIONS", "FASTEST", "NO_BYTES", "BandedHead", "CellHead", "ResizeHead", "WholeHead", "bilinear_matrix", "cells_fit",
    "fastest", "head_for",
]
