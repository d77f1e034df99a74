from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets.layout import MANIFEST, read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare, prepared_already
from pretrain_bench.benchmarks.datasets.views import load_cloud, load_labels
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError, EnvironmentCannot
from pretrain_bench.harness.planning.catalog import find

DATASET = find(Dataset, "s3dis")


def ready(root: Path, cache: Path, progress=lambda items: items) -> Path:
    return prepare(DATASET, root, cache, frame_stride=1, strict=False, progress=progress)


def test_round_trip_and_idempotence(s3dis_root: Path, tmp_path: Path) -> None:
    prepared = ready(s3dis_root, tmp_path)
    manifest = read_manifest(prepared)
    assert [s.name for s in manifest.scenes][-1] == "Area_5__office_1" and len(manifest.scenes) == 7
    cloud, labels = load_cloud(prepared, "Area_1__office_0"), load_labels(prepared, "Area_1__office_0")
    assert len(cloud.xyz) == len(labels.semantic) == manifest.scenes[0].points
    floor = np.asarray(labels.semantic) == DATASET.classes.index("floor")
    assert np.abs(cloud.xyz[floor][:, 2]).max() == 0 and cloud.rgb[floor][:, 0].min() > 150
    before = (prepared / MANIFEST).stat().st_mtime_ns
    assert ready(s3dis_root, tmp_path) == prepared and (prepared / MANIFEST).stat().st_mtime_ns == before
    assert ready(prepared, tmp_path) == prepared, "a prepared folder may be given instead of the official layout"


def test_the_manifest_depends_on_content_only(s3dis_root: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(s3dis_root, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    one, two = ready(s3dis_root, tmp_path / "a"), ready(Path(elsewhere), tmp_path / "b")
    assert read_manifest(one).sha256 == read_manifest(two).sha256
    assert str(tmp_path) not in (one / MANIFEST).read_text()


def test_the_unlabelled_view_holds_nothing_of_the_labels(s3dis_root: Path, tmp_path: Path) -> None:
    """If only labels change, the unlabelled bytes stay equal and the labelled ones differ."""
    other = Path(shutil.copytree(s3dis_root, tmp_path / "other"))
    for folder in other.glob("Area_*/*/Annotations"):
        # The order of the files changes too.
        for old, new in (("chair_1", "window_1"), ("floor_1", "column_1"), ("wall_1", "beam_1")):
            (folder / f"{old}.txt").rename(folder / f"{new}.txt")
    one, two = read_manifest(ready(s3dis_root, tmp_path / "a")), read_manifest(ready(other, tmp_path / "b"))
    unlabelled = {k: v for k, v in one.files.items() if k.startswith("unlabelled/")}
    assert unlabelled == {k: v for k, v in two.files.items() if k.startswith("unlabelled/")} and unlabelled
    assert all(two.files[k] != v for k, v in one.files.items() if k.endswith("semantic.npy"))
    assert not any("label" in Path(k).name or "semantic" in k or "instance" in k for k in unlabelled)


def test_two_rooms_whose_names_join_to_one_are_refused(s3dis_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(s3dis_root, tmp_path / "root"))
    shutil.copytree(root / "Area_1/office_0", root / "Area_1__office_1/x_1")
    shutil.copytree(root / "Area_1/office_0", root / "Area_1/office_1__x_1")
    with pytest.raises(DataError, match=r"Area_1/office_1__x_1 and Area_1__office_1/x_1 would both become scene"):
        ready(root, tmp_path / "cache")


def test_a_wrong_root_is_refused_before_its_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walk(*_: object) -> str:
        raise AssertionError("every file of the root is looked at")

    (tmp_path / "disk/proc/1").mkdir(parents=True)
    monkeypatch.setattr("pretrain_bench.benchmarks.datasets.prepare.source_digest", walk)
    with pytest.raises(DataError, match="no S3DIS room found"):
        ready(tmp_path / "disk", tmp_path / "cache")
    assert prepared_already(DATASET, tmp_path / "disk", tmp_path / "cache", 1) is None


def test_a_scene_is_in_a_manifest_once(s3dis_root: Path, tmp_path: Path) -> None:
    prepared = ready(s3dis_root, tmp_path)
    content = json.loads((prepared / MANIFEST).read_text())
    content["scenes"].append(content["scenes"][0])
    (prepared / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(DataError, match="'Area_1__office_0' is listed 2 times"):
        read_manifest(prepared)


def test_an_interrupted_preparation_resumes(s3dis_root: Path, tmp_path: Path) -> None:
    def stop_after_three(items: Iterable[str]) -> Iterable[str]:
        for number, item in enumerate(items):
            if number == 3:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        ready(s3dis_root, tmp_path, stop_after_three)
    assert not list(tmp_path.rglob(MANIFEST))
    done = sorted(tmp_path.glob("prepared/*.partial/scenes/*/scene.json"))
    assert len(done) >= 3
    times = [p.stat().st_mtime_ns for p in done]
    survivors: list[int] = []

    def look(items: Iterable[str]) -> Iterable[str]:
        yield from items
        survivors.extend(p.stat().st_mtime_ns for p in done)

    prepared = ready(s3dis_root, tmp_path, look)
    assert survivors == times, "finished scenes are not read again"
    assert read_manifest(prepared) == read_manifest(ready(s3dis_root, tmp_path / "fresh"))
    assert not list(tmp_path.glob("prepared/*.partial"))


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data root .* is not a folder"):
        ready(tmp_path / "nowhere", tmp_path)


def test_a_cache_that_cannot_be_written(s3dis_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentCannot, match="preparing s3dis: cannot be written: Not a directory"):
        ready(s3dis_root, tmp_path / "file")


def test_labels_are_refused_where_the_view_has_none(s3dis_root: Path, tmp_path: Path) -> None:
    prepared = ready(s3dis_root, tmp_path)
    view = tmp_path / "view"
    view.mkdir()
    (view / "unlabelled").symlink_to(prepared / "unlabelled")
    assert len(load_cloud(view, "Area_1__office_0").xyz)
    with pytest.raises(DataError, match="this view of the dataset does not include it"):
        load_labels(view, "Area_1__office_0")


def test_data_behind_links_are_distinguished(s3dis_root: Path, tmp_path: Path) -> None:
    """Roots that link to different data are different datasets, and a change behind a link is detected."""
    real = Path(shutil.copytree(s3dis_root, tmp_path / "real"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one/Area_1").symlink_to(real / "Area_1")
    (tmp_path / "two/Area_1").symlink_to(s3dis_root / "Area_5")
    first, second = ready(tmp_path / "one", tmp_path / "c"), ready(tmp_path / "two", tmp_path / "c")
    assert first != second
    wall = real / "Area_1/office_0/Annotations/wall_1.txt"
    wall.write_text(wall.read_text() + "1 1 1 1 1 1\n")
    assert ready(tmp_path / "one", tmp_path / "c") != first


def test_a_cache_below_the_data_changes_nothing(s3dis_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(s3dis_root, tmp_path / "root"))
    assert ready(root, root / "cache") == ready(root, root / "cache")
