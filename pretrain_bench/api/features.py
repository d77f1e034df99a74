"""Pictures of features: frames of a scene, before and after pre-training."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pretrain_bench.api.display import printable
from pretrain_bench.api.runs import Run, as_run
from pretrain_bench.api.stores import AnyPath, Runs
from pretrain_bench.benchmarks.datasets.layout import Manifest
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import WrongUse, writing
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.code_digest import package_folder
from pretrain_bench.harness.planning.prepared_data import prepared_with_manifest
from pretrain_bench.harness.running.layout import lay_out_folders
from pretrain_bench.harness.store.store import ARTIFACTS


def draw_features(
    run: Run | str,
    *,
    scene: str | None = None,
    frame: int | Sequence[int] = 0,
    out: AnyPath = "features",
    runs: Runs = "runs",
) -> list[Path]:
    """Draw pixel and point features of frames before and after a pre-training, and write coloured clouds; returns the files.

    `run` is a pre-training, as a `Run` or by the beginning of its key in `runs`; `scene` defaults to the last scene with frames;
    `frame` is one or several of its frames. Equal colours mean similar features, over all frames drawn (a one-dimensional t-SNE
    of all of them, one before and one after).

    Raises WrongUse for a run without data or a frame that does not exist, EnvironmentCannot where `out` cannot be written.
    """
    frames = list(dict.fromkeys([frame] if isinstance(frame, int) else frame))
    run = as_run(run, runs)
    spec = run.spec
    source = spec.data
    if spec.kind != "pretrain" or source is None:
        raise WrongUse(
            f"run {spec.key} is {spec.kind} of {spec.method!r}; features are drawn of a pre-training on data"
        )
    if spec.method not in available(Method):
        raise WrongUse(f"run {spec.key}: {spec.method!r} is not a method that ships; features are drawn of those only")
    if "input" not in spec.model_fields_set:  # a run of before this field
        spec = spec.model_copy(update={"input": find(Method, spec.method).input})
    data, manifest = prepared_with_manifest(source.dataset, source.manifest_sha256)
    scene = _scene_with_frame(manifest, scene, max(frames))
    mark = "SYNTHETIC DATA: " if source.synthetic else ""
    title = printable(f"{mark}{spec.method}, seed {spec.seed}, {spec.limits.budget}: {scene}")
    with tempfile.TemporaryDirectory(prefix="bench-features-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        _lay_out(root, run.folder.parents[1], spec, data)
        options = ["--artifacts", str(run.folder / ARTIFACTS), "--scene", scene, "--frame", *map(str, frames)]
        return _draw(root, options, title, Path(out))


def _scene_with_frame(manifest: Manifest, scene: str | None, frame: int) -> str:
    """The scene to draw. Raises WrongUse where it has no such frame."""
    counts = {s.name: s.frames for s in manifest.scenes if s.frames}
    chosen = scene or max(counts, default="")
    if frame >= counts.get(chosen, 0):
        names = ", ".join(sorted(counts)[:5]) + (" ..." if len(counts) > 5 else "") or "none"
        raise WrongUse(
            f"scene {chosen!r} has {counts.get(chosen, 0)} frames, so there is no frame {frame}; scenes with frames: {names}"
        )
    return chosen


def _lay_out(root: Path, runs: Path, spec: StageSpec, data: Path) -> None:
    parents = {stage: runs / "pretrain" / key / ARTIFACTS for stage, key in spec.parents.items()}
    lay_out_folders(root, spec, data, parents)


def _draw(root: Path, options: list[str], title: str, out: Path) -> list[Path]:
    """Compute the features in a process of their own, since the harness does not load torch, and draw them."""
    import numpy as np

    from pretrain_bench.reports.figures.features import draw_features as draw

    arrays = root.parent / "features"
    arrays.mkdir()
    command = [sys.executable, "-P", "-m", "pretrain_bench.methods.features", "--root", str(root), *options]
    environment = {"PYTHONPATH": str(package_folder().parent)}
    done = subprocess.run(
        [*command, "--out", str(arrays)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise WrongUse(lines[-1] if lines else "the features could not be computed")
    frames = {}
    for path in sorted(arrays.iterdir(), key=lambda path: int(path.stem)):
        with np.load(path, allow_pickle=False) as loaded:
            frames[int(path.stem)] = dict(loaded)
    with writing(out, "pictures (--out names another folder)"):
        return draw(frames, title, out)
