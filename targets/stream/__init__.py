"""Frames through a pipeline: decode and resize, inference, output, side by side, with as many in between as were allowed."""
