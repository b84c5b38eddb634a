"""Starting weights of an encoder, from a file with the reference's key names. Never needed once there is a checkpoint."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.core.encoders import encoder_of, find_encoder_weights
from edgeseg.core.errors import ConfigError
from edgeseg.models.encoders.base import Encoder


@runtime_checkable
class TakesClassifier(Protocol):
    """A part of a network that the reference's classifier, which an encoder leaves out, can start."""

    def take_classifier(self, weights: Mapping[str, Tensor]) -> None:
        """Take what fits among tensors by the reference's names."""
        ...


def load_encoder_weights(net: nn.Module, section: ModelSection) -> None:
    """Put the weights that `[model] encoder_weights` names into `net.encoder`, in place; "" leaves it as it is.

    Keys of the reference's classifier are ignored, but by parts of the network that take them (`TakesClassifier`).

    Raises:
        ConfigError: weights of another architecture (names the first keys that do not fit), values that are not finite, no weights file.
        MissingExtraError: the package that carries them is not installed.
        InputMissingError: no such file.
    """
    path = find_encoder_weights(section)
    if path is None:
        return
    encoder = net.get_submodule("encoder")
    assert isinstance(encoder, Encoder)
    where = f"[model] encoder_weights: {path.name}"
    found = read_weights(path, where)
    given = {key: value for key, value in found.items() if not key.startswith(encoder.head_keys)}
    wanted = encoder.state_dict()
    shapes = [
        f"{key} {list(value.shape)}, not {list(wanted[key].shape)}"
        for key, value in given.items() if key in wanted and value.shape != wanted[key].shape
    ]
    faults = [
        *_fault("lacks", [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]),
        *_fault("has the unknown", [key for key in given if key not in wanted]),
        *_fault("has another shape of", shapes),
    ]
    if faults:
        narrowed = section.width != 1 and section.task == "semantic"  # Mask R-CNN's encoder keeps its width
        wide = f" at width {section.width:g}" if narrowed else ""
        hint = "; published weights are of width 1: set width = 1, or encoder_weights = \"\"" if narrowed and len(shapes) else ""
        raise ConfigError(f"{where} does not fit {encoder_of(section)}{wide}: it {'; it '.join(faults)}{hint}")
    broken = [key for key, value in found.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise ConfigError(f"{where} holds values that are not finite, first in {broken[0]}; fetch the file again")
    encoder.load_state_dict(given, strict=False)
    for module in net.modules():
        if isinstance(module, TakesClassifier):
            module.take_classifier(found)


def read_weights(path: Path, where: str) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file or a torch pickle, which may hold nothing but tensors.

    Raises:
        ConfigError: damaged, or not a table of tensors; `where` opens the message.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that cannot be read it first warns; the error says enough
            found = load_file(path) if path.suffix.lower() == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(f"{where} cannot be read as tensors alone: it is damaged (get it again), or a whole model was saved "
                          "(save net.state_dict() instead)") from error
    except (RuntimeError, EOFError, ValueError, KeyError, SafetensorError) as error:
        size = path.stat().st_size
        raise ConfigError(f"{where} is damaged, cut off or no file of weights ({size} bytes); get it again") from error
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        inside = f" (it holds {', '.join(map(str, list(found)[:3]))})" if isinstance(found, dict) else ""
        raise ConfigError(f"{where} is no table of tensors{inside}; save net.state_dict() alone")
    return {str(key): value for key, value in found.items()}


def _fault(verb: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    return [f"{verb} {keys[0]}{f' and {len(keys) - 1} more' if len(keys) > 1 else ''}"]
