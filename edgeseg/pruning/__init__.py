"""Structured pruning: which channels move together, how they are scored, how far to cut."""

from edgeseg.pruning.prune import LayerChannels, PruneReport, prune

__all__ = ["LayerChannels", "PruneReport", "prune"]
