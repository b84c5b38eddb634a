"""Bundles of a run verified on the devices of their targets: there, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeseg.core.errors import BusyError, DeviceError, MissingExtraError, RuntimeFailure, TargetError
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.check.verifying import Verified
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.places import Place
from targets.boards import find_target
from targets.judging import Finding, at_least
from targets.verify import golden_limit

Verify = Callable[[SealedBundle, Place, str], Verified]
"""Verifies a bundle at a place, with the settings of a target."""


@dataclass(frozen=True)
class There:
    """One bundle on the device of one target: what it answered, or `None` with the reason why it did not."""

    target: str
    bundle: SealedBundle
    place: Place
    verified: Verified | None
    why_not: str = ""
    lost: bool = False
    """The device could not be used, the bundle crashed there, or none of its target was verified: no report may pass over that."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was judged there; a bundle that was lost misses the first goal of all."""
        if self.verified is not None:
            return self.verified.findings
        task = self.bundle.bundle.manifest.contract.task
        return (at_least("golden", golden_limit(task), None),) if self.lost else ()

    @property
    def words(self) -> str:
        """Which bundle and where."""
        return f"{self.bundle.name} on {self.place.device.name}"


def verify_there(ctx: RunContext, bundles: Sequence[SealedBundle], places: Mapping[str, Place], verify: Verify) -> list[There]:
    """Verify each bundle on the device of each target that has one and runs its format.

    One that a device cannot run is a note beside others that it could; where it could run none, all are lost.
    """
    found: list[There] = []
    for target, place in places.items():
        formats = find_target(target).formats
        tried = [_verify(ctx, target, bundle, place, verify) for bundle in bundles if bundle.bundle.manifest.format in formats]
        judged = any(one.verified is not None and one.bundle.arithmetic == "f32" for one in tried)
        found += tried if judged else [replace(one, lost=one.verified is None) for one in tried]
    return found


def _verify(ctx: RunContext, target: str, bundle: SealedBundle, place: Place, verify: Verify) -> There:
    try:
        return There(target, bundle, place, verify(bundle, place, target))
    except (DeviceError, BusyError, RuntimeFailure, TargetError, MissingExtraError) as error:
        ctx.ui.say(f"{target}: {bundle.name} not verified on {place.label}: {error}")  # in the report, too; never verified here instead
        return There(target, bundle, place, None, str(error), lost=isinstance(error, (DeviceError, BusyError, RuntimeFailure)))
