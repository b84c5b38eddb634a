"""The kinds of files that can be imported. Adding one = one new file beside this one + one line in `SOURCES`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgeseg.core.errors import ConfigError, InputMissingError, require_path
from edgeseg.core.lazy import require
from exporters.imported.base import Source
from exporters.imported.keras import KerasSource
from exporters.imported.onnx import OnnxSource
from exporters.imported.openvino import OpenVinoSource
from exporters.imported.saved_model import FrozenGraphSource, SavedModelSource
from exporters.imported.tflite import TfliteSource

SOURCES: Final[dict[str, Source]] = {
    "ONNX": OnnxSource(),
    "OpenVINO IR": OpenVinoSource(),
    "TFLite": TfliteSource(),
    "TensorFlow SavedModel": SavedModelSource(),
    "TensorFlow frozen graph": FrozenGraphSource(),
    "Keras": KerasSource(),
}
"""Kind, as messages call it -> what reads it."""

_HEAVY: Final = {("TensorFlow SavedModel", "tflite"): ("tensorflow", "tensorflow")}
"""Kind and format -> a package that only they need, and its extra."""
_KINDS: Final = ".onnx, .xml (OpenVINO IR), .tflite, a TensorFlow SavedModel folder, .pb (a frozen graph), .keras or .h5"


def find_source(path: Path) -> tuple[str, Source]:
    """Give the kind of a file or folder and what reads it.

    Raises:
        InputMissingError: it does not exist, or is of no kind known here.
    """
    require_path(path, what="model")
    for kind, source in SOURCES.items():
        if source.claims(path):
            return kind, source
    hint = ""
    if path.suffix.lower() in (".pt", ".pth", ".safetensors", ".ckpt"):
        hint = "; a file of PyTorch weights holds no graph: name the code that builds it, [model] factory = 'package.module:function'"
    elif path.suffix.lower() == ".bin":
        hint = f"; of an OpenVINO IR name the graph: {path.with_suffix('.xml').name}"
    elif path.name == "saved_model.pb":
        hint = f"; of a SavedModel name the folder: {path.parent}"
    elif path.is_dir():
        hint = "; a SavedModel folder holds saved_model.pb"
    raise InputMissingError(f"{path} is no model that can be imported{hint}; one of {_KINDS}")


def refuse_format(path: Path, kind: str, source: Source, wanted: str) -> str:
    """Give the format to write: `wanted`, or the source's own where that is "".

    Raises:
        ConfigError: the source cannot become that format; says why and what it can become.
    """
    possible = [name for name, reason in source.formats.items() if not reason]
    if not wanted:
        return possible[0]
    if wanted not in source.formats:
        raise ConfigError(f"--format {wanted} is unknown; one of {', '.join(source.formats)}")
    if (kind, wanted) in _HEAVY:
        package, extra = _HEAVY[kind, wanted]
        require(package, extra=extra)  # now, and not after minutes of asking the original
    if source.formats[wanted]:
        raise ConfigError(f"{path.name} ({kind}) cannot become {wanted}: {source.formats[wanted]}; it can become {', '.join(possible)}")
    return wanted
