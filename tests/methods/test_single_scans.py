"""Single scans without poses: `ours` and `depthcontrast` learn from all sources of images with points, through one reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain_bench.benchmarks.datasets.views import load_frame
from pretrain_bench.benchmarks.procedural.write import generate
from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.harness.contract.events import EVENTS_FILE, Start, read_events
from pretrain_bench.harness.planning.applicable import NotApplicable, check_needs
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.running.checks import check_pretrain
from pretrain_bench.methods.networks.pointnet2 import SetAbstraction
from pretrain_bench.methods.ours.points import frame_sample
from pretrain_bench.methods.ours.recipe import OursPoints
from pretrain_bench.methods.training.checkpoint import load_weights
from pretrain_bench.methods.training.frames import frames_of
from tests.conftest import NANO, SHARED, Bench, run_records
from tests.methods.stages import (
    nano_stages,
    open_stage,
    prepared,
    recipe_in,
    run_all,
    small_scans,
    training_of,
)

REAL = SHARED / "realdata"
SOURCES = {
    "rgbd-folder": "6 frames by the camera's axes, (x, y, z) to (x, z, -y)",
    "synth-sunrgbd": "3 frames by the dataset's tilt matrix Rtilt after (x, z, -y)",
    "synth-kitti": "3 frames by the laser's frame, whose z is up",
}
"""The notes of a run about the training scenes of each source."""


@pytest.fixture(scope="module")
def sources(rgbd_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedDataset]:
    """Sources by name; the recordings have no pose files."""
    root = tmp_path_factory.mktemp("unposed") / "root"
    shutil.copytree(rgbd_root, root, ignore=shutil.ignore_patterns("pose"))
    found = {name: small_scans(name, cache) for name in SOURCES if name != "rgbd-folder"}
    return {**found, "rgbd-folder": prepared(find(Dataset, "rgbd-folder"), root, cache)}


@pytest.mark.parametrize("source", SOURCES)
def test_a_step_of_each_method_on_each_source(source: str, sources: dict[str, PreparedDataset], tmp_path: Path) -> None:
    """The first step of both methods, and a sample of the second stage of `ours`; pre-training scenes are training scenes."""
    for method in ("ours", "depthcontrast"):
        planned = nano_stages(method, sources[source])
        data = planned[0].spec.data
        assert (
            data is not None and data.view == "unlabelled" and not set(data.scenes) & scenes_to_test_on(sources[source])
        )
        training = training_of(open_stage(planned[0], tmp_path / method, {}))
        result = training.run_step(0, training.make_batch(0))
        assert np.isfinite(result.loss) and result.seen["frames"] == 2
        assert not list((tmp_path / method).rglob("labelled"))
    recipe = OursPoints.model_validate(nano_stages("ours", sources[source])[1].spec.recipe)
    frame = load_frame(sources[source].folder, sources[source].scenes[0], 0)
    sample = frame_sample(frame, recipe, np.random.default_rng(0))
    assert sample is not None and len(sample.rows) == recipe.pairs_per_frame
    assert {tuple(uv) for uv in sample.uv.tolist()} <= {tuple(uv) for uv in frame.uv.tolist()}


def test_the_point_network_of_depthcontrast_looks_further_in_scans_of_a_laser(
    sources: dict[str, PreparedDataset], tmp_path: Path
) -> None:
    """With radii for rooms nearly every laser point would be isolated, and batch norm over equal rows makes gradients explode."""
    for name, factor in (("synth-sunrgbd", 1.0), ("synth-kitti", 4.0)):
        training = training_of(open_stage(nano_stages("depthcontrast", sources[name])[0], tmp_path / name, {}))
        levels = [m.level for m in training.modules["point_query"].modules() if isinstance(m, SetAbstraction)]
        assert [level.radius_metres for level in levels] == [factor * r for r in (0.2, 0.4, 0.8, 1.2)]


def scenes_to_test_on(source: PreparedDataset) -> set[str]:
    """Names of the test scenes of these sources, which no training may read."""
    return {s for s in source.scenes if s.startswith("08__")} | set(source.tested)


def whole_pretraining(method: str, source: PreparedDataset, root: Path) -> dict[str, str]:
    """Run all stages up to a complete backbone; returns the notes of the last."""
    planned = nano_stages(method, source)
    artifacts = run_all(planned, root)
    check_pretrain(planned[-1].spec, artifacts, last=True)
    assert set(load_weights(artifacts / "backbone.safetensors")) >= set(backbone_shapes(planned[-1].spec.network))
    parents = {stage.spec.stage: root / stage.spec.stage / "out/artifacts" for stage in planned[:-1]}
    context = open_stage(planned[-1], root / "again", parents)
    training_of(context)
    return context.notes


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_whole_pretrainings_on_each_source(source: str, sources: dict[str, PreparedDataset], tmp_path: Path) -> None:
    assert whole_pretraining("ours", sources[source], tmp_path / "ours")["z_up"] == SOURCES[source]
    notes = whole_pretraining("depthcontrast", sources[source], tmp_path / "depthcontrast")
    assert notes["axes"].startswith("camera frame (x right, y down, z forward)") and "z_up" not in notes


@pytest.mark.parametrize("method", ["csc", "pointcontrast"])
def test_methods_of_several_views_are_refused_by_name(method: str, sources: dict[str, PreparedDataset]) -> None:
    """The message says whether the dataset has no poses, or only these recordings."""
    for name in ("sunrgbd", "semantickitti", "synth-sunrgbd", "synth-kitti"):
        said = f"method '{method}' needs multiple_views, poses, which dataset '{name}' does not have"
        with pytest.raises(NotApplicable, match=said):
            check_needs(find(Method, method), find(Dataset, name))
    said = f"method '{method}' needs multiple_views, poses, which none of the 2 scenes of 'rgbd-folder'"
    with pytest.raises(NotApplicable, match=said):
        nano_stages(method, sources["rgbd-folder"])


@pytest.mark.parametrize("method", ["ours", "depthcontrast"])
def test_scans_without_pictures_are_refused_by_name(method: str, sources: dict[str, PreparedDataset]) -> None:
    source = sources["synth-kitti"]
    blind = tuple(s.model_copy(update={"frames": 0}) for s in source.manifest.scenes)
    bare = source._replace(manifest=source.manifest.model_copy(update={"scenes": blind}))
    with pytest.raises(
        NotApplicable, match=f"'{method}' needs frames, images, which none of the 3 scenes of 'synth-kitti'"
    ):
        nano_stages(method, bare)


def test_scans_without_an_image_are_skipped_and_reported(sources: dict[str, PreparedDataset], tmp_path: Path) -> None:
    source = sources["synth-kitti"]
    folder = Path(shutil.copytree(source.folder, tmp_path / "prepared"))
    (folder / "unlabelled" / source.scenes[0] / "image.png").unlink()
    context = open_stage(nano_stages("ours", source._replace(folder=folder))[0], tmp_path / "stage", {})
    assert {scene for scene, _ in frames_of(context)} == set(source.scenes[1:3])
    context.start(Start(total_steps=1, resumed_from=0))
    (told,) = [e for e in read_events(context.out / EVENTS_FILE) if e.event == "warning"]
    assert told.message == "1 of the 3 scenes have no frames and are not used"


def test_preparing_tells_how_many_recordings_have_no_poses(bench: Bench, rgbd_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(rgbd_root, tmp_path / "root")
    shutil.rmtree(root / "room0001_00/pose")
    out = bench("data", "prepare", "rgbd-folder", "--root", "root", "--frame-stride", "1").stdout
    assert "2 scenes, 0 points, 6 frames, 0 problems" in out
    assert "1 recordings without poses: their frames are turned to z up by the camera's axes" in out


SUITE = """
name: single-scans
version: 1
description: Single scans and no poses.
budget: {budget}
profile: {profile}
methods: [ours, csc]
tasks: [s3dis-sem]
label_ratios: [100%]
pretrain_datasets: [sunrgbd]
"""


def test_a_suite_names_single_scans_to_pretrain_on(bench: Bench, tmp_path: Path) -> None:
    """Without data, the synthetic stand-in is used; methods that need poses are n/a, with the reason."""
    (tmp_path / "suite.yaml").write_text(SUITE.format(budget=NANO[1], profile=NANO[3]))
    plan = json.loads(bench("plan", "suite.yaml", "--json").stdout)
    (refused,) = plan["not_applicable"]
    assert refused["cell"]["method"] == "csc"
    assert "'csc' needs multiple_views, poses, which dataset 'synth-sunrgbd' does not have" in refused["reason"]
    cells = [w["cell"] for w in plan["waiting_for_data"]] + [s["cell"] for s in plan["stages"] if s["cell"]]
    assert {(c["method"], c["pretrain_dataset"]) for c in cells} == {("ours", "synth-sunrgbd")}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stand_in"), [("sunrgbd", "synth-sunrgbd"), ("semantickitti", "synth-kitti")])
def test_the_command_line_pretrains_on_a_folder_of_single_scans(
    name: str, stand_in: str, bench: Bench, s3dis_root: Path, cache: Path, tmp_path: Path
) -> None:
    """Procedural data in the official layout, passed as the user's own; the record states the z-up rule."""
    size = small_scans(stand_in, cache).dataset
    root = generate(size, cache, lambda names: names)
    arguments = ["run", "--method", "ours", "--task", "s3dis-sem", *NANO, "--label-ratio", "100%", "--threads", "1"]
    bench(*arguments, "--data", f"s3dis={s3dis_root}", "--pretrain-data", f"{name}={root}", "--runs", "runs")
    records = [r for r in run_records(tmp_path / "runs") if r["kind"] == "pretrain"]
    assert [(r["outcome"], r["dataset"]) for r in records] == [("ok", name)] * 2
    assert [r["notes"]["z_up"] for r in records if r["stage"] == "points"] == [SOURCES[stand_in]]


real = pytest.mark.skipif(not REAL.is_dir(), reason="needs the real samples (../shared/realdata)")


def real_source(name: str, tmp_path: Path) -> PreparedDataset:
    """The real sample of a source; SemanticKITTI's has no images, so each scan gets one that encodes pixel positions as colours."""
    folder = {"sunrgbd": "sunrgbd", "semantickitti": "semantickitti", "rgbd-folder": "rgbd_7scenes"}[name]
    root = tmp_path / "root"
    shutil.copytree(REAL / folder, root, ignore=shutil.ignore_patterns("*.pose.txt", "*_pc_bbox_votes_*"))
    for points in root.glob("dataset/sequences/*/velodyne/*.bin"):
        picture = points.parent.parent / "image_2" / f"{points.stem}.png"
        picture.parent.mkdir(exist_ok=True)
        v, u = np.mgrid[:376, :1241]
        Image.fromarray(np.stack([u // 5, v // 2, 0 * u], axis=2).astype(np.uint8)).save(picture)
    return prepared(find(Dataset, name), root, tmp_path / "cache", frame_stride=64)


@real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sunrgbd", "semantickitti", "rgbd-folder"])
def test_whole_pretrainings_on_real_scans(name: str, tmp_path: Path) -> None:
    source = real_source(name, tmp_path)
    assert len(whole_pretraining("ours", source, tmp_path / "ours")["z_up"]) > 20
    whole_pretraining("depthcontrast", source, tmp_path / "depthcontrast")
    recipe = recipe_in("headline", "ours", "points")
    frame = load_frame(source.folder, source.scenes[0], 0)
    sample = frame_sample(frame, recipe, np.random.default_rng(0))
    assert sample is not None and len(sample.rows) == 2000, "a real scan is enough for the headline's recipe"
