"""What a run needs to go on after it was killed: `last/state.safetensors` + `last/state.json`, replaced as one folder each epoch.

Order, augmentation, dropout and learning rate are functions of seed, epoch and step, so no generator state is kept: an epoch done
again gives the same bits (on a CPU, with the same number of threads and the same torch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from edgeseg.core.errors import TrainingError
from edgeseg.core.files import atomic_folder, read_json, sha256_file, write_json

SCHEMA: Final = 2
_TENSORS, _JSON = "state.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """What one epoch gave."""

    epoch: int
    """From 1."""
    loss: float
    """Mean over its steps."""
    score: float | None = None
    """On the val split, 0..1; `None` where the epoch was not validated."""


@dataclass(kw_only=True)
class Progress:
    """Counters of a run; everything in here is a function of config and data, never of time."""

    epochs_done: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    metric: str = ""
    """Name of the score; empty before the first validation."""
    history: list[EpochRecord] = field(default_factory=list)


def save_state(folder: Path, *, identity: Mapping[str, Any], progress: Progress, net: nn.Module, ema: nn.Module | None,
               optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    """Write the state; `folder` holds the previous one or this one, whenever the process dies."""
    tensors: dict[str, Tensor] = {f"net.{name}": value for name, value in net.state_dict().items()}
    if ema is not None:
        tensors |= {f"ema.{name}": value for name, value in ema.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
    with atomic_folder(folder) as temporary:
        data = save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()})
        (temporary / _TENSORS).write_bytes(data)  # by ourselves: a full disk stays an OSError
        write_json(temporary / _JSON, {
            "schema": SCHEMA, "identity": dict(identity), "progress": asdict(progress), "scaler": scaler.state_dict(),
            "tensors_sha256": sha256_file(temporary / _TENSORS),
        })


def load_state(folder: Path, *, identity: Mapping[str, Any], net: nn.Module, ema: nn.Module | None, optimizer: torch.optim.Optimizer,
               scaler: torch.amp.GradScaler, again: str) -> Progress | None:
    """Load the state into the objects given; `None` where there is no state yet. Writes nothing; call `recover` before.

    `again` is the command that drops the state and begins again, for messages.

    Raises:
        TrainingError: the state belongs to another configuration (says what differs), to another edgeseg, or is damaged.
    """
    if not folder.is_dir():
        return None
    try:
        raw = read_json(folder / _JSON)
        if raw["schema"] != SCHEMA:
            raise TrainingError(f"{folder} was written by another version of edgeseg (schema {raw['schema']}, this one has {SCHEMA}); "
                                f"begin again with: {again}")
        if sha256_file(folder / _TENSORS) != raw["tensors_sha256"]:
            raise ValueError("its bytes were changed")
        was = raw["identity"]
        progress = Progress(**{**raw["progress"], "history": [EpochRecord(**record) for record in raw["progress"]["history"]]})
        tensors = load_file(folder / _TENSORS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder} is damaged ({error}); begin again with: {again}") from error
    different = [f"{key} was {was.get(key)!r}, now {identity.get(key)!r}" for key in sorted({*was, *identity})
                 if was.get(key) != identity.get(key)]
    if different:
        more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
        raise TrainingError(f"{folder} is of another configuration: {'; '.join(different[:3])}{more}; "
                            f"set it back to go on, or begin again with: {again}")
    net.load_state_dict(_part(tensors, "net."))
    if ema is not None:
        ema.load_state_dict(_part(tensors, "ema."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer.").items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    scaler.load_state_dict(raw["scaler"])
    return progress


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}


def recover(folder: Path) -> None:
    """Put the previous state back where the process died between the two renames of `atomic_folder`."""
    retired = sorted(folder.parent.glob(f".{folder.name}.*.old"), key=lambda path: path.stat().st_mtime_ns)
    if retired and not folder.exists():
        retired[-1].rename(folder)
