"""Mask R-CNN: boxes, classes and masks of objects; see `network` for the paper and the whole, the other files for its parts."""

from edgeseg.models.mask_rcnn.contract import InstanceContractModule, as_bytes
from edgeseg.models.mask_rcnn.network import MaskRcnn, Regions, build

__all__ = ["InstanceContractModule", "MaskRcnn", "Regions", "as_bytes", "build"]
