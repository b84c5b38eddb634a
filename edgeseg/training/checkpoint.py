"""Checkpoints: `weights.safetensors` + `checkpoint.json` in one folder, written atomically. Host only; devices get bundles."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save
from torch import nn

from edgeseg.core.config import ModelSection
from edgeseg.core.errors import InputMissingError, TrainingError
from edgeseg.core.files import atomic_folder, parse_json, sha256_file, sha256_json, write_json
from edgeseg.core.manifest import Contract
from edgeseg.models import ChannelShapes, apply_channel_shapes, build, channel_shapes

SCHEMA: Final = 1
META_NAME: Final = "checkpoint.json"
WEIGHTS_NAME: Final = "weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class CheckpointMeta:
    """What is known about trained weights. Holds no time and no path, so equal training gives equal checkpoints."""

    model: ModelSection
    num_classes: int
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    contract: Contract
    config_sha256: str
    dataset: str
    dataset_sha256: str
    metrics: dict[str, float] = field(default_factory=dict)
    """For instance `val_miou` and `epoch`."""
    channels: ChannelShapes = field(default_factory=dict)
    """Channel counts of every layer as they are (after pruning); filled in by `save_checkpoint`."""
    tools: dict[str, str] = field(default_factory=dict)
    """Versions that trained it; filled in by `save_checkpoint`."""
    weights_sha256: str = ""
    """Hash of the weights file; filled in by `save_checkpoint`."""
    schema: int = SCHEMA


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, its weights not yet read."""

    folder: Path
    meta: CheckpointMeta

    @property
    def sha256(self) -> str:
        """Identity: the hash of the metadata, which holds the hash of the weights."""
        return sha256_json(dataclasses.asdict(self.meta))


def save_checkpoint(folder: Path, net: nn.Module, meta: CheckpointMeta) -> Checkpoint:
    """Write `net` and `meta` to `folder`, which appears complete or not at all."""
    # copies, since a network of the user's may use one tensor in two places, which the file format does not know
    weights = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in net.state_dict().items()}
    with atomic_folder(folder) as temporary:
        (temporary / WEIGHTS_NAME).write_bytes(save(weights))  # by ourselves: a full disk stays an OSError
        meta = dataclasses.replace(
            meta, model=meta.model.portable, channels=channel_shapes(net), weights_sha256=sha256_file(temporary / WEIGHTS_NAME),
            tools={"torch": torch.__version__, "python": platform.python_version()},
        )
        write_json(temporary / META_NAME, dataclasses.asdict(meta))
    return Checkpoint(folder, meta)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the metadata of a checkpoint.

    Raises:
        InputMissingError: no checkpoint there.
        TrainingError: its metadata is damaged or of an unknown schema.
    """
    path = folder / META_NAME
    try:
        raw = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputMissingError(f"{folder} is not a checkpoint (no {META_NAME}); make one with: edgeseg train") from error
    except ValueError as error:
        raise TrainingError(f"{path}: not valid JSON ({error}); train again with: edgeseg train") from error
    return Checkpoint(folder, _meta(raw, path))


def load_checkpoint(folder: Path) -> tuple[nn.Module, CheckpointMeta]:
    """Build the network with its channels after pruning, load the weights; evaluation mode, on the CPU.

    Raises:
        InputMissingError: no checkpoint there.
        TrainingError: damaged, changed, or of an unknown schema.
    """
    meta = open_checkpoint(folder).meta
    path = folder / WEIGHTS_NAME
    if not path.is_file() or sha256_file(path) != meta.weights_sha256:
        raise TrainingError(f"{path} is missing or was changed (SHA-256 differs from {META_NAME}); train again with: edgeseg train")
    net = build(meta.model, meta.num_classes)
    try:
        apply_channel_shapes(net, meta.channels)
        net.load_state_dict(load_file(path))
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"{folder}: weights do not fit {meta.model.title} ({reason}); train again with: edgeseg train") from error
    return net.eval(), meta


def _meta(raw: Any, path: Path) -> CheckpointMeta:  # noqa: ANN401 - JSON
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        got = raw.get("schema") if isinstance(raw, dict) else None
        raise TrainingError(f"{path}: schema {got!r} is unknown; this edgeseg reads schema {SCHEMA}; train again with: edgeseg train")
    try:
        return CheckpointMeta(**{
            **raw,
            "model": ModelSection(**raw["model"]),
            "contract": Contract(**raw["contract"]),
            "classes": tuple(raw["classes"]),
            "palette": tuple((int(r), int(g), int(b)) for r, g, b in raw["palette"]),
        })
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path}: a field is missing or unknown ({error}); train again with: edgeseg train") from error
