"""Write the tiles of a scene as a picture, and its prediction as a coloured point file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pretrain_bench.benchmarks.datasets.drawing import EDGES, TILT, View, below, draw_boxes, draw_cloud, view_of
from pretrain_bench.benchmarks.datasets.ply import write_ply
from pretrain_bench.benchmarks.input.boxes import corners
from pretrain_bench.reports.figures.scene import SceneTiles

TILE = (480, 360)
UPPER = (480, 240)
"""Size in pixels of the second view, of a room's upper part."""
CUT = 0.75
"""Share of a room's height that is drawn from above; the rest, with the ceiling, would hide it and is drawn from below."""
EDGE_POINTS = 40
"""Points along each edge of a box."""


def draw_scene(scene: SceneTiles, title: str) -> Any:
    """Draw a PIL image of the four tiles, two by two, with a legend.

    If voxels are scored, each tile has a second view, from below, of the part above CUT of the height. Together the views show
    every scored voxel.
    """
    from PIL import Image, ImageDraw

    head, caption, columns = 26, 20, 6
    legend = 12 + 18 * -(-len(scene.legend) // columns)
    views = _views(scene)
    height = sum(view.size[1] + caption for _, view in views)
    sheet = Image.new("RGB", (2 * TILE[0], head + 2 * height + legend), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((8, 7), title, fill="black")
    for number, tile in enumerate(scene.tiles):
        left, top = (number % 2) * TILE[0], head + (number // 2) * height
        for words, view in views:
            draw.text((left + 8, top + 3), f"{tile.title}{words}", fill="black")
            keep = below(tile.xyz, CUT) == (view.tilt > 0)
            dot = int(np.clip(np.ceil(scene.spacing_metres * view.scale), 2, 16))
            image = Image.fromarray(draw_cloud(tile.xyz[keep], tile.colours[keep], view=view, dot=dot))
            draw_boxes(image, view, tile.boxes, tile.box_colours)
            sheet.paste(image, (left, top + caption))
            top += view.size[1] + caption
    for number, (name, colour) in enumerate(scene.legend):
        x = 8 + (number % columns) * (sheet.width // columns)
        y = head + 2 * height + 6 + 18 * (number // columns)
        draw.rectangle((x, y, x + 12, y + 12), fill=colour)
        draw.text((x + 18, y), name, fill="black")
    return sheet


def _views(scene: SceneTiles) -> list[tuple[str, View]]:
    """The views of each tile, with their additions to the title."""
    whole = scene.tiles[0].xyz
    low = below(whole, CUT)
    lower = view_of(whole[low], TILE)
    if not scene.spacing_metres:  # boxes are scored, and none contains the ceiling
        return [("", lower)]
    share = f"{100 * CUT:.0f} % of the height"
    return [
        (f", below {share}", lower),
        (f", above {share}, seen from below", view_of(whole[~low], UPPER, -TILT)),
    ]


def write_scene_ply(scene: SceneTiles, path: Path) -> None:
    """Write the points of a scene in the colours of the prediction, with its columns as integer properties. Boxes become
    points along their edges, with -1 in every column."""
    tile = scene.tiles[2]
    edges, colours = [tile.xyz], [tile.colours]
    for places, colour in zip(corners(tile.boxes), tile.box_colours, strict=True):
        for a, b in EDGES:
            edges.append(np.linspace(places[a], places[b], EDGE_POINTS))
            colours.append(np.repeat(colour[None], EDGE_POINTS, axis=0))
    xyz = np.concatenate(edges)
    added = np.full(len(xyz) - len(tile.xyz), -1)
    columns = {n: np.concatenate([values.astype(np.int32), added]) for n, values in scene.columns.items()}
    write_ply(path, xyz, np.concatenate(colours), columns)
