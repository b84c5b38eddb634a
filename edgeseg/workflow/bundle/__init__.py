"""Sealed bundles: from a run's checkpoint, or from a model that was trained elsewhere."""
