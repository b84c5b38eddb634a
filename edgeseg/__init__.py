"""edgeseg: compact image segmentation, from labelled images to verified models on devices."""

__version__ = "0.1.0"
