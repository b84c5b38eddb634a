"""Labelled images: where they lie, whether they are sound, and how training sees them (numpy and Pillow only)."""
