"""The distillers. Adding one = one new file beside this one + one line in `DISTILLERS` + its name in `edgeseg.core.config`."""

from __future__ import annotations

from typing import Final

from edgeseg.training.distill.base import Distiller
from edgeseg.training.distill.cwd import cwd
from edgeseg.training.distill.kd import kd

DISTILLERS: Final[dict[str, Distiller]] = {
    "cwd": cwd,
    "kd": kd,
}
"""Name in `[train] distiller` -> distiller."""
