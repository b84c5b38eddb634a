"""LiteRT (ai-edge-litert), the successor of tflite_runtime and the better default: it gives int8 to XNNPACK."""

from __future__ import annotations

from edgeseg.core.bundle import Bundle
from targets.runtimes.base import CheckedSession, RuntimeOptions, installed_version
from targets.runtimes.litert_cached import open_cached
from targets.runtimes.tflite import open_interpreter


class LiteRtRuntime:
    """Executes format `tflite` with ai-edge-litert; with a cache folder, weights that XNNPACK packed are kept there."""

    formats = frozenset({"tflite"})

    def version(self) -> str | None:
        """Version of the ai-edge-litert package."""
        return installed_version("ai-edge-litert")

    def open(self, bundle: Bundle, options: RuntimeOptions) -> CheckedSession:
        """See `Runtime.open`."""
        if options.cache_dir:
            return open_cached(bundle, options)
        return open_interpreter(bundle, options, vendor="litert", module="ai_edge_litert.interpreter", extra="pi")
