"""Structured pruning: which channels move together, how they are scored, how far to cut."""

from edgeseg.pruning.importances import IMPORTANCES, Losses
from edgeseg.pruning.layers import LayerShape, layer_shapes
from edgeseg.pruning.prune import SCOPES, LayerChannels, Pruner, PruneReport, check_macs_share, cut_to_macs, prune, report
from edgeseg.pruning.search import LayerCost

__all__ = [
    "IMPORTANCES", "SCOPES", "LayerChannels", "LayerCost", "LayerShape", "Losses", "PruneReport", "Pruner", "check_macs_share",
    "cut_to_macs", "layer_shapes", "prune", "report",
]
