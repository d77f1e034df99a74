"""The picture of a scene shows all scored voxels."""

from __future__ import annotations

import numpy as np
import pytest

from pretrain_bench.reports.figures.scene import RIGHT, WRONG, SceneTiles, Tile
from pretrain_bench.reports.figures.scene_files import draw_scene

FLOOR, CEILING = np.array(RIGHT, np.uint8), np.array(WRONG, np.uint8)


@pytest.mark.parametrize("voxels", [True, False])
def test_the_ceiling_is_drawn_where_voxels_are_scored(voxels: bool) -> None:
    """Seen from below, next to the view from above, which omits it. For boxes one view is enough."""
    plane = np.stack(np.meshgrid(np.arange(0, 4, 0.1), np.arange(0, 3, 0.1)), axis=-1).reshape(-1, 2)
    xyz = np.concatenate([np.column_stack([plane, np.full(len(plane), z)]) for z in (0.0, 2.5)])
    colours = np.repeat([FLOOR, CEILING], len(plane), axis=0)
    tile = Tile("input", xyz, colours, np.zeros((0, 7)), np.zeros((0, 3), np.uint8))
    picture = np.asarray(draw_scene(SceneTiles((tile,) * 4, (), {}, 0.1 if voxels else 0.0), "title"))
    areas = [int((picture == colour).all(axis=2).sum()) for colour in (FLOOR, CEILING)]
    assert areas[0] > 4 * len(plane), "the floor is drawn in each of four tiles"
    assert (areas[1] > 0.3 * areas[0]) if voxels else (areas[1] == 0)
