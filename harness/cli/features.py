"""`bench features`: what a pre-trained network sees in one frame, as colours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs


def features(
    run: Annotated[str, typer.Argument(help="The first characters of a pre-training run's key.")],
    scene: Annotated[str | None, typer.Option("--scene", help="A scene of its dataset.  [default: the last]")] = None,
    frame: Annotated[int, typer.Option("--frame", min=0, help="A frame of the scene.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("features"),
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Draw pixel and point features of one frame before and after pre-training, and write coloured clouds.

    Colours are a one-dimensional t-SNE of all features together, after the paper's Figure 2: equal colours, similar features.
    """
    import subprocess
    import sys
    import tempfile

    import numpy as np

    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.cli.console import print_json, printable, writing
    from pretrain_bench.harness.planning.code_digest import package_folder
    from pretrain_bench.harness.planning.prepared_data import prepared_with_manifest
    from pretrain_bench.harness.running.stage_runner import lay_out_spec
    from pretrain_bench.harness.store.bundle import open_store
    from pretrain_bench.harness.store.store import read_spec
    from pretrain_bench.reports.figures.features import draw_features

    store = open_store(runs)
    folder = store.find(run)
    spec = read_spec(folder)
    if spec.kind != "pretrain" or spec.data is None:
        raise WrongUse(
            f"run {spec.key} is {spec.kind} of {spec.method!r}; features are drawn of a pre-training on data"
        )
    data, manifest = prepared_with_manifest(spec.data.dataset, spec.data.manifest_sha256)
    counts = {s.name: s.frames for s in manifest.scenes if s.frames}
    scene = scene or max(counts, default="")
    if frame >= counts.get(scene, 0):
        raise WrongUse(
            f"scene {scene!r} has {counts.get(scene, 0)} frames, so there is no frame {frame}; scenes with frames: "
            + (", ".join(sorted(counts)[:5]) + (" ..." if len(counts) > 5 else "") or "none")
        )
    with tempfile.TemporaryDirectory(prefix="bench-features-") as scratch:
        root, arrays = Path(scratch) / "root", Path(scratch) / "features.npz"
        root.mkdir()
        parents = {s: store.folder("pretrain", k) / "artifacts" for s, k in spec.parents.items()}
        lay_out_spec(root, spec, data, parents)
        command = [sys.executable, "-m", "pretrain_bench.methods.features", "--root", str(root),
                   "--artifacts", str(folder / "artifacts"),
                   "--scene", scene, "--frame", str(frame), "--out", str(arrays)]  # fmt: skip
        environment = {"PYTHONPATH": str(package_folder().parent)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise WrongUse(lines[-1] if lines else "the features could not be computed")
        mark = "SYNTHETIC DATA: " if spec.data.synthetic else ""
        title = printable(f"{mark}{spec.method}, seed {spec.seed}, {spec.limits.budget}: {scene}, frame {frame}")
        with (
            np.load(arrays, allow_pickle=False) as loaded,
            writing(out, "pictures (--out names another folder)"),
        ):
            written = draw_features(dict(loaded), title, out)
    if json:
        print_json([str(p) for p in written])
    else:
        print("\n".join(str(p) for p in written))
