"""`[model] factory`: a network of the user's own, built by a function of theirs."""

from __future__ import annotations

import copy
import difflib
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import torch
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.core.errors import ConfigError, EdgesegError, telling_line
from edgeseg.core.factory import factory_names, no_module
from edgeseg.models.keras_network import KerasNetwork
from edgeseg.models.outputs import Outputs

_NO_MEANING: Final = ("name", "width", "depth", "encoder", "encoder_weights")
"""Keys that say something about our networks only."""


def build(section: ModelSection, num_classes: int) -> nn.Module:
    """Import "package.module:function" and call it with the number of classes.

    Modules are looked for among the installed packages, then in the current folder. A Keras model is wrapped (`KerasNetwork`).

    Raises:
        ConfigError: not of that form, not importable, it fails, or what it gives is no `nn.Module`.
    """
    where = f"[model] factory = '{section.factory}'"
    check_keys(section)
    module_name, function_name = factory_names(section)
    module = _import(module_name, section)
    function = getattr(module, function_name, None)
    if not callable(function):
        near = difflib.get_close_matches(function_name, [name for name in vars(module) if callable(getattr(module, name))], n=1)
        raise ConfigError(f"{where}: {module_name} has no function '{function_name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    try:
        net = function(num_classes)
    except EdgesegError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: {function_name}({num_classes}) failed with {type(error).__name__}: {telling_line(error)}") from error
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(net, keras.Model):
        return KerasNetwork(net)
    if not isinstance(net, nn.Module):
        raise ConfigError(f"{where}: {function_name}({num_classes}) gave {_kind(net)}; it has to give a torch.nn.Module")
    return net


def check_keys(section: ModelSection) -> None:
    """Refuse what says something about our networks only.

    Raises:
        ConfigError: names the first such key that is set.
    """
    where, plain = f"[model] factory = '{section.factory}'", ModelSection()
    for key in _NO_MEANING:
        if getattr(section, key) != getattr(plain, key):
            raise ConfigError(f"{where} and {key} = {getattr(section, key)!r}: a factory decides that itself; leave {key} out")


def _import(name: str, section: ModelSection) -> ModuleType:
    where = f"[model] factory = '{section.factory}'"
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file of the user's must not hide an installed package
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise no_module(section, missing) from error
        raise ConfigError(f"{where}: importing {name} needs '{missing}', which is not installed") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: importing {name} failed with {type(error).__name__}: {telling_line(error)}") from error


def check_scores(net: nn.Module, section: ModelSection, num_scores: int, *, size_hw: tuple[int, int], crop_hw: tuple[int, int]) -> None:
    """Run a network of the user's once as it will be trained (at `crop_hw`) and once as it will answer (at `size_hw`), on the CPU.

    Networks of our own pass unasked: their tests have done it. `net` is not changed.

    Raises:
        ConfigError: it cannot be copied, it fails, or what it gives is not class scores [N, num_scores, h, w].
    """
    if not section.factory:
        return
    where = f"[model] factory = '{section.factory}'"
    try:
        copied = copy.deepcopy(net).cpu()
    except Exception as error:  # the user's own module may raise anything
        raise ConfigError(f"{where}: the network cannot be copied ({type(error).__name__}: {telling_line(error)})") from error
    for training, (height, width) in ((True, crop_hw), (False, size_hw)):
        frames_NCHW = torch.rand(2 if training else 1, 3, height, width, generator=torch.Generator().manual_seed(0))
        doing = f"{'training' if training else 'evaluation'} on frames {list(frames_NCHW.shape)}"
        try:
            with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(training):
                given = copied.train(training)(frames_NCHW)
        except EdgesegError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{where}: {doing} failed with {type(error).__name__}: {telling_line(error)}") from error
        scores = given.main if training and isinstance(given, Outputs) else given
        expected = f"expected class scores as a float tensor [{len(frames_NCHW)}, {num_scores}, h, w], h and w at most {height}, {width}"
        if not isinstance(scores, Tensor) or not scores.is_floating_point():
            raise ConfigError(f"{where}: {doing} gave {_kind(given)}; {expected}")
        fits = scores.ndim == 4 and scores.shape[0] == len(frames_NCHW) and scores.shape[1] == num_scores
        if not fits or not 1 <= scores.shape[2] <= height or not 1 <= scores.shape[3] <= width:
            raise ConfigError(f"{where}: {doing} gave {list(scores.shape)}; {expected}")
        if training and not scores.requires_grad:
            raise ConfigError(f"{where}: its scores hang on no parameter that trains; leave requires_grad on, do not detach them")
        if not bool(torch.isfinite(scores).all()):
            raise ConfigError(f"{where}: {doing} gave scores that are not finite; look at how it starts its weights")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, dict):
        return f"a dict ({', '.join(map(str, list(value)[:3]))})"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
