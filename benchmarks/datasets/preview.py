"""Contact sheets of prepared datasets: pictures, depth, clouds coloured by RGB and by label, boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.drawing import TILE, Picture, below, draw_cloud, palette, view_of
from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED, Manifest, SceneEntry
from pretrain_bench.benchmarks.datasets.views import load_aligned_cloud, load_boxes
from pretrain_bench.benchmarks.input.boxes import points_inside
from pretrain_bench.benchmarks.specs.dataset import Dataset


class TrainingLabels(NamedTuple):
    """The labels of a split: its training scenes, its label ratio as text, whether labels are boxes, and a function from a
    scene's name and its number of points (or boxes) to the labelled rows."""

    scenes: tuple[str, ...]
    words: str
    boxes: bool
    rows: Callable[[str, int], NDArray[np.int64]]


def contact_sheet(
    dataset: Dataset,
    prepared: Path,
    manifest: Manifest,
    scenes: int,
    labels: bool = True,
    training: TrainingLabels | None = None,
) -> Any:
    """Draw a PIL image with one row of tiles for each of `scenes` evenly spaced scenes, and a legend of the classes. With
    `training`, scenes come from its split and only its labels are drawn: points as large dots on a grey cloud, or boxes."""
    from PIL import Image, ImageDraw

    of_split = None if training is None else set(training.scenes)
    chosen = _spread(tuple(s for s in manifest.scenes if of_split is None or s.name in of_split), scenes)
    rows = [_row(dataset, prepared, scene, labels, training) for scene in chosen]
    wide = max(len(r) for r in rows)
    classes = dataset.classes if labels else ()
    legend = 20 + 18 * (-(-len(classes) // 6)) if classes else 0
    head = 24
    sheet = Image.new("RGB", (wide * TILE[0], len(rows) * (TILE[1] + 18) + legend + head), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 6), dataset.title + (f", {training.words}" if training else ""), fill="black")
    for y, (scene, tiles) in enumerate(zip(chosen, rows, strict=True)):
        top = head + y * (TILE[1] + 18)
        draw.text((6, top + 3), _caption(scene), fill="black")
        for x, tile in enumerate(tiles):
            sheet.paste(tile, (x * TILE[0], top + 18))
    for number, name in enumerate(classes):
        x, y = 6 + (number % 6) * (sheet.width // 6), head + len(rows) * (TILE[1] + 18) + 8 + 18 * (number // 6)
        draw.rectangle((x, y, x + 12, y + 12), fill=tuple(int(v) for v in palette(len(classes))[number]))
        draw.text((x + 18, y), name, fill="black")
    return sheet


def depth_colours(depth: NDArray[np.uint16], most_metres: float = 6.0) -> Picture:
    """(H, W, 3) uint8: near is yellow, far is violet, pixels without depth are black."""
    share = np.clip(depth / (1000 * most_metres), 0, 1)
    stops = np.array([[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]], float)
    at = share * (len(stops) - 1)
    low = np.clip(at.astype(int), 0, len(stops) - 2)
    mixed = stops[low] + (at - low)[..., None] * (stops[low + 1] - stops[low])
    return np.where((depth == 0)[..., None], 0, mixed).astype(np.uint8)


def _caption(scene: SceneEntry) -> str:
    parts = [f"{scene.points:,} points"] * (scene.points > 0) + [f"{scene.frames} frames"] * (scene.frames > 0)
    parts += [f"{scene.pairs} overlapping pairs"] * (scene.pairs > 0) + [f"{scene.boxes} boxes"] * (scene.boxes > 0)
    return f"{scene.name}: {', '.join(parts)}"


def _spread(scenes: tuple[SceneEntry, ...], count: int) -> list[SceneEntry]:
    chosen = np.unique(np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int))
    return [scenes[i] for i in chosen]


def _row(
    dataset: Dataset, prepared: Path, scene: SceneEntry, labels: bool, training: TrainingLabels | None
) -> list[Any]:
    from PIL import Image, ImageOps

    folder, label_folder = prepared / UNLABELLED / scene.name, prepared / LABELLED / scene.name
    tiles: list[Picture] = []
    frames = sorted((folder / "frames").glob("*.depth.png"))
    for depth in (
        [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, 2).round().astype(int))] if frames else []
    ):
        stem = depth.name.removesuffix(".depth.png")
        colour = next(p for p in (depth.with_name(f"{stem}.jpg"), depth.with_name(f"{stem}.png")) if p.is_file())
        tiles += [images.decode_colour(colour, str(colour)), depth_colours(images.decode_depth(depth, str(depth)))]
    for picture in sorted(folder.glob("image.*")):
        tiles.append(images.decode_colour(picture, str(picture)))
    if (folder / "xyz.npy").is_file():
        xyz = np.load(folder / "xyz.npy", allow_pickle=False)
        near = np.abs(xyz).max(axis=1) < 30 if (folder / "remission.npy").is_file() else np.ones(len(xyz), bool)
        of_room = not (folder / "remission.npy").is_file() and not any(folder.glob("image.*"))
        cut = 0.75 if of_room else None  # without its ceiling
        if (folder / "rgb.npy").is_file():
            colours = np.load(folder / "rgb.npy", allow_pickle=False)
        else:
            grey = np.clip(np.load(folder / "remission.npy", allow_pickle=False) * 300, 0, 230)
            colours = np.repeat(grey[:, None], 3, axis=1).astype(np.uint8)
        tiles.append(draw_cloud(xyz[near], colours[near], cut=cut))
        by_box = training.boxes if training is not None else not (label_folder / "semantic.npy").is_file()
        if labels and not by_box:
            semantic = np.load(label_folder / "semantic.npy", allow_pickle=False)
            by_label = palette(len(dataset.classes))[np.minimum(semantic, len(dataset.classes))]
            if training is not None:
                shown = near & (below(xyz, cut) if cut is not None else True)
                labelled = np.zeros(len(xyz), bool)
                labelled[training.rows(scene.name, len(xyz))] = True
                tiles.append(_labelled_points(xyz[shown], by_label[shown], labelled[shown]))
            else:
                tiles.append(draw_cloud(xyz[near], by_label[near], cut=cut))
        elif labels and (label_folder / "boxes.npy").is_file():
            xyz = load_aligned_cloud(prepared, scene.name)[0]
            boxes = load_boxes(prepared, scene.name)
            tiles.append(
                _by_box(dataset, xyz, boxes if training is None else boxes[training.rows(scene.name, len(boxes))])
            )
    return [ImageOps.pad(Image.fromarray(t), TILE, color="white") for t in tiles]


def _labelled_points(xyz: NDArray[np.float32], colours: Picture, labelled: NDArray[np.bool_]) -> Picture:
    """The cloud in grey with the `labelled` points in their colours, drawn larger unless all points are labelled."""
    view = view_of(xyz)
    picture = draw_cloud(xyz, np.full((len(xyz), 3), 215, np.uint8), view=view)
    over = draw_cloud(xyz[labelled], colours[labelled], view=view, dot=2 if labelled.all() else 6)
    drawn = (over != 255).any(axis=2)
    picture[drawn] = over[drawn]
    return picture


def _by_box(dataset: Dataset, xyz: NDArray[np.floating], boxes: NDArray[np.float32]) -> Picture:
    colours = palette(len(dataset.classes))
    painted = np.repeat(colours[-1:], len(xyz), axis=0)
    for box in boxes:
        name = dataset.detected_classes[int(box[7])]
        painted[points_inside(xyz, box)] = colours[dataset.classes.index(name) if name in dataset.classes else -1]
    return draw_cloud(xyz, painted)
