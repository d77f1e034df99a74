"""Check, cut and draw prepared datasets, through the command line if it has a command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets import drawing, images
from pretrain_bench.benchmarks.datasets.layout import Manifest, SceneEntry, read_manifest
from pretrain_bench.benchmarks.datasets.preview import contact_sheet
from pretrain_bench.benchmarks.datasets.splits import split_scenes
from pretrain_bench.benchmarks.datasets.subset import choose_scenes
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.harness.planning.catalog import find
from tests.conftest import Bench


@pytest.fixture
def prepared(s3dis_root: Path, bench: Bench) -> Path:
    return Path(json.loads(bench("data", "prepare", "s3dis", "--root", str(s3dis_root), "--json").stdout)["folder"])


def test_one_flipped_bit_a_missing_and_a_foreign_file_are_found(prepared: Path, bench: Bench, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(prepared, tmp_path / "copy"))
    assert ", 0 differ" in bench("data", "verify", str(copy)).stdout
    victim = copy / "labelled/Area_1__office_2/semantic.npy"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    victim.unlink()
    victim.write_bytes(bytes(content))
    (copy / "unlabelled/Area_1__office_0/rgb.npy").unlink()
    (copy / "unlabelled/Area_1__office_1/hint.npy").write_bytes(b"x")
    found = json.loads(bench("data", "verify", str(copy), "--json", code=1).stdout)["problems"]
    assert sorted(found) == [
        "labelled/Area_1__office_2/semantic.npy: its content has changed (sha256 differs)",
        "unlabelled/Area_1__office_0/rgb.npy: missing",
        "unlabelled/Area_1__office_1/hint.npy: not in the manifest",
    ]


def test_a_subset_is_a_dataset(prepared: Path, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    stdout = bench("data", "subset", str(prepared), "--out", str(out), "--scenes", "3").stdout
    assert f"use it: --data s3dis={out}" in stdout
    manifest = read_manifest(out)
    assert len(manifest.scenes) == 3 and "Area_5__office_1" in {s.name for s in manifest.scenes}
    split = split_scenes([s.name for s in manifest.scenes], find(Dataset, "synth-s3dis"), LabelRatio())
    assert len(split.train) == 2 and len(split.test) == 1
    assert ", 0 differ" in bench("data", "verify", str(out)).stdout
    assert "not empty" in bench("data", "subset", str(prepared), "--out", str(out), code=2).stderr
    assert choose_scenes(find(Dataset, "s3dis"), manifest, 1)


def test_a_subset_of_frames(rgbd_root: Path, bench: Bench, tmp_path: Path) -> None:
    bench("data", "subset", "rgbd-folder", "--root", str(rgbd_root), "--out", "cut", "--scenes", "1", "--frames", "2")
    (scene,) = read_manifest(tmp_path / "cut").scenes
    folder = tmp_path / "cut/unlabelled" / scene.name
    assert scene.frames == 2 == len(np.load(folder / "poses.npy"))
    assert np.load(folder / "frame_numbers.npy").tolist() == [0, 2]
    assert sorted(p.name for p in (folder / "frames").iterdir()) == [
        "000000.depth.png", "000000.jpg", "000001.depth.png", "000001.jpg",
    ]  # fmt: skip
    assert scene.pairs == len(np.load(folder / "pairs.npy")) <= 1


def test_counts_are_those_of_the_labels(s3dis_root: Path, bench: Bench) -> None:
    counts = json.loads(bench("data", "info", "s3dis", "--root", str(s3dis_root), "--json").stdout)["counts"]
    assert counts["scenes"] == 7 and sum(counts["classes"].values()) + counts["without_class"] == counts["points"]
    assert {c for c, n in counts["classes"].items() if n} == {"floor", "wall", "chair"}
    text = bench("data", "info", "s3dis", "--root", str(s3dis_root)).stdout
    assert "7 scenes" in text and max(map(len, text.splitlines())) <= 140


def test_previews_are_pictures(prepared: Path, bench: Bench, tmp_path: Path) -> None:
    from PIL import Image

    bench("data", "preview", str(prepared), "--out", "a/sheet.png", "--scenes", "2")
    bench("data", "preview", str(prepared), "--out", "bare.png", "--scenes", "2", "--no-labels")
    with Image.open(tmp_path / "a/sheet.png") as sheet, Image.open(tmp_path / "bare.png") as bare:
        assert sheet.width == 2 * drawing.TILE[0] and bare.width == drawing.TILE[0]
        colours = {tuple(c) for c in np.asarray(sheet).reshape(-1, 3)[::7].tolist()}
    classes = find(Dataset, "s3dis").classes
    for name in ("floor", "wall", "chair"):
        assert tuple(drawing.palette(len(classes))[classes.index(name)].tolist()) in colours, name


def test_a_preview_shows_the_labelled_points_of_a_ratio(prepared: Path, bench: Bench, tmp_path: Path) -> None:
    from PIL import Image

    def coloured(*ratio: str) -> int:
        """Pixels of the label tile that are neither white nor grey."""
        bench("data", "preview", str(prepared), "--out", "few.png", "--scenes", "1", *ratio)
        with Image.open(tmp_path / "few.png") as sheet:
            tile = np.asarray(sheet).astype(int)[42 : 42 + drawing.TILE[1], drawing.TILE[0] :]
        return int((np.ptp(tile, axis=2) > 20).sum())

    whole, few = coloured("--label-ratio", "100%"), coloured("--label-ratio", "20points")
    assert 0 < few <= 20 * 36 < whole
    said = bench("data", "preview", str(prepared), "--label-ratio", "lr20", code=2).stderr
    assert "is for ScanNet, not for 's3dis'" in " ".join(said.split())


def test_previews_keep_the_aspect_ratio_of_pictures(tmp_path: Path) -> None:
    """An image twice as wide as high fills the width of its tile, with equal white margins above and below."""
    for folder in ("unlabelled/s/frames", "labelled"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "unlabelled/s/frames/000000.png").write_bytes(images.encode_colour(np.zeros((50, 100, 3), np.uint8)))
    (tmp_path / "unlabelled/s/frames/000000.depth.png").write_bytes(
        images.encode_depth(np.full((50, 100), 1000, np.uint16))
    )
    entry = SceneEntry(name="s", frames=1)
    manifest = Manifest(dataset="rgbd-folder", synthetic=False, scenes=(entry,), files={})
    sheet = np.asarray(contact_sheet(find(Dataset, "rgbd-folder"), tmp_path, manifest, 1))
    width, height = drawing.TILE
    tile = sheet[24 + 18 : 24 + 18 + height, :width]
    black = (tile == 0).all(axis=2)
    assert black.all(axis=1).sum() == width // 2 and not black[: (height - width // 2) // 2].any()
    assert (tile[~black] == 255).all()


def test_palette_colours_differ() -> None:
    for count in (10, 13, 20):
        colours = drawing.palette(count).astype(int)
        apart = np.abs(colours[:, None] - colours[None]).sum(2) + 1000 * np.eye(count + 1, dtype=int)
        assert len(colours) == count + 1 and apart.min() > 20


@pytest.mark.slow
def test_synth_writes_the_official_layout(bench: Bench, tmp_path: Path) -> None:
    assert "not a procedural dataset" in bench("data", "synth", "s3dis", "--out", "x", code=2).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_text("")
    assert "not empty" in bench("data", "synth", "synth-s3dis", "--out", "full", code=2).stderr
    bench("data", "synth", "synth-s3dis", "--out", "s3dis")
    assert len(list((tmp_path / "s3dis").glob("Area_*/*/Annotations"))) == 11
    stdout = bench("data", "prepare", "s3dis", "--root", "s3dis").stdout
    assert "11 scenes" in stdout


@pytest.mark.slow
def test_an_interrupted_preparation_leaves_no_scene_half_done(s3dis_root: Path, tmp_path: Path) -> None:
    """Killed at a random moment and repeated, it gives the result of an uninterrupted run."""
    import os
    import signal
    import subprocess
    import time

    from tests.conftest import bench_command

    command = bench_command("data", "prepare", "s3dis", "--root", str(s3dis_root), "--json")
    environment = {**os.environ, "BENCH_CACHE": str(tmp_path / "killed")}
    for delay in (0.5, 0.8, 1.0):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    clean = subprocess.run(
        command, env={**environment, "BENCH_CACHE": str(tmp_path / "clean")}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["manifest"] == json.loads(clean.stdout)["manifest"]
    assert not list((tmp_path / "killed").glob("prepared/*.partial"))
