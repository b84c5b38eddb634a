"""LiteRT (ai-edge-litert), the successor of tflite_runtime and the better default: it gives int8 to XNNPACK.

It keeps nothing between starts. XNNPACK could keep the weights it packed, but packing takes less time than Python takes to start, and a
file of packed weights in which bytes changed is taken without a word: a third of the pixels came out otherwise.
"""

from __future__ import annotations

from edgeseg.core.bundle import Bundle
from targets.runtimes.base import CheckedSession, RuntimeOptions, installed_version
from targets.runtimes.tflite import open_interpreter


class LiteRtRuntime:
    """Executes format `tflite` with ai-edge-litert."""

    formats = frozenset({"tflite"})

    def version(self) -> str | None:
        """Version of the ai-edge-litert package."""
        return installed_version("ai-edge-litert")

    def open(self, bundle: Bundle, options: RuntimeOptions) -> CheckedSession:
        """See `Runtime.open`."""
        return open_interpreter(bundle, options, vendor="litert", module="ai_edge_litert.interpreter", extra="pi")
