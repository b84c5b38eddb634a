"""What is traced of a network that finds objects: all of it, from the frame to boxes and masks, is in the graph of every format.

Legend: K = slots.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import DETECTIONS_NAME, MASKS_NAME, Contract
from edgeseg.models import normalise
from edgeseg.models.mask_rcnn import MaskRcnn, as_bytes
from exporters.base import Exportable
from exporters.stem import fold_normalisation


class InstanceExportable(Exportable):
    """Gives `detections` float32 [K, 6] and `masks` uint8 [K, 28, 28]; the same graph for every format."""

    output_names = (DETECTIONS_NAME, MASKS_NAME)

    def __init__(self, net: nn.Module, contract: Contract, format: str) -> None:
        """Prepare `net` for the contract.

        Raises:
            ConfigError: the network gives class scores, or another number of slots than the contract has.
        """
        if not isinstance(net, MaskRcnn):
            raise ConfigError("the contract's task is 'instance' and this network gives a class a pixel; set [model] name = \"mask_rcnn\"")
        if net.max_instances != contract.max_instances:
            raise ConfigError(f"the network finds {net.max_instances} objects and the contract has {contract.max_instances} slots; "
                              "set [model] max_instances to what it was trained with")
        super().__init__(net, contract)
        self.frame_hw = (contract.height, contract.width)
        self.stem = fold_normalisation(_FirstStage(self.detector), self.example()[0])
        with torch.no_grad():
            self(self.example()[0])  # anchors of this size are constants from here on
        self.freeze()

    @property
    def detector(self) -> MaskRcnn:
        """The network."""
        assert isinstance(self.net, MaskRcnn)
        return self.net

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Answer one frame."""
        x_NCHW = normalise(frame) if self.stem is None else self.stem(frame)
        found_K6, masks = self.detector.detect(x_NCHW, self.frame_hw)
        return found_K6, as_bytes(masks)


class _FirstStage(nn.Module):
    """All that the encoder is used for, as one tensor: what must stay as it is when the normalisation is folded."""

    def __init__(self, net: MaskRcnn) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_NCHW: Tensor) -> Tensor:
        regions = self.net.regions(x_NCHW)
        return torch.cat([part.flatten() for part in (*regions.levels, regions.scores_NA, regions.deltas_NA4)])
