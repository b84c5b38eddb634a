"""The lowest rung: torch's own answers, class scores and every tensor on the way, from the very module that is traced for export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.images import ClassMap, Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract


class TorchRung:
    """A checkpoint that answers frames at model size."""

    def __init__(self, checkpoint: Path, contract: Contract) -> None:
        """Load the checkpoint."""
        require("torch", extra="export")
        from edgeseg.training.checkpoint import load_checkpoint
        from edgeseg.training.evaluate import torch_predictor

        net, _ = load_checkpoint(checkpoint)
        self._net, self._contract = net, contract
        self._answer: Callable[[Frame], ClassMap] = torch_predictor(net, contract, device="cpu")

    def answer(self, frame_HWC: Frame) -> ClassMap:
        """Class map of a frame."""
        return self._answer(frame_HWC)

    def scores(self, frame_HWC: Frame) -> NDArray[Any]:
        """Class scores [1, C, h, w] at the network's own stride."""
        import torch

        with torch.no_grad():
            return np.array(self._exportable("onnx").scores(torch.from_numpy(frame_HWC[None].copy())).numpy(), dtype=np.float32)

    def tensors(self, frame_HWC: Frame, format_: str) -> list[tuple[str, NDArray[Any]]]:
        """Every float tensor of the form that is exported to `format_`, called after its operator, in order."""
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        found: list[tuple[str, NDArray[Any]]] = []

        class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
                out = func(*args, **(kwargs or {}))
                if isinstance(out, torch.Tensor) and out.dtype == torch.float32 and out.dim() >= 2:
                    found.append((f"torch {func.__name__.split('.')[0]} #{len(found)}", np.array(out.detach().numpy(), dtype=np.float32)))
                return out

        exportable = self._exportable(format_)
        with torch.no_grad(), Recorder():  # type: ignore[no-untyped-call]
            exportable(torch.from_numpy(frame_HWC[None].copy()))
        return found

    def _exportable(self, format_: str) -> Any:  # noqa: ANN401 - a torch module
        from exporters.semantic import SemanticExportable

        return SemanticExportable(self._net, self._contract, format_)
