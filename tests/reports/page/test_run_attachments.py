"""Confusion matrices and pictures on the page are bounded in size, and never break the page."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pretrain_bench.harness.store.store import CONFUSION, Store
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.page import run_attachments, run_details
from pretrain_bench.reports.page.run_details import ByteAllowance
from tests.reports.stores import add, stage

pytestmark = pytest.mark.usefixtures("undrawn")

LABELS = [[90, 10], [0, 0]]


COUNTS = {c: {"voxel": LABELS} for c in ("final", "selected", "best")}


def run_folder(store: Store, score: float = 0.5, seed: int = 0) -> Path:
    """The folder of a new fine-tuning run with the classes `x` and `y`."""
    before = set(store.root.glob("finetune/*"))
    add(store, "ours", score, seed)
    (folder,) = set(store.root.glob("finetune/*")) - before
    return folder


def told(store: Store, out: Path, **options: Any) -> dict[str, Any]:
    """The data of the page."""
    page = build_report(store, out, **options).files["page"].read_text()
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def png(path: Path, side: int = 40, noise: bool = False) -> Path:
    pixels = (
        np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        if noise
        else np.zeros((side, side, 3), np.uint8)
    )
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_the_matrix_of_the_checkpoint_that_counts_is_on_the_page(store: Store, tmp_path: Path) -> None:
    counts = {**COUNTS, "selected": {"voxel": [[3, 1], [0, 5]], "point": LABELS}}
    (run_folder(store) / CONFUSION).write_text(json.dumps(counts))
    data = told(store, tmp_path / "out")
    (run,) = data["runs"]
    assert run["confusion"] == {"level": "voxel", "rows": [[750, 250], [0, 1000]], "totals": [4, 5], "of": "selected"}
    assert data["classes"][run["classes"]] == ["x", "y"] and "problems" not in run and data["left_out"] == []


def test_points_are_counted_where_the_task_is_judged_on_points(tmp_path: Path) -> None:
    (tmp_path / CONFUSION).write_text(json.dumps({"final": {"voxel": [[1]], "point": [[7]]}}))
    assert run_attachments.confusion(tmp_path, "final", "point", 1) == ("point", [[1000]], [7])
    (tmp_path / CONFUSION).write_text(json.dumps({"final": {"voxel": [[1]]}}))
    assert run_attachments.confusion(tmp_path, "final", "ap50", 1) == ("voxel", [[1000]], [1])


def test_a_run_without_counts_has_no_matrix_and_no_complaint(store: Store, tmp_path: Path) -> None:
    run_folder(store)
    (run,) = told(store, tmp_path / "out")["runs"]
    assert not {"confusion", "problems", "pictures"} & set(run)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[]", "nothing of the selected checkpoint"),
        (b'{"final": {"voxel": [[1, 2], [3, 4]]}}', "nothing of the selected checkpoint"),
        (b'{"selected": {"voxel": [[1, 2]]}}', "2 classes by 2"),
        (b'{"selected": {"voxel": [[1, 2], [3]]}}', "2 classes by 2"),
        (b'{"selected": {"voxel": [[1, -2], [3, 4]]}}', "2 classes by 2"),
        (b'{"selected": {"voxel": [[1, 2.5], [3, 4]]}}', "2 classes by 2"),
        (b'{"selected": {"voxel": [[1, true], [3, 4]]}}', "2 classes by 2"),
        (b'{"selected": {"voxel": [[1, 1' + b"0" * 400 + b"], [3, 4]]}}", "2 classes by 2"),
        (b'{"selected": {"voxel": "<script>alert(1)</script>"}}', "2 classes by 2"),
        (b" " * (run_attachments.MOST_COUNTS_BYTES + 1), "larger than 4,194,304 bytes"),
    ],
)
def test_damaged_counts_are_a_line_on_the_page(store: Store, tmp_path: Path, content: bytes, why: str) -> None:
    (run_folder(store) / CONFUSION).write_bytes(content)
    (run,) = told(store, tmp_path / "out")["runs"]
    assert "confusion" not in run
    (line,) = run["problems"]
    assert line.startswith(CONFUSION) and why in line and "script" not in line


def test_links_are_not_followed(store: Store, tmp_path: Path) -> None:
    folder = run_folder(store)
    (tmp_path / "elsewhere.json").write_text(json.dumps(COUNTS))
    os.symlink(tmp_path / "elsewhere.json", folder / CONFUSION)
    png(tmp_path / "secret.png")
    (folder / "pictures").mkdir()
    os.symlink(tmp_path / "secret.png", folder / "pictures/a.png")
    (run,) = told(store, tmp_path / "out")["runs"]
    assert "confusion" not in run and run["pictures"] == []
    assert [line.rpartition(": ")[2] for line in run["problems"]] == ["it is a link, and none is followed"] * 2
    (folder / "pictures/a.png").unlink()
    (folder / "pictures").rmdir()
    os.symlink(tmp_path, folder / "pictures")
    assert run_attachments.pictures(folder) == ([], 0)


def test_class_names_are_text(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "</script><script>alert(1)</script>"
    data = {
        "dataset": "s3dis",
        "manifest_sha256": "2" * 64,
        "synthetic": False,
        "view": "labelled",
        "classes": ["x", evil],
    }
    monkeypatch.setattr("tests.reports.stores.stage", lambda *a, **k: stage(*a, **{"data": data, **k}))
    (run_folder(store) / CONFUSION).write_text(json.dumps(COUNTS))
    page = build_report(store, tmp_path / "out").files["page"].read_text()
    assert page.count("\\u003c/script>\\u003cscript>alert(1)") == 2, "among the classes, and in the spec"
    assert "<script>alert" not in page


def test_pictures_stand_in_the_page_and_none_is_large(store: Store, tmp_path: Path) -> None:
    folder = run_folder(store)
    for name in "abcd":
        png(folder / f"pictures/{name}.png")
    png(folder / "pictures/b.png", 900, noise=True)
    assert (folder / "pictures/b.png").stat().st_size > run_attachments.MOST_PICTURE_BYTES
    (run,) = told(store, tmp_path / "out")["runs"]
    assert [name for name, _ in run["pictures"]] == ["a", "b", "c"]
    assert run["problems"] == ["more pictures in pictures/ of the run's folder: 1"]
    for _, uri in run["pictures"]:
        content = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
        assert len(content) <= run_attachments.MOST_PICTURE_BYTES
        assert Image.open(io.BytesIO(content)).format == "PNG"


def test_no_pictures_where_none_are_wanted(store: Store, tmp_path: Path) -> None:
    png(run_folder(store) / "pictures/a.png")
    (run,) = told(store, tmp_path / "out", scene_pictures=False)["runs"]
    assert "pictures" not in run and "problems" not in run


def test_what_is_no_picture_is_a_line_on_the_page(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder(store)
    whole = png(folder / "pictures/whole.png", 400, noise=True).read_bytes()
    (folder / "pictures/a.png").write_bytes(b"GIF89a")
    (folder / "pictures/b\x1b[31m.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (4000, 4000)).save(folder / "pictures/c.png")
    (run,) = told(store, tmp_path / "out")["runs"]
    assert run["pictures"] == [] and len(run["problems"]) == 4
    assert "4000 x 4000 pixels are too many" in run["problems"][2] and not any(
        "\x1b" in line for line in run["problems"]
    )
    monkeypatch.setattr(run_attachments, "MOST_FILE_BYTES", 1000)
    with pytest.raises(run_attachments.Unreadable, match="larger"):
        run_attachments.picture_uri(folder / "pictures/whole.png")


def test_a_page_says_what_it_has_no_place_for(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        folder = run_folder(store, seed=seed)
        (folder / CONFUSION).write_text(json.dumps(COUNTS))
        png(folder / "pictures/a.png")
    monkeypatch.setattr(run_details, "MOST_MATRICES_BYTES", 100)
    monkeypatch.setattr(run_details, "MOST_PICTURES_BYTES", 90_000)
    data = told(store, tmp_path / "out")
    assert sum("pictures" in r for r in data["runs"]) == 2
    assert sum("confusion" in r for r in data["runs"]) == 2
    assert [line.split(" runs")[0] for line in data["left_out"]] == [
        "The confusion matrices of 2",
        "The pictures of predictions of 2",
    ]
    assert data["left_out"][1] in (tmp_path / "out/index.html").read_text()


def test_a_share_is_first_come_first_served() -> None:
    allowance = ByteAllowance(10)
    assert [allowance.take(n) for n in (4, 6, 1, 0)] == [True, True, False, False]
    assert allowance.left_out == 2 and allowance.used == 10
