"""Expected content of a dataset that is not prepared yet, for plans: from its published size or its procedural world."""

from __future__ import annotations

from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED, FileEntry, Manifest, SceneEntry
from pretrain_bench.benchmarks.datasets.splits import read_division
from pretrain_bench.benchmarks.specs.dataset import Dataset, PublishedSize
from pretrain_bench.benchmarks.specs.recipes import SCENE_SQUARE_METRES

POINT_BYTES = 20
"""Bytes of one point: position, colour, class and instance (layout.py)."""
PIXEL_BYTES = 0.45
"""Bytes for each pixel of a frame, JPEG picture and PNG depth together, measured on 7-Scenes frames of 640 x 480."""
VIEW_POINTS = 50_000
"""Upper limit of the points of a single view (docs/data.md)."""
NO_CONTENT = FileEntry(bytes=0, sha256="0" * 64)
CLOUD_FILES = (f"{UNLABELLED}/{{}}/xyz.npy", *(f"{LABELLED}/{{}}/{n}.npy" for n in ("semantic", "instance", "boxes")))


class ExpectedManifest(Manifest):
    """The manifest of unprepared data: names and counts of scenes, as if each scene held everything its layout provides."""

    @property
    def sha256(self) -> str:
        """The hash of no content, so that no real run has the key of a stage that is planned with this manifest."""
        return NO_CONTENT.sha256


def expected_manifest(dataset: Dataset) -> ExpectedManifest | None:
    """The scenes that a dataset will hold; None if its size is unknown. A procedural dataset must be `sized`."""
    names = _tested_by_name(dataset)
    if not names:
        return None
    framed = "frames" in dataset.provides
    scenes = tuple(SceneEntry.model_construct(name=n, frames=int(framed), test=t, up=None) for n, t in names.items())
    files = {pattern.format(name): NO_CONTENT for name in names for pattern in CLOUD_FILES}
    return ExpectedManifest.model_construct(
        dataset=dataset.name, synthetic=dataset.synthetic, scenes=scenes, files=files, problems=(), left_out=()
    )


def expected_bytes(dataset: Dataset, frame_stride: int) -> int | None:
    """Bytes of the prepared data, with every `frame_stride`-th frame of recordings; None if the size is unknown."""
    size = dataset.published or _size_of_world(dataset)
    if size is None:
        return None
    frames = size.frames / frame_stride if "multiple_views" in dataset.provides else size.frames
    return round(size.points * POINT_BYTES + frames * size.frame_bytes)


def _tested_by_name(dataset: Dataset) -> dict[str, bool | None]:
    """Scene to whether the layout marks it as a test scene; None where the layout does not mark scenes."""
    if dataset.world is not None:
        return _names_of_world(dataset)
    if dataset.split_file is not None:
        return {name: None for part in read_division(dataset.split_file) for name in part}
    numbers = dataset.published.scene_numbers if dataset.published else {}
    names = [f"{prefix}{i:06d}" for prefix, count in numbers.items() for i in range(count)]
    tested = dataset.test_scene_count
    return {name: None if tested is None else i < tested for i, name in enumerate(names)}


def _names_of_world(dataset: Dataset) -> dict[str, bool | None]:
    from pretrain_bench.benchmarks.procedural.write import scene_names

    world, names = dataset.world or {}, scene_names(dataset)
    if dataset.layout == "sunrgbd":
        return {name: i >= world["train_views"] for i, name in enumerate(names)}
    if dataset.layout == "semantickitti":
        train = -(-world["train_scans"] // world["streets"])
        scans = {name: world["test_scans"] if name == "08" else train for name in names}
        return {f"{name}__{i:06d}": None for name, count in scans.items() for i in range(count)}
    return dict.fromkeys((name.replace("/", "__") for name in names), None)


def _size_of_world(dataset: Dataset) -> PublishedSize | None:
    world = dataset.world
    if world is None:
        return None
    scenes = len(_names_of_world(dataset))
    frames = scenes * world.get("frames_per_room", 1) if "frames" in dataset.provides else 0
    points = {"sunrgbd": VIEW_POINTS, "semantickitti": 64 * world.get("azimuths", 0)}.get(
        dataset.layout, round(SCENE_SQUARE_METRES * world.get("points_per_square_metre", 0))
    )
    pixels = world.get("width", 0) * world.get("height", 0)
    return PublishedSize(
        source="the generator", points=max(1, scenes * points), frames=frames, frame_bytes=round(PIXEL_BYTES * pixels)
    )
