"""What a caller decides about an execution, and how a runtime refuses what it does not have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from edgeseg.core.errors import ConfigError, TargetError

PROVIDERS: Final = ("cpu", "gpu", "npu", "cuda", "tensorrt")
PRECISION_HINTS: Final = ("f32", "bf16", "f16")


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """What the caller decides about an execution; everything else is pinned by the runtime.

    The defaults work everywhere. A runtime refuses a field it does not have as soon as it differs from its default (`refuse_options`).
    """

    num_threads: int = 1
    """Threads of the runtime, at least 1; never "whatever the SDK likes"."""
    provider: str = "cpu"
    """What executes: one of `PROVIDERS` (`gpu` and `npu` are OpenVINO's). Exactly this or an error, never a fallback."""
    precision_hint: str = "f32"
    """Arithmetic of the float parts: `f32`, or `bf16` / `f16` where that was asked for and measured."""
    device: str = ""
    """Which of the provider's devices, as the runtime spells it: `GPU.1` in OpenVINO, `1` in CUDA; empty = its first."""
    streams: int = 1
    """Frames that are worked on at once, sharing the threads. The session may then be called by as many threads of the caller at a time."""
    delegate: bool = True
    """False: the runtime's own kernels in place of its delegate's (LiteRT: XNNPACK)."""
    cache_dir: str = ""
    """Folder for what a runtime makes of a model: compiled models, engines (`targets.runtimes.cache`). Empty = nothing is kept, but for
    engines of `tensorrt`, which always are."""
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Settings by the runtime's own names; each runtime has a list of those it takes."""

    def __post_init__(self) -> None:
        """Refuse values no runtime knows (`ConfigError`)."""
        if self.num_threads < 1:
            raise ConfigError(f"threads = {self.num_threads}: expected at least 1")
        if self.streams < 1:
            raise ConfigError(f"streams = {self.streams}: expected at least 1")
        if self.provider not in PROVIDERS:
            raise ConfigError(f"provider '{self.provider}' is unknown; one of {', '.join(PROVIDERS)}")
        if self.precision_hint not in PRECISION_HINTS:
            raise ConfigError(f"precision hint '{self.precision_hint}' is unknown; one of {', '.join(PRECISION_HINTS)}")


def refuse_options(vendor: str, options: RuntimeOptions, *, has: Collection[str] = (), extra: Collection[str] = ()) -> None:
    """Refuse what `vendor` does not have: fields that differ from their default and are not in `has`, and names in `extra`.

    Raises:
        TargetError: names what was asked for and what to do.
    """
    plain = RuntimeOptions()
    for name, what in (("device", "device"), ("streams", "streams"), ("delegate", "delegate"), ("cache_dir", "cache")):
        if name not in has and getattr(options, name) != getattr(plain, name):
            raise TargetError(f"{vendor} has no {what} to choose ({name} = {getattr(options, name)!r}); leave {name} out")
    for name in options.extra:
        if name not in extra:
            raise TargetError(f"{vendor} takes no setting '{name}'; it takes {', '.join(sorted(extra)) or 'none'}")
