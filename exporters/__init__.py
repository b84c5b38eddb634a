"""From a network to a bundle's model files: one format, one file; the contract is inside the graph."""

from exporters.base import Exporter
from exporters.registry import EXPORTERS

__all__ = ["EXPORTERS", "Exporter"]
