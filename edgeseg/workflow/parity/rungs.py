"""Which rungs of the parity ladder can be stood on: the bundle, what it was made from, and the checkpoint all of them come from.

A bundle names its parents by hash. They are looked for where a run puts them (beside the bundle, and in the run's checkpoints); what is not
there is said, with what to do, and never replaced by something similar.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.errors import BundleError, ConfigError, require_path
from edgeseg.core.manifest import Manifest, read_manifest
from edgeseg.workflow.steps import tree_sha256


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """What was found, lowest rung first."""

    checkpoint: Path | None
    bundles: tuple[tuple[str, Bundle], ...]
    """What the rung is called, and its bundle; the last is the one asked for."""
    notes: tuple[str, ...] = field(default=())
    """Rungs that are missing, and what to do about it."""


def find_rungs(bundle: Bundle, *, checkpoint: Path | None) -> Rungs:
    """Look for everything below `bundle`.

    Raises:
        ConfigError: the bundle finds objects, or nothing at all is below it, or `checkpoint` is not what it was made from.
    """
    manifest, notes = bundle.manifest, []
    if manifest.contract.task != "semantic":
        raise ConfigError(f"{bundle.folder} finds objects one by one, and the ladder compares pixels; leave --ladder out")
    siblings = list(_siblings(bundle))
    base = manifest
    chain: list[tuple[str, Bundle]] = [(_rung_name(manifest), bundle)]
    if manifest.precision != "fp32":
        parent = next((p.sha256 for p in manifest.parents if p.kind == "bundle"), "")
        found = next((folder for folder, one in siblings if one.sha256 == parent), None)
        if found is None:
            notes.append(f"no fp32 rung: the bundle it was made of ({parent[:12] or 'not named'}) does not lie beside {bundle.folder}")
        else:
            chain.insert(0, (f"{manifest.format} fp32", open_bundle(found)))
            base = chain[0][1].manifest
    origin = next((p.sha256 for p in base.parents if p.kind == "checkpoint"), "")
    if base.format != "onnx" and origin:
        onnx = [folder for folder, one in siblings if one.format == "onnx" and one.precision == "fp32" and _made_of(one, origin)]
        if onnx:
            chain.insert(0, ("onnx fp32", open_bundle(onnx[0])))
        else:
            notes.append("no onnx rung: no onnx fp32 bundle of the same checkpoint lies beside it")
    return Rungs(checkpoint=_checkpoint(bundle, origin, checkpoint, notes), bundles=tuple(chain), notes=tuple(notes))


def refuse_alone(rungs: Rungs) -> None:
    """Refuse a ladder of one rung.

    Raises:
        ConfigError: nothing to compare with; says what was looked for.
    """
    if rungs.checkpoint is None and len(rungs.bundles) == 1:
        name = rungs.bundles[0][1].folder
        raise ConfigError(f"{name} stands alone ({'; '.join(rungs.notes)}); keep it in its run's folder, or add --checkpoint DIR")


def ladders_of(run: Path) -> list[Bundle]:
    """The bundles of a run whose ladders are worth climbing: the reduced ones, and fp32 ones that nothing was made of.

    Raises:
        ConfigError: the folder is neither a bundle nor a run with bundles.
    """
    folder = run / "bundles"
    found = [open_bundle(one) for one in sorted(folder.iterdir()) if (one / "manifest.json").is_file()] if folder.is_dir() else []
    found = [one for one in found if one.manifest.contract.task == "semantic"]
    if not found:
        raise ConfigError(f"{run} is no bundle (no manifest.json) and no run with bundles of class maps; type: edgeseg run")
    parents = {parent.sha256 for one in found for parent in one.manifest.parents}
    return [one for one in found if one.manifest.sha256 not in parents]


def _siblings(bundle: Bundle) -> Iterator[tuple[Path, Manifest]]:
    here = bundle.folder.resolve()
    for folder in sorted(here.parent.iterdir()):
        if folder != here and (folder / "manifest.json").is_file():
            try:
                yield folder, read_manifest(folder)
            except BundleError:
                continue  # whatever else lies there is no rung


def _made_of(manifest: Manifest, checkpoint_sha256: str) -> bool:
    return any(p.kind == "checkpoint" and p.sha256 == checkpoint_sha256 for p in manifest.parents)


def _checkpoint(bundle: Bundle, origin: str, given: Path | None, notes: list[str]) -> Path | None:
    if given is not None:
        folder = require_path(given, what="checkpoint")
        if origin and tree_sha256(folder) != origin:
            raise ConfigError(f"--checkpoint {given} is not what {bundle.folder} was made from (its manifest says {origin[:12]})")
        return folder
    if not origin:
        notes.append("no torch rung: the bundle's manifest names no checkpoint"
                     + ("; it was imported" if "imported" in bundle.manifest.scheme else "; add --checkpoint DIR"))
        return None
    places = bundle.folder.resolve().parent.parent / "checkpoints"
    for folder in sorted(places.iterdir()) if places.is_dir() else []:
        if folder.is_dir() and tree_sha256(folder) == origin:
            return folder
    notes.append(f"no torch rung: no checkpoint {origin[:12]} in {places.name}/ of its run; add --checkpoint DIR")
    return None


def _rung_name(manifest: Manifest) -> str:
    return f"{manifest.format} {manifest.precision}"
