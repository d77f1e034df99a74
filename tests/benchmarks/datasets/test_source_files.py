"""A preparation is reused only for the same data, and can be compared with its source files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain_bench.benchmarks.datasets import source_files
from pretrain_bench.benchmarks.datasets.layout import MANIFEST, is_prepared, read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.datasets.source_files import source_digest
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find
from tests.conftest import Bench


def ready(name: str, root: Path, cache: Path) -> Path:
    return prepare(
        find(Dataset, name), root, cache, frame_stride=1, strict=False, progress=lambda items: items, say=print
    )


@pytest.fixture
def room(s3dis_root: Path, tmp_path: Path) -> Path:
    """A dataset of one room, which needs no worker processes."""
    shutil.copytree(s3dis_root / "Area_1/office_1", tmp_path / "s3dis/Area_1/office_1")
    return tmp_path / "s3dis"


def test_other_content_of_the_same_size_and_time_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, path = tmp_path / "data", tmp_path / "data/a.label"
    root.mkdir()

    def digest(content: bytes) -> str:
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
        return source_digest(root, tmp_path / "cache")

    small = b"1" * 1000
    assert digest(small) == digest(small) != digest(small[:-1] + b"2"), "a small file is read whole"
    large = b"1" * (source_files.SMALL_BYTES + 1000)
    middle = len(large) // 2
    assert digest(large) != digest(large[:middle] + b"2" + large[middle + 1 :])
    assert digest(large) != digest(large[:-1] + b"2") and digest(large) != digest(b"2" + large[1:])
    before = digest(small)
    (root / ".DS_Store").write_bytes(b"x")
    assert digest(small) == before, "what an operating system adds is not the data"
    monkeypatch.setattr(source_files, "MOST_FILES_READ", 1)
    for number in range(3):
        (root / f"b{number}.bin").write_bytes(b"x")
    assert digest(small) != digest(b"2" * 1000), "the first of many files is looked into"


def test_a_name_that_is_not_utf8_is_no_fault(room: Path, tmp_path: Path) -> None:
    open(os.fsencode(room) + b"/B\xfcro.txt", "w").close()
    assert read_manifest(ready("s3dis", room, tmp_path / "c")).scenes
    shutil.copytree(room / "Area_1/office_1", os.fsdecode(os.fsencode(room) + b"/Area_1/B\xfcro_1"))
    with pytest.raises(DataError, match=r"the name of the scene Area_1__B\\xfcro_1 is not UTF-8; rename its folder"):
        ready("s3dis", room, tmp_path / "c")


def test_the_originals_are_compared(room: Path, bench: Bench, tmp_path: Path) -> None:
    done = json.loads(bench("data", "prepare", "s3dis", "--root", str(room), "--json").stdout)
    options = ["data", "verify", done["folder"], "--source", "--root", str(room)]
    assert "the originals give the same" in bench(*options).stdout
    folder = room / "Area_1/office_1/Annotations"
    (folder / "chair_1.txt").rename(folder / "window_1.txt")
    found = json.loads(bench(*options, "--json", code=1).stdout)
    assert found["problems"] == [] and found["source"] == [
        f"labelled/Area_1__office_1/{name}.npy: the originals now produce different content"
        for name in ("instance", "semantic")
    ]
    (room / "Area_1/office_1").rename(room / "Area_1/office_2")
    text = bench(*options, code=1).stdout
    assert "Area_1__office_1: the originals do not hold this scene" in text
    assert "1 scenes of the originals are not prepared: Area_1__office_2" in text
    assert f"the originals differ in 2; delete {done['folder']} and prepare again" in text
    (room / "Area_1/office_2").rename(room / "Area_1/office_1")
    (folder / "window_1.txt").write_text("")
    assert "the originals cannot be read: " in bench(*options, code=1).stdout
    assert "give --root DIR" in bench("data", "verify", done["folder"], "--source", code=2).stderr
    assert not list((Path(os.environ["BENCH_CACHE"])).glob("verify-*"))


def test_the_hash_of_a_manifest_covers_no_words_of_libraries(rgbd_root: Path, tmp_path: Path) -> None:
    """Pillow's message about a broken image contains a memory address, which differs between runs."""
    root = tmp_path / "scene"
    shutil.copytree(rgbd_root / "room0000_00", root)
    (root / "depth/1.png").write_bytes(b"no picture")
    manifest = read_manifest(ready("rgbd-folder", root, tmp_path / "c"))
    assert manifest.problems == ("depth/1.png: cannot be decoded: it is not a picture; the frame is left out",)
    other = manifest.model_copy(update={"problems": ("the same in other words",)})
    assert other.sha256 == manifest.sha256
    assert manifest.model_copy(update={"problems": ()}).sha256 != manifest.sha256
    encoded = (rgbd_root / "room0000_00/color/0.jpg").read_bytes()
    with pytest.raises(DataError, match="^frame 3: cannot be decoded: it is not a picture$"):
        from pretrain_bench.benchmarks.datasets.images import decode_colour

        decode_colour(b"x" + encoded, "frame 3")


def test_a_manifest_of_another_program_is_not_ours(room: Path, tmp_path: Path, bench: Bench) -> None:
    for content in ('{"name": "my app", "icons": []}', "[1, 2]", "not JSON"):
        (room / MANIFEST).write_text(content)
        assert not is_prepared(room)
        prepared = ready("s3dis", room, tmp_path / "c")
        assert prepared != room and is_prepared(prepared)
    shown = bench(
        "data", "verify", str(room)
    ).stdout  # the layout is recognised, but it is prepared into another folder
    assert shown.endswith("0 differ from the manifest\n") and str(room) not in shown
    (prepared / MANIFEST).write_text("{")
    with pytest.raises(DataError, match=r"not a manifest of this version.*prepare the data again"):
        ready("s3dis", prepared, tmp_path / "c")


def test_two_pictures_of_one_number_are_refused(rgbd_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "scene"
    shutil.copytree(rgbd_root / "room0000_00", root)
    shutil.copy(root / "color/0.jpg", root / "color/000000.jpg")
    with pytest.raises(
        DataError, match=r"color/000000\.jpg: frame 0 has another picture, 0\.jpg|color/0\.jpg: frame 0"
    ):
        ready("rgbd-folder", root, tmp_path / "c")


def test_upper_case_suffixes(rgbd_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "scene"
    shutil.copytree(rgbd_root / "room0000_00", root)
    usual = read_manifest(ready("rgbd-folder", root, tmp_path / "c"))
    for path in [*root.glob("*/*.jpg"), *root.glob("*/*.png")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    assert read_manifest(ready("rgbd-folder", root, tmp_path / "c")).sha256 == usual.sha256


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        ({"intrinsic": "intrinsics"}, r"rename intrinsics/intrinsic_depth\.txt if it holds them"),
        ({"color": "rgb", "pose": "poses"}, "rename 'rgb' to 'color', 'poses' to 'pose'"),
        ({"": "house/inside"}, "frames found in .*house/inside/scene: give .*house/inside"),
    ],
)
def test_folders_of_other_names_are_named(moved: dict[str, str], said: str, rgbd_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(rgbd_root / "room0000_00", root / "scene")
    for old, new in moved.items():
        if old:
            (root / "scene" / old).rename(root / "scene" / new)
        else:
            (root / new).mkdir(parents=True)
            (root / "scene").rename(root / new / "scene")
            root = root / Path(new).parts[0]
    with pytest.raises(DataError, match=said):
        ready("rgbd-folder", root, tmp_path / "c")


def test_frames_that_all_fail_are_counted_by_reason(rgbd_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "scene"
    shutil.copytree(rgbd_root / "room0000_00", root)
    for number in (0, 1):
        (root / f"pose/{number}.txt").write_text("0,5 0 0 1\n" * 4)
    Image.fromarray(np.zeros((90, 120), np.uint8)).save(root / "depth/2.png")
    with pytest.raises(DataError) as caught:
        ready("rgbd-folder", root, tmp_path / "c")
    assert str(caught.value) == (
        f"scene: no frame can be used at a stride of 1: 2 of 3 frames: {root}/pose/0.txt: expected a matrix of 4x4 numbers; "
        f"line 1 is '0,5 0 0 1'; write decimals with a point; 1 of 3 frames: {root}/depth/2.png: expected a 16-bit greyscale "
        "depth image, found a picture in 8-bit greyscale"
    )
    for number in range(3):
        (root / f"depth/{number}.png").rename(root / f"depth/{number:06d}.png")
    with pytest.raises(DataError, match=r"3 of 3 frames: .*depth/0\.png: no such file; the folder holds 000000\.png, "):
        ready("rgbd-folder", root, tmp_path / "c")
