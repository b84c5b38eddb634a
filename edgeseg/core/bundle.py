"""A bundle: a folder that runs on a device. Opened only after every byte was checked; sealed in one atomic step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeseg.core.errors import BundleError, ConfigError
from edgeseg.core.files import atomic_folder, sha256_file, write_json
from edgeseg.core.images import Frame, read_class_map, read_frame, write_class_map, write_frame
from edgeseg.core.instances import Answer, Instances, read_instances, write_instances
from edgeseg.core.manifest import (
    Contract,
    FileEntry,
    Golden,
    GoldenInstances,
    InstanceReference,
    Manifest,
    Parent,
    Reference,
    read_manifest,
)


@dataclass(frozen=True)
class Bundle:
    """An opened, checked bundle."""

    folder: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The model file to hand to the runtime."""
        return self.folder / self.manifest.entry

    @property
    def size_bytes(self) -> int:
        """Bytes a device stores for the model itself (golden frames not counted)."""
        golden = {path for pair in self.manifest.golden for path in (pair.frame, pair.answer)}
        return sum(entry.size_bytes for entry in self.manifest.files if entry.path not in golden)

    def golden_frames(self) -> list[Frame]:
        """The golden frames at model size."""
        return [read_frame(self.folder / pair.frame) for pair in self.manifest.golden]

    def golden_pairs(self) -> list[tuple[Frame, Answer]]:
        """The golden frames at model size with the answers expected."""
        return list(zip(self.golden_frames(), [_read_answer(self.folder, pair) for pair in self.manifest.golden], strict=True))


def open_bundle(folder: Path) -> Bundle:
    """Read the manifest and check size and SHA-256 of every file; refuse links, missing and unlisted files.

    Raises:
        BundleError: anything is not as the manifest says; names the file.
    """
    manifest = read_manifest(folder)
    listed = {entry.path for entry in manifest.files} | {"manifest.json"}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"{folder}: {relative} is a link; a bundle holds plain files only")
        if not path.is_dir() and relative not in listed:
            raise BundleError(f"{folder}: {relative} is not listed in manifest.json; copy the bundle again")
    for entry in manifest.files:
        path = folder / entry.path
        if not path.is_file():
            raise BundleError(f"{folder}: {entry.path} is missing; copy the bundle again")
        size = path.stat().st_size
        if size != entry.size_bytes:
            raise BundleError(f"{folder}: {entry.path} has {size} bytes, manifest.json says {entry.size_bytes}; copy the bundle again")
        if sha256_file(path) != entry.sha256:
            raise BundleError(f"{folder}: {entry.path} was changed (SHA-256 differs from manifest.json); copy the bundle again")
    return Bundle(folder, manifest)


def check_target(out: Path, source: Path, *, force: bool) -> Path:
    """Give the full path of the folder `out` if a bundle made of `source` may be sealed there, with `force` in place of another bundle.

    Raises:
        ConfigError: it holds something that is no bundle, it is there and `force` is not, or one of the two is inside the other.
    """
    target, origin, here = out.resolve(), source.resolve(), Path.cwd()
    if target == origin or target in origin.parents or origin in target.parents:
        raise ConfigError(f"--out {out} and {source}, which is read, are the same or one lies inside the other; choose another --out")
    if not target.exists():
        return target
    if target == here or target in here.parents:
        raise ConfigError(f"--out {out} is the folder you are in, or one around it; choose another --out")
    if not _is_replaceable(target):
        raise ConfigError(f"--out {out} exists and is no bundle; only a bundle is replaced, so choose another --out")
    if not force:
        raise ConfigError(f"{out} exists; add --force to replace it, or choose another --out")
    return target


def _is_replaceable(folder: Path) -> bool:
    """Whether it is empty or a bundle, whole or not."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        read_manifest(folder)
    except BundleError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """What an exporter or a quantizer made: files in a work folder, not yet a bundle."""

    folder: Path
    files: tuple[str, ...]
    """Names inside `folder`."""
    entry: str
    format: str
    precision: str
    scheme: Mapping[str, object]
    tools: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class BundleInfo:
    """What the workflow knows about a bundle besides its files."""

    name: str
    contract: Contract
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    reference: Reference | InstanceReference | None
    parents: tuple[Parent, ...]
    config_sha256: str


def seal_bundle(
    target: Path,
    model: ModelFiles,
    info: BundleInfo,
    *,
    golden_frames: Sequence[Frame],
    answer: Callable[[Bundle], tuple[str, Callable[[Frame], Answer]]],
) -> Bundle:
    """Copy the model files, let the bundle itself answer the golden frames, write the manifest, put all in place at once.

    `answer(bundle)` opens the (still temporary) bundle and gives the runtime's name with version and a function from a
    frame at model size to its answer. `target` appears complete or not at all.
    """
    import shutil  # not loaded by who runs a bundle

    with atomic_folder(target) as folder:
        for name in model.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.folder / name, folder / name)
        manifest = Manifest(
            name=info.name, format=model.format, precision=model.precision, scheme=dict(model.scheme), entry=model.entry,
            files=tuple(_entry(folder, name) for name in model.files), contract=info.contract, classes=info.classes,
            palette=info.palette, reference=info.reference, parents=info.parents, tools=dict(model.tools),
            config_sha256=info.config_sha256, golden=(), golden_runtime="",
        )
        runtime, run = answer(Bundle(folder, manifest))
        golden = [_write_pair(folder, i, frame, run(frame)) for i, frame in enumerate(golden_frames)]
        extra = [path for pair in golden for path in (pair.frame, pair.answer)]
        manifest = replace(
            manifest, golden=tuple(golden), golden_runtime=runtime,
            files=manifest.files + tuple(_entry(folder, name) for name in extra),
        )
        write_json(folder / "manifest.json", manifest.to_json())
    return Bundle(target, read_manifest(target))


def _write_pair(folder: Path, i: int, frame: Frame, answer: Answer) -> Golden | GoldenInstances:
    (folder / "golden").mkdir(exist_ok=True)
    name = f"golden/{i:03}_frame.png"
    write_frame(folder / name, frame)
    if isinstance(answer, Instances):
        found = GoldenInstances(frame=name, instances=f"golden/{i:03}_instances.npz")
        write_instances(folder / found.instances, answer)
        return found
    pair = Golden(frame=name, class_map=f"golden/{i:03}_class_map.png")
    write_class_map(folder / pair.class_map, np.ascontiguousarray(answer))
    return pair


def _read_answer(folder: Path, pair: Golden | GoldenInstances) -> Answer:
    return read_class_map(folder / pair.class_map) if isinstance(pair, Golden) else read_instances(folder / pair.instances)


def _entry(folder: Path, name: str) -> FileEntry:
    path = folder / name
    return FileEntry(path=name, size_bytes=path.stat().st_size, sha256=sha256_file(path))
