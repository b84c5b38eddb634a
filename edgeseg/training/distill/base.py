"""What a distiller is.

Legend, for every file beside this one: N = frames, C = classes, h/w = rows/columns of the student's scores, T = temperature.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Distiller = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(student_NChw, teacher_NChw of any float type, counts_Nhw bool = where there is something to learn, T) -> scalar.

Scores before the softmax, of one size; a gradient for the student alone. Where nothing counts it is 0, with a gradient of 0."""
