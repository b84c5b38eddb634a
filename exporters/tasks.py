"""What is traced, by the contract's task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import nn

from edgeseg.core.manifest import Contract
from exporters.base import Exportable
from exporters.instances import InstanceExportable
from exporters.semantic import SemanticExportable

EXPORTABLES: Final[dict[str, Callable[[nn.Module, Contract, str], Exportable]]] = {
    "semantic": SemanticExportable,
    "instance": InstanceExportable,
}


def exportable(net: nn.Module, contract: Contract, format: str) -> Exportable:
    """Prepare a copy of `net` for tracing; see `exporters.base.Exporter` for what is raised."""
    return EXPORTABLES[contract.task](net, contract, format)
