"""The prepared form of a dataset: folders, file names, and the manifest that lists every file with its hash.

    <prepared>/manifest.json
    <prepared>/unlabelled/<scene>/...   everything a pre-training stage may see
    <prepared>/labelled/<scene>/...     label files only; with the unlabelled view they make the labelled one

Clouds      xyz.npy (N, 3) float32 metres, and rgb.npy (N, 3) uint8 or, from a laser, remission.npy (N,) float32
  labels    semantic.npy (N,) uint8 training ids (255: ignore), instance.npy (N,) int32
  boxes     boxes.npy (K, 8) float32: centre, full size, heading, class; alignment.npy (4, 4) from scene to box axes
Frames      frames/NNNNNN.{jpg|png} colour and NNNNNN.depth.png uint16 millimetres, intrinsic.npy (3, 3) float64 of the depth
            camera, frame_numbers.npy (F,); with recorded poses also poses.npy (F, 4, 4) float64 camera-to-world with z up and
            pairs.npy (P, 3): two frames, overlap; if the world was turned, world_up.npy (3,): its original up direction
Views       image.{jpg|png}, one picture of the points of xyz.npy, with intrinsic.npy and rotation.npy (3, 3) from a level
            camera to z up (SUN RGB-D), or projection.npy (3, 4) from laser to pixels and pose.npy (4, 4) (SemanticKITTI)
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from pretrain_bench.benchmarks.specs.base import FileName, FolderName, Spec
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import size_and_sha256

MANIFEST = "manifest.json"
UNLABELLED = "unlabelled"
LABELLED = "labelled"
SCHEMA_VERSION = 2
SourceT = TypeVar("SourceT")


class FileEntry(Spec):
    """Size and content hash of one prepared file."""

    bytes: int
    sha256: str


class SceneEntry(Spec):
    """The content of one scene; counts that do not apply are zero."""

    name: FolderName
    points: int = 0
    frames: int = 0
    pairs: int = 0
    boxes: int = 0
    test: bool | None = Field(None, description="whether the layout itself marks it as a test scene")
    up: Literal["camera"] | None = Field(
        None, description="recording without poses: its frames are turned to z up by the camera's axes"
    )
    world_up: tuple[float, float, float] | None = Field(
        None,
        description="recording whose world was turned to z up: the up direction as recorded",
    )
    assumed: tuple[str, ...] = Field(
        (),
        description="assumptions of the reader where the layout is silent, such as intrinsics or registration",
    )
    point_classes: tuple[int, ...] | None = Field(None, description="ids of the classes of its labelled points")
    box_classes: tuple[int, ...] | None = Field(None, description="ids of the classes of its boxes")


class Manifest(Spec):
    """Everything about a prepared dataset that can affect a result. Holds no local path and no date."""

    schema_version: int = SCHEMA_VERSION
    dataset: str
    synthetic: bool
    scenes: tuple[SceneEntry, ...]
    files: dict[FileName, FileEntry]
    problems: tuple[str, ...] = ()
    left_out: tuple[SceneEntry, ...] = Field((), description="scenes of the source that could not be read")

    @model_validator(mode="after")
    def _each_scene_once(self) -> Self:
        name, count = max(Counter(s.name for s in self.scenes).items(), key=lambda item: item[1], default=("", 0))
        if count > 1:  # it would train or be scored twice
            raise ValueError(f"scene {name!r} is listed {count} times")
        return self

    @property
    def sha256(self) -> str:
        """Hash of the manifest, and through it of every file. Of `problems` only the number counts: their texts quote library
        messages that change between versions, and their effects show in the scenes and files."""
        content = self.model_dump(mode="json")
        content["problems"] = len(self.problems) or []  # keeps the hash of older manifests without problems
        for scene in content["scenes"]:
            for field in ("up", "world_up"):
                if scene[field] is None:  # keeps the hash of manifests older than this field
                    del scene[field]
            # These are derived from hashed files, or document how the files were made.
            del scene["point_classes"], scene["box_classes"], scene["assumed"]
        if not self.left_out:
            del content["left_out"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def scene_folder_name(area_and_room: tuple[str, ...]) -> str:
    """One flat folder name from the parts of a scene's path in the official layout."""
    return "__".join(area_and_room)


def scenes_by_name(scenes: Iterable[tuple[tuple[str, ...], SourceT]]) -> dict[str, SourceT]:
    """Map scene names, joined from the parts of their paths, to sources. Raises DataError if two paths join to one name."""
    named: dict[str, SourceT] = {}
    parts_of: dict[str, tuple[str, ...]] = {}
    for parts, source in scenes:
        name = scene_folder_name(parts)
        if name in named:
            raise DataError(
                f"{'/'.join(parts_of[name])} and {'/'.join(parts)} would both become scene {name!r}; rename one of these folders"
            )
        named[name], parts_of[name] = source, parts
    return named


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a prepared dataset: manifest.json beside the unlabelled view, or at least with this project's fields,
    since other programs write files of that name too."""
    path = folder / MANIFEST
    if not path.is_file() or (folder / UNLABELLED).is_dir():
        return path.is_file()
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"dataset", "scenes", "files"} <= content.keys()


def read_manifest(prepared: Path) -> Manifest:
    """Read manifest.json of a prepared dataset. Raises DataError if it is missing or invalid."""
    path = prepared / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {prepared} is not a prepared dataset") from None
    except ValidationError as error:
        raise DataError(
            f"{path}: not a manifest of this version: {error.errors()[0]['msg']}; delete {prepared} and "
            "prepare the data again"
        ) from None


def hash_files(prepared: Path) -> dict[str, FileEntry]:
    """Size and sha256 of every file below the views, by path relative to `prepared`."""
    entries = {}
    for view in (UNLABELLED, LABELLED):
        for path in sorted((prepared / view).rglob("*")):
            if path.is_file():
                entries[path.relative_to(prepared).as_posix()] = file_entry(path)
    return entries


def file_entry(path: Path) -> FileEntry:
    """Current size and sha256 of a file. Raises OSError if it cannot be read."""
    size, digest = size_and_sha256(path)
    return FileEntry(bytes=size, sha256=digest)
