"""SUN RGB-D in its raw layout, as stored by the toolbox: an artificial view, since no raw sample is available."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pretrain_bench.benchmarks.datasets import images, sunrgbd
from pretrain_bench.benchmarks.datasets.layout import read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find

DATASET = find(Dataset, "sunrgbd")
SIZE = (40, 30)
K = np.array([[50.0, 0, 19.5], [0, 50, 14.5], [0, 0, 1]])
TILT = np.array([[1.0, 0, 0], [0, math.cos(0.1), -math.sin(0.1)], [0, math.sin(0.1), math.cos(0.1)]])
PREFIX = "/n/fs/sun3d/data/"


def stored(depth_metres: np.ndarray) -> np.ndarray:
    """The encoding of the toolbox: millimetres, with the lowest thirteen bits rotated up by three."""
    d = np.round(depth_metres * 1000).astype(np.uint32)
    return (((d << 3) | (d >> 13)) & 0xFFFF).astype(np.uint16)


def box(name: str, centre: tuple[float, ...], half: tuple[float, ...], facing: tuple[float, ...]) -> dict[str, object]:
    return {"classname": name, "centroid": np.array(centre), "coeffs": np.array(half), "orientation": np.array(facing),
            "basis": np.eye(3), "label": 1}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    entries = []
    for number, kind in enumerate(("kv1/NYUdata/NYU0001", "kv2/kinect2data/000065_rgbf000121-resize"), start=1):
        folder = tmp_path / "SUNRGBD" / kind
        (folder / "image").mkdir(parents=True)
        (folder / "depth").mkdir()
        depth = np.full(SIZE[::-1], 2.0 + number)
        depth[:, :5] = 0
        (folder / "image/a.jpg").write_bytes(images.encode_colour(np.full((*SIZE[::-1], 3), 90, np.uint8), 95))
        (folder / "depth/a.png").write_bytes(
            images.encode_depth(np.where(depth > 0, stored(depth), 0).astype(np.uint16))
        )
        entries.append({
            "depthpath": f"{PREFIX}SUNRGBD/{kind}/depth/a.png", "rgbpath": f"{PREFIX}SUNRGBD/{kind}/image/a.jpg",
            "Rtilt": TILT, "K": K,
            "groundtruth3DBB": np.array([
                box("bed", (0.2, 2.5, -0.3), (0.9, -1.0, 0.4), (0.0, 1.0, 0.0)), box("lamp", (0, 1, 0), (1, 1, 1), (1, 0, 0)),
            ], dtype=object),
        })  # fmt: skip
    (tmp_path / "SUNRGBDtoolbox/Metadata").mkdir(parents=True)
    (tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD").mkdir()
    savemat(tmp_path / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": np.array(entries, dtype=object)})
    # As in the real file, some paths end in a slash and refer to the authors' disk.
    train, test = "/data1/SUNRGBD/kv1/NYUdata/NYU0001/", "/data1/SUNRGBD/kv2/kinect2data/000065_rgbf000121-resize"
    savemat(
        tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat",
        {
            "alltrain": np.array([train, train + "x"], dtype=object),
            "alltest": np.array([test, test + "y"], dtype=object),
        },
    )
    return tmp_path


def test_a_raw_view_is_read(root: Path, tmp_path: Path) -> None:
    views = sunrgbd.find_views(root)
    assert {n: v.test for n, v in views.items()} == {"000001": False, "000002": True}
    view = sunrgbd.read_view(views["000001"], DATASET.classes)
    assert len(view.xyz) == len(view.rgb) == 35 * 30 and np.abs(view.rgb.astype(int) - 90).max() <= 3
    # Every pixel has a depth of 3 m: with the tilt undone, y is 3 and points project to their pixels.
    camera = view.xyz @ TILT
    assert np.allclose(camera[:, 1], 3.0, atol=1e-5)
    u = camera[:, 0] / camera[:, 1] * 50 + 19.5
    assert np.isclose(u.min(), 5, atol=1e-4) and np.isclose(u.max(), 39, atol=1e-4)
    # One box: coefficients are half sizes w, l, h of any sign; an orientation along +y is a heading of -90 degrees.
    assert np.allclose(view.boxes, [[0.2, 2.5, -0.3, 2.0, 1.8, 0.8, -math.pi / 2, 0]], atol=1e-6)
    prepared = prepare(DATASET, root, tmp_path / "c", frame_stride=1, strict=True, progress=lambda names: names)
    assert [(s.boxes, s.test) for s in read_manifest(prepared).scenes] == [(1, False), (1, True)]


def test_depth_is_decoded_as_the_toolbox_does() -> None:
    depth = np.array([[0.001, 1.0, 2.345, 7.999, 8.191]])
    xyz, valid = sunrgbd.unproject(stored(depth), np.eye(3), np.eye(3))
    assert valid.all() and np.allclose(xyz[:, 1], np.minimum(depth[0], 8.0))


def test_a_metadata_file_of_another_kind_is_named(root: Path) -> None:
    savemat(
        root / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": np.array([{"x": 1}, {"x": 2}], dtype=object)}
    )
    with pytest.raises(DataError, match="entry 1 has no depthpath"):
        sunrgbd.find_views(root)
