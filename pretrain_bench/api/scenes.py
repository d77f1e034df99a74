"""Pictures of predictions: one test scene of one run."""

from __future__ import annotations

from pathlib import Path

from pretrain_bench.api.display import Display, default_display
from pretrain_bench.api.runs import Run, as_run
from pretrain_bench.api.stores import AnyPath, Runs
from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse, writing
from pretrain_bench.harness.audit.prepared import find_data
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store.retention import pruned
from pretrain_bench.harness.store.store import ARTIFACTS


def tested_scenes(run: Run | str, runs: Runs = "runs") -> tuple[str, ...]:
    """Names of the test scenes of a fine-tuning run: a `Run`, or one in `runs` by the beginning of its key.

    Raises WrongUse for a run without predictions."""
    return _scored_spec(as_run(run, runs)).split.test  # type: ignore[union-attr]


def draw_scene(
    run: Run | str,
    scene: str,
    *,
    checkpoint: str = "final",
    out: AnyPath | None = None,
    runs: Runs = "runs",
    display: Display | None = None,
) -> list[Path]:
    """Draw input, ground truth, prediction and errors of a test scene; returns SCENE-CHECKPOINT.png and .ply in `out`.

    `run` is a `Run`, or the beginning of the key of one in `runs`. `out` defaults to `pictures/` in the run's folder, where a
    report finds them, or here for a run in a bundle. Procedural data are generated again where they are missing.

    Raises WrongUse for a scene that was not tested or predictions that were pruned, DataError for missing data,
    EnvironmentCannot where `out` cannot be written.
    """
    from pretrain_bench.reports.figures.scene import check_tested, show_scene
    from pretrain_bench.reports.figures.scene_files import draw_scene as draw_tiles
    from pretrain_bench.reports.figures.scene_files import write_scene_ply

    run = as_run(run, runs)
    spec, record = _scored_spec(run), run.record
    if checkpoint not in CHECKPOINTS:
        raise WrongUse(f"--checkpoint {checkpoint!r}: expected one of {', '.join(CHECKPOINTS)}")
    check_tested(spec, scene)  # fail before the data are located or generated
    _check_not_pruned(run, checkpoint)
    assert spec.data is not None
    source = find_data(spec.data, (display or default_display()).say)
    if isinstance(source, str):
        raise DataError(f"run {record.key} cannot be drawn: {source}")
    shown = show_scene(spec, source, scene, run.folder / ARTIFACTS / "predictions" / checkpoint)
    mark = "  SYNTHETIC DATA" if record.synthetic else ""
    drawn = draw_tiles(
        shown, f"{record.method} -> {spec.task}, {scene}, {checkpoint} checkpoint, run {record.key}{mark}"
    )
    target = Path("pictures" if run.in_bundle else run.folder / "pictures") if out is None else Path(out)
    files = [target / f"{scene}-{checkpoint}.{kind}" for kind in ("png", "ply")]
    with writing(target, "pictures (--out names another folder)"):
        target.mkdir(parents=True, exist_ok=True)
        drawn.save(files[0])
        write_scene_ply(shown, files[1])
    return files


def _scored_spec(run: Run) -> StageSpec:
    spec, record = run.spec, run.record
    if spec.kind != "finetune" or spec.data is None or spec.split is None or not record.metrics:
        raise WrongUse(
            f"run {record.key} ({record.method}/{record.stage}, {record.outcome.value}) has no predictions to show"
        )
    return spec


def _check_not_pruned(run: Run, checkpoint: str) -> None:
    for name, command in pruned(run.folder).items():
        if name.startswith(f"predictions/{checkpoint}/") and not (run.folder / ARTIFACTS / name).is_file():
            raise WrongUse(
                f"run {run.record.key}: its predictions of the {checkpoint} checkpoint were pruned ({command}); run it again "
                "to see them"
            )
