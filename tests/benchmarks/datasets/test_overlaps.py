from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

import pretrain_bench as pb
from pretrain_bench.benchmarks.datasets import overlaps as module
from pretrain_bench.benchmarks.datasets import recording_pairs
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.layout import read_manifest
from pretrain_bench.benchmarks.datasets.overlaps import NEAR_METRES, is_near, near_table, overlaps
from pretrain_bench.benchmarks.datasets.pairs import voxel_means, world_points
from pretrain_bench.benchmarks.datasets.prepare import Source, prepare
from pretrain_bench.benchmarks.datasets.source_check import verify_source
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.harness.planning.catalog import find
from tests.benchmarks.datasets.room_recordings import INTRINSIC, Room, room, write

DATASET = find(Dataset, "rgbd-folder")
Cloud = NDArray[np.float64]


def plain_overlaps(clouds: list[Cloud], least: float) -> NDArray[np.float64]:
    """Compare all pairs of frames by nearest neighbours, as overlaps were computed before."""
    trees = [cKDTree(c) if len(c) else None for c in clouds]

    def share(tree: cKDTree, points: Cloud) -> float:
        return float(np.isfinite(tree.query(points, distance_upper_bound=NEAR_METRES)[0]).mean())

    pairs = []
    for i in range(len(clouds)):
        for j in range(i + 1, len(clouds)):
            if len(clouds[i]) and len(clouds[j]):
                pairs.append((i, j, max(share(trees[i], clouds[j]), share(trees[j], clouds[i]))))
    return np.array([p for p in pairs if p[2] >= least]).reshape(-1, 3)


def clouds_of(recording: Room) -> list[Cloud]:
    return [voxel_means(world_points(d, p, INTRINSIC)) for d, p in zip(recording.depth, recording.poses, strict=True)]


def ready(root: Path, cache: Path, bar_for: Callable = lambda title: lambda items: items) -> Path:
    return prepare(DATASET, root, cache, frame_stride=1, strict=True, progress=lambda items: items, bar_for=bar_for)


@pytest.mark.parametrize("table_from", [1, 1000])
def test_the_pairs_are_those_of_comparing_every_two_frames(table_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the table of fine cells; frames without points, far outliers, and points exactly at the limit."""
    monkeypatch.setattr(module, "TABLE_FROM_FRAMES", table_from)
    rng = np.random.default_rng(0)
    clouds = clouds_of(room(14, turn_degrees=25))
    clouds[3] = np.zeros((0, 3))
    clouds[5] = np.concatenate([clouds[5], [[300.0, -200, 60], [-1e4, 0, 0]]])
    steps = rng.normal(size=clouds[6].shape)
    lengths = NEAR_METRES + rng.choice([-1e-9, 0, 1e-9, 1e-3], (len(steps), 1))
    clouds[7] = clouds[6] + steps / np.linalg.norm(steps, axis=1, keepdims=True) * lengths
    for least in (0.05, 0.3, 0.5):
        expected = plain_overlaps(clouds, least)
        assert 3 < len(expected) < 78 and np.array_equal(overlaps(clouds, least), expected)


def test_every_point_is_decided_as_by_search() -> None:
    """With tables of fine cells, and of cells so large that they can only rule points out."""
    rng = np.random.default_rng(1)
    cloud = voxel_means(rng.uniform(0, 1, (3000, 3)) * [1, 1, 0.02])
    points = rng.uniform(-0.2, 1.2, (20_000, 3)) * [1, 1, 0.2]
    tree = cKDTree(cloud)
    expected = is_near(points, tree, None)
    for outlier in ([], [[900.0, 900, 900]]):
        spread = np.concatenate([cloud, np.reshape(outlier, (-1, 3))])
        table = near_table(spread)
        assert np.array_equal(is_near(points, cKDTree(spread), table), expected)
        assert len(table.states) < 1.3 * module.MAX_TABLE_CELLS and (2 in table.states) == (not outlier)


@pytest.mark.parametrize("clouds", [[], [np.zeros((0, 3))] * 3, [np.ones((1, 3))]])
def test_too_little_for_a_pair(clouds: list[Cloud]) -> None:
    assert overlaps(clouds).shape == (0, 3)


def test_most_pairs_are_ruled_out_before_they_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of two rooms: points of one room are never compared with the other."""
    compared: list[int] = []
    original = module.is_near
    monkeypatch.setattr(module, "is_near", lambda points, *a: compared.append(len(points)) or original(points, *a))
    here = clouds_of(room(4))
    overlaps([*here, *(c + 50 for c in here)])
    assert 0 < sum(compared) <= 2 * 3 * sum(map(len, here))


class Bars:
    """Progress bars that count their items, and can interrupt the command after a given number."""

    def __init__(self, stop_at: str = "") -> None:
        self.counts: dict[str, int] = {}
        self.lengths: dict[str, int] = {}
        self.stop_at = stop_at

    def __call__(self, title: str) -> Callable[[Iterable[str]], Iterable[str]]:
        def wrap(items: Iterable[str]) -> Iterable[str]:
            items = list(items)
            self.lengths[title], self.counts[title] = len(items), 0
            for item in items:
                if title == self.stop_at and self.counts[title] > len(items) / 2:
                    raise KeyboardInterrupt
                self.counts[title] += 1
                yield item

        return wrap


@pytest.mark.slow
def test_a_long_recording_by_several_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same bytes as in one process, progress bars over frames and pairs, and pairs resumed after an interruption."""
    root = write(room(20, turn_degrees=25), tmp_path / "root/scene").parent
    alone = ready(root, tmp_path / "alone")
    monkeypatch.setattr(recording_pairs, "LONG_FRAMES", 10)
    monkeypatch.setattr("pretrain_bench.benchmarks.datasets.frame_writer.LONG_FRAMES", 10)
    with pytest.raises(KeyboardInterrupt):
        ready(root, tmp_path / "c", Bars(stop_at="pairs of scene"))
    (scene,) = (tmp_path / "c").glob("prepared/*.partial/scenes/scene")
    assert (scene / recording_pairs.PENDING).is_file() and "pairs" not in json.loads((scene / "scene.json").read_text())
    bars = Bars()
    folder = ready(root, tmp_path / "c", bars)
    assert bars.counts == bars.lengths == {"points of scene": 20, "pairs of scene": 190}
    assert read_manifest(folder) == read_manifest(alone) and read_manifest(folder).scenes[0].pairs > 20
    assert not [p for p in folder.rglob("*") if p.name in ("clouds", recording_pairs.PENDING)]
    source = Source(DATASET, root, Reading(1, strict=True))
    assert verify_source(source, read_manifest(folder), tmp_path, lambda items: items) == []


@pytest.mark.parametrize(("stride", "numbers"), [(None, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6]), (50, [0])])
def test_a_stride_that_is_given_acts_on_a_folder_of_frames(
    stride: int | None, numbers: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a stride every frame is read, as the dataset declares: its frames are already selected."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "c"))
    root = write(room(7), tmp_path / "root/scene").parent
    folder = pb.prepare_data("rgbd-folder", root, frame_stride=stride, display=pb.Silent()).folder
    assert np.load(folder / "unlabelled/scene/frame_numbers.npy").tolist() == numbers
