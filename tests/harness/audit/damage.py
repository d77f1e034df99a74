"""Changes of an honest store: one function per way to cheat (`cheats.py` names the check that detects it)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from pretrain_bench.benchmarks.metrics import predictions
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.code_digest import digest_of_hashes
from pretrain_bench.harness.planning.prepared_data import prepared_with_manifest
from pretrain_bench.harness.running.scoring import score_finetune
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.store import json_bytes
from tests.conftest import REPOSITORY
from tests.harness.audit.edits import (
    edit_events,
    edit_json,
    edit_record,
    edit_spec,
    edit_split,
    every_run,
    folder_of,
    folders_of,
    link_of,
    reseal,
)

# ------------------------------------------------------------------------------------------------------------- splits


def claim_fewer_labels(runs: Path) -> None:
    folder = folder_of(runs, "csc")
    edit_spec(folder, lambda s: s["label_ratio"].update(percent=20.0))
    edit_record(folder, lambda r: r["cell"]["label_ratio"].update(percent=20.0))


def starve_scratch(runs: Path) -> None:
    for folder in folders_of(runs, "scratch"):
        edit_split(folder, lambda s: s.update(train=s["train"][:1]))


def train_on_held_out(runs: Path) -> None:
    def swap(split: dict) -> None:
        given, taken = split["selection"][0], split["train"][0]
        split["train"] = [given if s == taken else s for s in split["train"]]
        split["selection"] = [taken if s == given else s for s in split["selection"]]

    edit_split(folder_of(runs, "csc"), swap)


def leave_out_hard_scenes(runs: Path) -> None:
    """Adjust everything that counts test scenes."""
    for folder in [f for method in ("csc", "scratch") for f in folders_of(runs, method)]:
        hard = json.loads((folder / "spec.json").read_text())["split"]["test"][-1]
        edit_split(folder, lambda s: s["test"].pop())
        fewer = {"expected": 0, "present": 0, "scored": 0}

        def count(coverage: dict, fewer: dict = fewer) -> None:
            coverage.update({name: coverage[name] - 1 for name in fewer})

        edit_spec(folder, lambda s, count=count: count(s["coverage"]))
        for path in folder.glob(f"artifacts/predictions/*/{hard}.npz"):
            path.unlink()

        def forget(record: dict, count: Callable = count, hard: str = hard) -> None:
            count(record["coverage"])
            record["artifacts"] = {n: e for n, e in record["artifacts"].items() if hard not in n}

        edit_record(folder, forget)
        rescore_run(folder)


def claim_real_data(runs: Path) -> None:
    for folder in every_run(runs):
        edit_spec(folder, lambda s: s["data"] and s["data"].update(synthetic=False))
        edit_record(folder, lambda r: r.update(synthetic=False))


# -------------------------------------------------------------------------------------------------------------- files


def edit_test_labels(prepared: Path) -> None:
    for path in prepared.glob("synth-s3dis-*/labelled/Area_5*/semantic.npy"):
        labels = np.load(path)
        path.unlink()  # the cache may hold a link
        np.save(path, np.where(labels == 0, 1, 0).astype(np.uint8))


def edit_curve(runs: Path) -> None:
    """Make an early validation as good as the last one, which halves the steps to reach scratch."""

    def early(event: dict) -> None:
        if event["event"] == "eval" and event["split"] == "test":
            event["metrics"] = dict.fromkeys(event["metrics"], 0.5)

    edit_events(folder_of(runs, "csc"), early)


def edit_confusion(runs: Path) -> None:
    edit_json(folder_of(runs, "csc") / "confusion.json", _perfect)


def _perfect(confusion: dict) -> None:
    for matrices in confusion.values():
        for level, rows in matrices.items():
            matrices[level] = [[sum(row) if i == j else 0 for j in range(len(row))] for i, row in enumerate(rows)]


def edit_log(runs: Path) -> None:
    path = folder_of(runs, "csc") / "log.txt"
    path.write_text("trained on 1 % of the labels\n")


def edit_pictures(runs: Path) -> None:
    target = folder_of(runs, "csc") / "pictures" / "nicer.png"
    target.parent.mkdir()
    shutil.copyfile(REPOSITORY / "docs/synth-s3dis.png", target)


def edit_pruned(runs: Path) -> None:
    folder = folder_of(runs, "csc")
    names = [n for n in json.loads((folder / "record.json").read_text())["artifacts"] if "final" in n]
    (folder / "pruned.json").write_bytes(json_bytes(dict.fromkeys(names, "bench clean --keep none")))


# ------------------------------------------------------------------------------------------------- profiles and budgets


def take_a_shipped_name(runs: Path) -> None:
    """Act as a command whose user-written profile file states `name: smoke`."""
    for folder in every_run(runs):
        edit_spec(folder, lambda s: s.update(profile="smoke", profile_version=find(Profile, "smoke").version))
        edit_record(folder, lambda r: r["cell"] and r["cell"].update(profile="smoke"))


def other_recipe(runs: Path) -> None:
    edit_spec(folder_of(runs, "csc"), lambda s: s["recipe"]["optimiser"].update(learning_rate=1.0))


def other_batch(runs: Path) -> None:
    edit_spec(folder_of(runs, "csc"), lambda s: s["recipe"].update(batch=4))


def other_width(runs: Path) -> None:
    for kind in ("pretrain", "finetune"):
        edit_spec(folder_of(runs, "csc", kind), lambda s: s["network"].update(width=0.25))


def invent_a_budget_version(runs: Path) -> None:
    for folder in every_run(runs):
        edit_spec(folder, lambda s: s["limits"].update(budget_version=2, amount=10 * s["limits"]["amount"]))


# --------------------------------------------------------------------------------------------------------------- code


def run_other_code(runs: Path) -> None:
    for folder in every_run(runs):
        patch_code(folder, "pretrain_bench.methods.training.loop")


def make_up_code_list(runs: Path) -> None:
    edit_json(folder_of(runs, "csc") / "code.json", lambda c: c.update(dict.fromkeys(c, "0" * 64)))


def patch_one_arm(runs: Path) -> None:
    """Change the code of one arm while all runs claim the same clean commit."""
    patch_code(folder_of(runs, "csc", "pretrain"), "pretrain_bench.methods.training.loop")
    for folder in every_run(runs):
        edit_record(folder, lambda r: r["provenance"].update(git_commit="1" * 40, git_dirty=False))


def patch_code(folder: Path, module: str) -> None:
    edit_json(folder / "code.json", lambda c: c.update({module: "0" * 64}))
    digest = digest_of_hashes(json.loads((folder / "code.json").read_text()))
    edit_spec(folder, lambda s: s.update(code_sha256=digest))
    edit_record(folder, lambda r: r["provenance"].update(git_dirty=False))


def pretrain_on_test_scenes(runs: Path) -> None:
    tested = json.loads((folder_of(runs, "csc") / "spec.json").read_text())
    data = {**tested["data"], "view": "unlabelled", "classes": [], "things": [], "scenes": tested["split"]["test"]}
    folder = folder_of(runs, "csc", "pretrain")
    edit_spec(folder, lambda s: s.update(data=data))
    edit_record(folder, lambda r: r.update(dataset=data["dataset"]))


def pretrain_on_task_labels(runs: Path) -> None:
    pretrain_on_test_scenes(runs)
    edit_spec(folder_of(runs, "csc", "pretrain"), lambda s: s["data"].update(view="labelled"))


# -------------------------------------------------------------------------------------------------------------- seeds


def one_finetuning_twice(runs: Path) -> None:
    one, two = folders_of(runs, "scratch")
    for name in ("artifacts", "events.jsonl", "confusion.json", "log.txt"):
        remove(two / name)
        (shutil.copytree if (one / name).is_dir() else shutil.copyfile)(one / name, two / name)
    source = json.loads((one / "record.json").read_text())
    same = {n: source[n] for n in ("artifacts", "metrics", "stage_metrics", "ledger", "measured", "files")}
    edit_record(two, lambda r: r.update(same))


def one_pretraining_twice(runs: Path) -> None:
    one, two = (f / "artifacts/backbone.safetensors" for f in folders_of(runs, "scratch", "pretrain"))
    moved = {n: (t + 1e-7).astype(t.dtype) if t.dtype.kind == "f" else t for n, t in load_file(one).items()}
    two.unlink()
    save_file(moved, two)


def take_the_best(checkpoint: str) -> Callable[[Path], None]:
    def damage(runs: Path) -> None:
        folder = folder_of(runs, "csc")
        place = folder / "artifacts/predictions"
        shutil.rmtree(place / checkpoint)
        shutil.copytree(place / "best", place / checkpoint)
        rescore_run(folder)

    damage.__name__ = f"{checkpoint}_is_best"
    return damage


# ----------------------------------------------------------------------------------------------------------- accounts


def keep_the_rate_up(runs: Path) -> None:
    """A rival is pre-trained with a schedule that never comes to its end."""
    edit_spec(folder_of(runs, "csc", "pretrain"), lambda s: s["limits"].update(schedule_horizon="recipe"))


def call_it_stopped(runs: Path) -> None:
    """A stopped run need not use up its budget, nor repeat to the bit."""
    edit_record(folder_of(runs, "csc"), lambda r: r.update(stopped="soft_limit"))


def call_it_stopped_everywhere(runs: Path) -> None:
    call_it_stopped(runs)
    edit_events(folder_of(runs, "csc"), lambda e: e.update(stopped="soft_limit") if e["event"] == "end" else None)


def fail_good_runs(runs: Path) -> None:
    folder = folder_of(runs, "scratch")
    remove(folder / "artifacts")
    failed = {"outcome": "crashed", "metrics": {}, "coverage": None, "artifacts": {}, "message": "exit code 1"}
    edit_record(folder, lambda r: r.update(failed))


def end_before_the_start(runs: Path) -> None:
    shift(runs, "ended_at", timedelta(hours=-1))


def run_in_the_future(runs: Path) -> None:
    shift(runs, "started_at", timedelta(days=300))
    shift(runs, "ended_at", timedelta(days=300))


def shift(runs: Path, field: str, by: timedelta) -> None:
    for folder in every_run(runs):
        edit_record(folder, lambda r: r.update({field: (datetime.fromisoformat(r[field]) + by).isoformat()}))


def lower_costs(runs: Path) -> None:
    def divide(record: dict) -> None:
        for part in ("ledger", "measured"):
            costs = {n: v / 100 for n, v in record[part].items() if v and n.endswith("_seconds")}
            record[part].update(costs)

    edit_record(folder_of(runs, "csc"), divide)


def claim_ok_without_artifacts(runs: Path) -> None:
    folder = folder_of(runs, "csc")
    remove(folder / "artifacts")
    edit_record(folder, lambda r: r.update(artifacts={}))


def prune_what_contradicts(runs: Path) -> None:
    """Improve scores, and remove predictions as if by `bench clean`."""
    folder = folder_of(runs, "csc")
    edit_record(folder, lambda r: r["metrics"].update(miou_voxel_final=0.9))
    edit_pruned(runs)
    for path in folder.glob("artifacts/predictions/final/*.npz"):
        path.unlink()


def prune_in_the_chain(runs: Path) -> None:
    """The same, with the pruning also in the chain, and scores that agree with the curve."""
    folder = folder_of(runs, "csc")
    edit_pruned(runs)
    for path in folder.glob("artifacts/predictions/final/*.npz"):
        path.unlink()
    reseal(runs)
    record = Record.model_validate_json((folder_of(runs, "csc") / "record.json").read_bytes())
    known = chain.read(runs)
    assert known is not None
    chain.write(runs, [*known.links, link_of(record, chain.PRUNED)])


# ------------------------------------------------------------------------------------------------------------ bundles


def count_one_scene(files: dict[str, bytes]) -> None:
    edit_counts(files, lambda scenes: scenes.pop(sorted(scenes)[-1]))


def count_an_unknown_scene(files: dict[str, bytes]) -> None:
    edit_counts(files, lambda scenes: scenes.update(easy_1=scenes[min(scenes)]))


def count_below_zero(files: dict[str, bytes]) -> None:
    def lower(scenes: dict) -> None:
        scenes[min(scenes)]["voxel"][0][1] = -5

    edit_counts(files, lower)


def edit_counts(files: dict[str, bytes], change: Callable[[dict], object]) -> None:
    name = min(n for n in files if n.endswith("counts.json"))
    counts = json.loads(files[name])
    for scenes in counts.values():
        change(scenes)
    files[name] = json_bytes(counts)


# ------------------------------------------------------------------------------------------- beyond any store by itself


def drop_the_worst_seed(runs: Path) -> None:
    shutil.rmtree(folders_of(runs, "scratch")[-1])


def invent_predictions(runs: Path) -> None:
    """Replace the network's predictions by random ones, with consistent scores, matrices and validations."""
    folder = folder_of(runs, "csc")
    chance = np.random.default_rng(5)
    made = {}
    for path in sorted(folder.glob("artifacts/predictions/final/*.npz")):
        size = len(predictions.read_untyped(path)["classes"])
        made[path.stem] = {"classes": chance.integers(0, 3, size, np.uint8)}
    for checkpoint in ("final", "selected", "best"):
        predictions.write(folder / "artifacts/predictions" / checkpoint, made)
    metrics = rescore_run(folder)
    of_one = {n.removesuffix("_final"): v for n, v in metrics.items() if n.endswith("_final")}

    def validate(event: dict) -> None:
        if event["event"] == "eval" and event["split"] == "test":
            event |= {"metrics": of_one, "predictions_sha256": predictions.digest(made)}
        if event["event"] == "end":
            event["metrics"] = metrics

    edit_events(folder, validate)


def claim_an_image(runs: Path) -> None:
    edit_record(folder_of(runs, "csc"), lambda r: r.update(executor="docker", image="sha256:" + "1" * 64))


def claim_isolation(runs: Path) -> None:
    for folder in every_run(runs):
        isolated = {"label_isolation": "mount", "not_enforced": [], "executor": "docker", "image": "sha256:" + "1" * 64}
        edit_record(folder, lambda r, isolated=isolated: r.update(isolated))


def claim_a_commit(runs: Path) -> None:
    for folder in every_run(runs):
        edit_record(folder, lambda r: r["provenance"].update(git_commit="1" * 40, git_dirty=False))


def rescore_run(folder: Path) -> dict[str, float | None]:
    """Recompute metrics and matrices from the predictions; returns the metrics."""
    # Not `read_spec`: the folder's name is no longer its key.
    spec = StageSpec.model_validate_json((folder / "spec.json").read_bytes())
    assert spec.data is not None
    scores = score_finetune(
        spec, folder / "artifacts", prepared_with_manifest(spec.data.dataset, spec.data.manifest_sha256)[0]
    )
    edit_record(folder, lambda r: r.update(metrics=scores.metrics, stage_metrics=scores.metrics))
    (folder / "confusion.json").write_bytes(json_bytes(scores.confusion))
    return scores.metrics


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
