"""tflite_runtime 2.14, the last release (Python up to 3.11, numpy < 2), for boards that have nothing newer.

Its build does not give int8 to XNNPACK: seen 91 ms where LiteRT takes 9.5 (docs: `edgeseg doctor` says so too).
"""

from __future__ import annotations

from edgeseg.core.bundle import Bundle
from targets.runtimes.base import CheckedSession, RuntimeOptions, installed_version
from targets.runtimes.tflite import open_interpreter


class TfliteRuntime:
    """Executes format `tflite` with tflite_runtime."""

    formats = frozenset({"tflite"})

    def version(self) -> str | None:
        """Version of the tflite_runtime package."""
        return installed_version("tflite_runtime", "tflite-runtime")

    def open(self, bundle: Bundle, options: RuntimeOptions) -> CheckedSession:
        """See `Runtime.open`."""
        return open_interpreter(bundle, options, vendor="tflite_runtime", module="tflite_runtime.interpreter", extra="pi-legacy")
