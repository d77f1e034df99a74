"""Retention policies for a run's artifacts; deletions are recorded in the run's folder.

Fine-tuning never keeps weights, only predictions (a checkpoint takes 151 MB at full width). `best`, the state that `bench run`
leaves, keeps the weights of all pre-training stages and the predictions of every checkpoint; `final` keeps backbones and final
predictions; `none` keeps neither; `all` keeps everything that a stage left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pretrain_bench.benchmarks.support.foreign_files import is_plain, read_json, remove_plain
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.store import ARTIFACTS, RECORD, Store, write_json

Keep = Literal["none", "final", "best", "all"]
KEEPS: tuple[str, ...] = get_args(Keep)
PRUNED = "pruned.json"
BACKBONE = "backbone.safetensors"
PRETRAIN_FILES = (".safetensors", ".json")
"""Endings of the artifacts that pre-training stages leave: weights, and settings that later stages read with them."""
STAGE_JSON = "root/in/stage.json"
"""Where a partial folder has the spec of its stage."""
NOT_PACKED = "not in the bundle"
"""Reason in a bundle's pruned.json for artifacts that were not packed."""


class Prunable(NamedTuple):
    """Files of one run that a policy does not keep, named relative to `artifacts/`."""

    folder: Path
    record: Record
    names: list[str]
    bytes: int


def is_kept(name: str, keep: Keep) -> bool:
    """Whether a policy keeps an artifact."""
    if keep == "all":
        return True
    if keep == "none":
        return False
    if keep == "best":
        return name.endswith(PRETRAIN_FILES) or name.startswith("predictions/")
    return name == BACKBONE or name.startswith("predictions/final/")


def prunable(store: Store, keep: Keep) -> Iterator[Prunable]:
    """Runs with artifacts that `prune` would remove. Runs needed by a stage in progress keep everything."""
    in_use = needed_by_stages(store)
    for record in store.records():
        folder = store.folder(record.kind, record.key)
        if record.key in in_use or record.outcome != Outcome.ok:
            continue
        names = [n for n in record.artifacts if not is_kept(n, keep) and is_plain(folder / ARTIFACTS / n, folder)]
        if names:
            yield Prunable(folder, record, names, sum(record.artifacts[n].bytes for n in names))


def prune(run: Prunable, keep: Keep) -> bool:
    """Remove the files, after listing them in the run's pruned.json and the chain, so that pruned files are never taken for
    missing ones. False if the run was withdrawn or is being repeated, or a stage that builds on it has begun."""
    store, key = Store(run.folder.parent.parent), run.record.key
    had_state = store.partial(key).exists()
    if store.held_by(key) is not None:
        return False
    with store.lock(key, lambda holder: None):
        # A stage that begins now is found here, or waits for this lock.
        gone = not (run.folder / RECORD).is_file() or key in needed_by_stages(store)
        if not gone:
            noted = {**pruned(run.folder), **dict.fromkeys(run.names, f"bench clean --keep {keep}")}
            write_json(run.folder / PRUNED, noted, durable=True)
            chain.append_pruned(store.root, run.record, store.records)
            for name in run.names:
                remove_plain(run.folder / ARTIFACTS / name, run.folder)
        if not had_state:
            store.drop_partial(key)
    return not gone


def pruned(folder: Path) -> dict[str, str]:
    """Names of pruned artifacts, each with the command that removed it."""
    try:
        noted = read_json(folder / PRUNED, below=folder)
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in noted.items()} if isinstance(noted, dict) else {}


def needed_by_stages(store: Store, only_running: bool = False, but: Collection[str] = ()) -> set[str]:
    """Keys of the runs that stages in progress, `but` these, build on: only running ones, or also those that a later command
    resumes."""
    needed = set()
    for path in (store.root / ".partial").glob(f"*/{STAGE_JSON}"):
        folder = path.parents[2]
        if folder.name not in but and (not only_running or store.held_by(folder.name) is not None):
            needed |= parents_of_stage(folder)
    return needed


def parents_of_stage(partial: Path) -> set[str]:
    """Keys of the runs that the stage of a partial folder builds on; none if its spec is missing or damaged."""
    try:
        return set(read_json(partial / STAGE_JSON)["parents"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return set()
