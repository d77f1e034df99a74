"""Extract a few scenes of a prepared dataset into a small one, such as real data for a CI job."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pretrain_bench.benchmarks.datasets.layout import LABELLED, MANIFEST, UNLABELLED, Manifest, SceneEntry, hash_files
from pretrain_bench.benchmarks.datasets.splits import divide, scenes_for_testing
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import copy_tree


def choose_scenes(dataset: Dataset, manifest: Manifest, count: int) -> list[str]:
    """Choose `count` scenes: training scenes in ratio order, and a quarter test scenes; at least one of each if the dataset has
    both."""
    names = [s.name for s in manifest.scenes]
    test = scenes_for_testing(names, dataset, [s.name for s in manifest.scenes if s.test])
    division = divide(names, test, dataset.ratio_order)
    train = [*division.train, *division.selection]
    tested = min(len(division.test), max(1, count // 4)) if division.test and train else len(division.test)
    tested = min(tested, count - 1) if train else count
    return sorted([*train[: count - tested], *division.test[:tested]])


def write_subset(
    dataset: Dataset, prepared: Path, manifest: Manifest, out: Path, scenes: int, frames: int | None
) -> Manifest:
    """Copy `scenes` scenes with at most `frames` evenly spread frames each. Raises WrongUse if `out` is not empty."""
    if out.exists() and any(out.iterdir()):
        raise WrongUse(f"{out}: not empty; give a folder that does not exist yet")
    chosen = set(choose_scenes(dataset, manifest, scenes))
    entries = []
    for scene in manifest.scenes:
        if scene.name not in chosen:
            continue
        for view in (UNLABELLED, LABELLED):
            if (prepared / view / scene.name).is_dir():
                copy_tree(prepared / view / scene.name, out / view / scene.name)
        entries.append(_fewer_frames(out / UNLABELLED / scene.name, scene, frames))
    cut = manifest.model_copy(
        update={"scenes": tuple(entries), "files": hash_files(out), "problems": (), "left_out": ()}
    )
    (out / MANIFEST).write_text(cut.model_dump_json(indent=1))
    return cut


def _fewer_frames(folder: Path, scene: SceneEntry, frames: int | None) -> SceneEntry:
    if frames is None or scene.frames <= frames or not (folder / "frames").is_dir():
        return scene
    keep = np.unique(np.linspace(0, scene.frames - 1, frames).round().astype(int))
    place = {int(old): new for new, old in enumerate(keep)}
    for path in sorted((folder / "frames").iterdir()):
        number, _, rest = path.name.partition(".")
        if int(number) in place:
            path.rename(path.with_name(f"{place[int(number)]:06d}.{rest}"))
        else:
            path.unlink()
    np.save(folder / "frame_numbers.npy", np.load(folder / "frame_numbers.npy")[keep])
    if not (folder / "poses.npy").is_file():
        return scene.model_copy(update={"frames": len(keep)})
    np.save(folder / "poses.npy", np.load(folder / "poses.npy")[keep])
    pairs = np.load(folder / "pairs.npy")
    kept = [(place[int(i)], place[int(j)], share) for i, j, share in pairs if int(i) in place and int(j) in place]
    np.save(folder / "pairs.npy", np.asarray(kept, np.float64).reshape(-1, 3))
    return scene.model_copy(update={"frames": len(keep), "pairs": len(kept)})
