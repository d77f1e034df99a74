"""`bench features` and `bench methods check`, on runs of minimal size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from pretrain_bench.harness.contract.stage import key_of
from pretrain_bench.reports.figures.features import draw_features, feature_colours
from tests.conftest import NANO, Bench, run_records


@pytest.mark.slow
def test_separate_groups_get_distinct_colours() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3)
    groups = [np.concatenate([c + 0.02 * rng.normal(size=(60, 3)) for c in centres]) for _ in range(2)]
    one, two = feature_colours(groups)
    assert one.shape == two.shape == (180, 3) and one.dtype == np.uint8
    for a in range(3):
        own = [g[60 * a : 60 * a + 60].astype(float) for g in (one, two)]
        within = np.linalg.norm(own[0] - own[1].mean(0), axis=1).mean()
        others = np.concatenate([np.delete(g, range(60 * a, 60 * a + 60), 0) for g in (one, two)]).astype(float)
        assert within < np.linalg.norm(others - own[0].mean(0), axis=1).mean()
    assert all(np.array_equal(a, b) for a, b in zip(feature_colours(groups), (one, two), strict=True)), (
        "a seed, no chance"
    )


@pytest.mark.slow
def test_few_rows_of_equal_features_are_drawn(tmp_path: Path) -> None:
    uv = np.array([[0, 0], [3, 2], [1, 1], [2, 0]])
    arrays = {"image": np.zeros((4, 5, 3), np.uint8), "xyz": np.zeros((4, 3)), "rgb": np.zeros((4, 3)), "uv": uv,
              "voxel": np.arange(4), "points_before": np.ones((4, 2)), "points_after": np.zeros((4, 2))}  # fmt: skip
    paths = draw_features({7: arrays}, "title", tmp_path / "new")
    assert [p.name for p in paths] == ["features.png", "features-before.ply", "features-after.ply"]
    assert all(p.stat().st_size > 100 for p in paths)


@pytest.mark.slow
def test_each_panel_is_drawn_once_for_each_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = np.array([[0, 0], [3, 2], [1, 1], [2, 0]])
    rng = np.random.default_rng(0)
    panels: list[str] = []
    monkeypatch.setattr(
        "pretrain_bench.reports.figures.features._picture", lambda axes, image, title: panels.append(title)
    )
    frames = {
        number: {"image": np.zeros((4, 5, 3), np.uint8), "xyz": np.zeros((4, 3)), "rgb": np.zeros((4, 3)), "uv": uv,
                 "voxel": np.arange(4), "crop": np.zeros((3, 3, 3), np.uint8)}
        | {f"{of}_{when}": rng.normal(size=size) for when in ("before", "after") for of, size in
           (("points", (4, 2)), ("pixels", (3, 3, 2)))}
        for number in (2, 5)
    }  # fmt: skip
    paths = draw_features(frames, "title", tmp_path)
    assert [p.name for p in paths[1:]] == [f"features-{n}-{when}.ply" for when in ("before", "after") for n in (2, 5)]
    features = [
        f"{of}, {when}" for when in ("before", "after") for of in ("point features", "pixel features of the crop")
    ]
    images = [f"frame {n}{words}" for n in (2, 5) for words in ("", ": points with depth")]
    assert sorted(panels) == sorted([*images, *features * 2, "the crop", "the crop"])


@pytest.mark.slow
def test_features_of_runs(bench: Bench, tmp_path: Path) -> None:
    methods = [x for name in ("ours", "pointcontrast", "scratch") for x in ("--method", name)]
    bench("run", *methods, "--task", "s3dis-sem", *NANO, "--threads", "1")  # two threads are slower at this size
    keys = {(r["method"], r["stage"]): r["key"] for r in run_records(tmp_path / "runs")}
    written = json.loads(
        bench("features", keys["ours", "points"], "--frame", "0", "--frame", "1", "--json", "--out", "o").stdout
    )
    picture = np.asarray(Image.open(tmp_path / written[0]).convert("RGB")).astype(int)
    assert np.ptp(picture, axis=2).max() > 200, "there are colours in it"
    vertices = [PlyData.read(tmp_path / p)["vertex"] for p in written[1:]]
    colours = [np.stack([v[c] for c in ("red", "green", "blue")]) for v in vertices]
    assert [p.rsplit("/")[-1] for p in written[1:]] == [
        "features-0-before.ply", "features-1-before.ply", "features-0-after.ply", "features-1-after.ply"
    ]  # fmt: skip
    vertices, colours = vertices[::2], colours[::2]  # the first frame
    assert len(vertices[0]) == len(vertices[1]) > 1000 and not np.array_equal(colours[0], colours[1])
    alone = json.loads(
        bench("features", keys["pointcontrast", "pairs"], "--scene", "scene0000_00", "--json", "--out", "p").stdout
    )
    assert Image.open(tmp_path / alone[0]).size[0] < picture.shape[1], "no image network, so no column for pixels"
    run = tmp_path / "runs/pretrain" / keys["pointcontrast", "pairs"]
    spec = json.loads((run / "spec.json").read_text())
    assert spec.pop("input") == "geometry"
    (run / "spec.json").write_text(json.dumps(spec))
    run.rename(run.with_name(key_of(spec)))
    earlier = json.loads(bench("features", key_of(spec), "--scene", "scene0000_00", "--json", "--out", "e").stdout)
    assert (tmp_path / earlier[0]).read_bytes() == (tmp_path / alone[0]).read_bytes(), (
        "a run of before the field `input`"
    )
    said = bench("features", keys["ours", "points"], "--frame", "800", code=2).stderr
    assert "so there is no frame 800; scenes with frames: scene0000_00" in said
    assert "trains no network on points" in bench("features", keys["ours", "images"], code=2).stderr
    assert "features are drawn of a pre-training on data" in bench("features", keys["scratch", "init"], code=2).stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ours", "scratch"])
def test_a_method_that_ships_conforms(method: str, bench: Bench) -> None:
    verdicts = {v["check"]: v for v in json.loads(bench("methods", "check", method, "--json").stdout)}
    assert list(verdicts) == ["needs", "run", "events", "budget", "fine-tuning", "labels", "repetition", "seed",
                              "resumption"]  # fmt: skip
    for name, verdict in verdicts.items():
        without = method == "scratch" and name in ("needs", "labels", "resumption")
        assert verdict["verdict"] == ("n/a" if without else "ok"), verdict
    assert verdicts["fine-tuning"]["seen"].startswith("372 of 374")
