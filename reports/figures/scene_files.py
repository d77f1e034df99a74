"""The tiles of a scene as a picture, and its prediction as a coloured point file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pretrain_bench.benchmarks.datasets.drawing import EDGES, below, draw_boxes, draw_cloud, view_of
from pretrain_bench.benchmarks.datasets.ply import write_ply
from pretrain_bench.benchmarks.input.boxes import corners
from pretrain_bench.reports.figures.scene import SceneTiles

TILE = (480, 360)
CUT = 0.75
"""Share of the height of a room that is drawn: the ceiling would hide the rest."""
EDGE_POINTS = 40
"""Points along each edge of a box."""


def draw_scene(scene: SceneTiles, title: str) -> Any:
    """A PIL image of the four tiles, two by two, with a legend."""
    from PIL import Image, ImageDraw

    head, caption, columns = 26, 20, 6
    legend = 12 + 18 * -(-len(scene.legend) // columns)
    sheet = Image.new("RGB", (2 * TILE[0], head + 2 * (TILE[1] + caption) + legend), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((8, 7), title, fill="black")
    whole = scene.tiles[0].xyz
    view = view_of(whole[below(whole, CUT)], TILE)
    dot = int(np.clip(np.ceil(scene.spacing_metres * view.scale), 2, 16))
    for number, tile in enumerate(scene.tiles):
        left, top = (number % 2) * TILE[0], head + (number // 2) * (TILE[1] + caption)
        draw.text((left + 8, top + 3), tile.title, fill="black")
        keep = below(tile.xyz, CUT)
        image = Image.fromarray(draw_cloud(tile.xyz[keep], tile.colours[keep], view=view, dot=dot))
        draw_boxes(image, view, tile.boxes, tile.box_colours)
        sheet.paste(image, (left, top + caption))
    for number, (name, colour) in enumerate(scene.legend):
        x = 8 + (number % columns) * (sheet.width // columns)
        y = head + 2 * (TILE[1] + caption) + 6 + 18 * (number // columns)
        draw.rectangle((x, y, x + 12, y + 12), fill=colour)
        draw.text((x + 18, y), name, fill="black")
    return sheet


def write_scene_ply(scene: SceneTiles, path: Path) -> None:
    """Write the points of a scene in the colours of the prediction, with its columns as integers; boxes become points along their
    edges, with -1 in every column."""
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
