"""The seam between edgeseg and an SDK: a `Runtime` opens a bundle, a `Session` turns frames into answers.

A runtime is one file in this folder and one line in `RUNTIMES`. It imports its SDK inside `open`, pins every choice the SDK
would make by itself, and records what was pinned in `Session.settings`. What it cannot do exactly as asked, it refuses.

Legend: H/W = rows/columns at model size, K = slots of an instance model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError, DataError, EdgesegError, RuntimeFailure, raise_vendor_error, telling_line, vendor_errors
from edgeseg.core.images import ClassMap, Frame
from edgeseg.core.instances import MASK_SIZE, Answer, from_outputs
from edgeseg.core.manifest import DETECTIONS_NAME, INPUT_NAME, MASKS_NAME, OUTPUT_NAME, Contract, Manifest
from targets.runtimes.options import RuntimeOptions as RuntimeOptions  # part of this seam


class Session(Protocol):
    """An opened bundle. One thread at a time, or as many as its options have `streams`."""

    @property
    def settings(self) -> Mapping[str, str]:
        """Everything that was pinned, and what the SDK says it executes."""
        ...

    def run(self, frame_HWC: Frame, out: ClassMap | None = None) -> Answer:
        """Answer one frame at model size: a class map uint8 [H, W], or `Instances`, as the contract's task says; the caller owns it.

        A class map goes into `out` (uint8 [H, W], C-contiguous, writeable) where that is given, and is `out` then.

        Raises:
            DataError: not a uint8 frame of the model's size.
            RuntimeFailure: the SDK failed.
            BundleError: the objects found are no objects (not finite, outside the classes).
        """
        ...

    def close(self) -> None:
        """Free what the SDK holds; the session cannot be used afterwards."""
        ...


class Runtime(Protocol):
    """An SDK that executes bundles of some formats."""

    @property
    def formats(self) -> frozenset[str]:
        """Bundle formats it executes."""
        ...

    def version(self) -> str | None:
        """Version installed here, `None` where it is not; imports nothing."""
        ...

    def open(self, bundle: Bundle, options: RuntimeOptions) -> CheckedSession:
        """Load the model and check its input and output against the manifest's contract.

        Raises:
            TargetError: this machine or this SDK cannot run it as asked (format, provider, precision).
            BundleError: the model is not what the manifest says.
            MissingExtraError: the SDK is not installed; names the extra.
            RuntimeFailure: the SDK could not load the model.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output as the model file declares it."""

    name: str | None
    """`None` where the format does not keep names."""
    dtype: str
    """As the SDK spells it, in lower case."""
    shape: tuple[int | str, ...]


Answers = Sequence[NDArray[np.generic]]
"""Arrays for what a model gives, in the order of `contract_outputs`: C-contiguous, writeable, of those dtypes and as many bytes."""
Execute = Callable[[Frame, Answers], None]
"""Answers a C-contiguous uint8 frame [H, W, 3] into arrays that belong to the caller, and keeps no hold of what is in them."""


_UINT8: Final = np.dtype(np.uint8)  # what compares in half the time of `np.uint8`


class CheckedSession:
    """The `Session` every runtime gives: checks the frame, guards the SDK's errors, hands out an answer that is the caller's.

    It costs a few microseconds a call (`python -m benchmarks.session_overhead`).
    """

    def __init__(
        self, vendor: str, manifest: Manifest, settings: Mapping[str, str], execute: Execute, release: Callable[[], None] = lambda: None,
    ) -> None:
        """Wrap `execute`; `release` frees what the SDK holds."""
        contract = manifest.contract
        self.settings: Mapping[str, str] = dict(settings)
        self._vendor = vendor
        self._manifest = manifest
        self._shape = (contract.height, contract.width, 3)
        self._map_shape = (contract.height, contract.width)
        self._semantic = contract.task == "semantic"
        self._execute: Execute | None = execute
        self._release = release

    def run(self, frame_HWC: Frame, out: ClassMap | None = None) -> Answer:
        """See `Session.run`.

        An SDK that can reads the frame where it lies and writes into `out` itself. The session may hold on to both arrays until it is
        called with others, but looks at them during calls only. Arrays that come again cost least.

        Raises:
            DataError: also where `out` is no such array, or the answer no class map.
        """
        if frame_HWC.shape != self._shape or frame_HWC.dtype != _UINT8:  # an SDK that was given a bare pointer would read past it
            raise DataError(
                f"frame {frame_HWC.dtype} {list(frame_HWC.shape)} where the model takes uint8 {list(self._shape)}; "
                "bring it there with edgeseg.core.images.to_model"
            )
        execute = self._execute
        assert execute is not None, "run after close"
        if not self._semantic:
            return self._objects(execute, frame_HWC, out)
        if out is None:
            out = np.empty(self._map_shape, np.uint8)
        elif out.shape != self._map_shape or out.dtype != _UINT8 or not out.flags.carray:
            raise DataError(f"out is {out.dtype} {list(out.shape)}; expected a writeable C-contiguous array uint8 {list(self._map_shape)}")
        try:
            execute(np.ascontiguousarray(frame_HWC), (out,))
        except Exception as error:  # SDKs raise what they like; ours and the system's are passed on
            raise_vendor_error(self._vendor, error)
        return out

    def _objects(self, execute: Execute, frame_HWC: Frame, out: ClassMap | None) -> Answer:
        if out is not None:
            raise DataError(f"{self._manifest.name} answers with objects, which do not fit into a class map; leave out away")
        answers = output_buffers(self._manifest.contract)
        with vendor_errors(self._vendor):
            execute(np.ascontiguousarray(frame_HWC), answers)
        try:
            return from_outputs(answers[0].astype(np.float32, copy=False), answers[1].astype(np.uint8, copy=False),
                                num_classes=len(self._manifest.classes))
        except ValueError as error:
            raise BundleError(f"{self._manifest.name} in {self._vendor}: {error}; export the bundle again") from error

    def close(self) -> None:
        """See `Session.close`; closing twice is allowed."""
        if self._execute is not None:
            self._execute = None
            release, self._release = self._release, lambda: None
            release()


def contract_outputs(contract: Contract) -> tuple[Port, ...]:
    """The outputs a model must have: `class_map`, or `detections` and `masks`; dtypes as numpy spells them."""
    if contract.task == "semantic":
        return (Port(name=OUTPUT_NAME, dtype="uint8", shape=(1, contract.height, contract.width)),)
    slots = contract.max_instances
    return (
        Port(name=DETECTIONS_NAME, dtype="float32", shape=(slots, 6)),
        Port(name=MASKS_NAME, dtype="uint8", shape=(slots, MASK_SIZE, MASK_SIZE)),
    )


def output_buffers(contract: Contract) -> list[NDArray[np.generic]]:
    """Arrays an SDK can write the contract's outputs into."""
    return [np.zeros([int(n) for n in port.shape], dtype=port.dtype) for port in contract_outputs(contract)]


def check_ports(bundle: Bundle, inputs: Sequence[Port], outputs: Sequence[Port]) -> tuple[int, ...]:
    """Compare a model's declared ports with the contract; give the places of the contract's outputs among the model's.

    One uint8 [1, H, W, 3] input and the outputs of `contract_outputs`; further outputs (confidence) are allowed.

    Raises:
        BundleError: anything differs; says what was got and what the contract wants.
    """
    contract = bundle.manifest.contract
    if len(inputs) != 1:
        raise BundleError(f"{_where(bundle)} has {len(inputs)} inputs, the contract one ('{INPUT_NAME}'); export the bundle again")
    wanted = contract_outputs(contract)
    named = {port.name: i for i, port in enumerate(outputs)}
    if len(wanted) == len(outputs) == 1 and outputs[0].name is None:
        named = {wanted[0].name: 0}
    missing = [str(port.name) for port in wanted if port.name not in named]
    if missing:
        got = ", ".join(str(port.name) for port in outputs)
        raise BundleError(f"{_where(bundle)} has the outputs {got}; the contract wants '{missing[0]}'; export the bundle again")
    _check_port(bundle, inputs[0], "input", Port(name=INPUT_NAME, dtype="uint8", shape=(1, contract.height, contract.width, 3)))
    for port in wanted:
        _check_port(bundle, outputs[named[port.name]], "output", port)
    return tuple(named[port.name] for port in wanted)


_SPELLINGS: Final = {"uint8": ("uint8", "tensor(uint8)"), "float32": ("float32", "tensor(float)")}
"""A dtype as numpy and as the SDKs spell it."""


def _check_port(bundle: Bundle, port: Port, kind: str, wanted: Port) -> None:
    if port.name not in (None, wanted.name):
        raise BundleError(f"{_where(bundle)}: {kind} is called '{port.name}', the contract says '{wanted.name}'; export the bundle again")
    if port.dtype not in _SPELLINGS[wanted.dtype] or port.shape != wanted.shape:
        raise BundleError(
            f"{_where(bundle)}: {kind} '{wanted.name}' is {port.dtype} {list(port.shape)}, the contract says "
            f"{wanted.dtype} {list(wanted.shape)}; export the bundle again"
        )


@contextmanager
def load_errors(vendor: str, bundle: Bundle) -> Iterator[None]:
    """Turn an SDK's error while a model is loaded into `RuntimeFailure` that names the file; our own errors pass unchanged."""
    try:
        yield
    except (EdgesegError, MemoryError):
        raise
    except Exception as error:  # SDKs raise what they like
        raise RuntimeFailure(
            f"{vendor} cannot load {_where(bundle)} ({telling_line(error)}); copy or export the bundle again, or upgrade {vendor}"
        ) from error


def _where(bundle: Bundle) -> str:
    return f"{bundle.folder.name}/{bundle.manifest.entry}"


def installed_version(*distributions: str) -> str | None:
    """Version of the first of these distributions that is installed, without importing it."""
    for name in distributions:
        if version := _version_in_folder_names(name):
            return version
    from importlib import metadata  # 2 MB, which a process that only runs a network has no other use for

    for name in distributions:
        try:
            if version := metadata.version(name):
                return version
        except (metadata.PackageNotFoundError, KeyError, OSError):  # the latter two: a folder without METADATA, as Pythons see it
            continue
    return None


def _version_in_folder_names(distribution: str) -> str | None:
    """What the folder's name says, NAME-VERSION.dist-info (PyPA, "Recording installed projects"); `None` = ask `importlib.metadata`.

    A folder without METADATA was left behind when the package was removed.
    """
    start, end = distribution.replace("-", "_") + "-", ".dist-info"
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - names are enough
        except OSError:
            continue
        for name in names:
            if name.startswith(start) and name.endswith(end) and os.path.exists(f"{folder or '.'}/{name}/METADATA"):  # noqa: PTH110
                return name[len(start):-len(end)]
    return None
