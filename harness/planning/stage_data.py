"""The data that a stage may read: scenes of a dataset, and a view of them."""

from __future__ import annotations

from pretrain_bench.benchmarks.datasets.holdings import scenes_for_task
from pretrain_bench.benchmarks.datasets.splits import read_scene_list, scenes_for_testing, usable_scenes
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
from pretrain_bench.harness.contract.stage import DataView
from pretrain_bench.harness.planning.applicable import NotApplicable
from pretrain_bench.harness.planning.prepared_data import PreparedDataset


def left_out_scenes(source: PreparedDataset, profile: Profile) -> tuple[str, ...]:
    """Prefixes of the scenes of a dataset that the profile excludes."""
    return profile.left_out_scenes.get(source.dataset.name, ())


def used_scenes(source: PreparedDataset, profile: Profile) -> tuple[str, ...]:
    """All scenes except those that the profile excludes."""
    left_out = left_out_scenes(source, profile)
    return tuple(s for s in source.scenes if not (left_out and s.startswith(left_out)))


def labelled_scenes(source: PreparedDataset, scenes: tuple[str, ...], kind: str) -> tuple[str, ...]:
    """The scenes that have the inputs of a task of this kind. Raises NotApplicable if none has."""
    try:
        return scenes_for_task(source.manifest, scenes, kind)
    except DataError as error:
        raise NotApplicable(str(error)) from None


def pretrain_scenes(source: PreparedDataset, profile: Profile) -> tuple[str, ...]:
    """Scenes to pre-train on: with J-25 `train` only those of the official training list, if the dataset has one, and never a
    designated test scene. Raises WrongUse if none is left."""
    if profile.pretrain_scenes == "all":
        return used_scenes(source, profile)
    test = scenes_for_testing(source.scenes, source.dataset, source.tested)
    scenes = tuple(s for s in usable_scenes(used_scenes(source, profile), source.dataset) if s not in test)
    if source.dataset.train_scenes_file is not None:
        listed = read_scene_list(source.dataset.train_scenes_file)
        scenes = tuple(s for s in scenes if s in listed)
    if not scenes:
        raise WrongUse(
            f"none of the {len(source.scenes)} scenes of {source.dataset.name!r} is a training scene, and profile "
            f"{profile.name!r} pre-trains on training scenes only (J-25)"
        )
    return scenes


def task_view(target: PreparedDataset, task: Task) -> DataView:
    """The data of a fine-tuning, with the classes of its task. Raises WrongUse for a class that the dataset lacks."""
    whole = data_view(target, True, (), task.kind)
    if not task.classes:
        return whole
    if unknown := [c for c in task.classes if c not in whole.classes]:
        raise WrongUse(
            f"task {task.name!r}: classes: {unknown[0]!r} is not a class of dataset {target.dataset.name!r}, which has "
            f"{', '.join(whole.classes)}"
        )
    return whole.model_copy(
        update={
            "classes": task.classes,
            "things": tuple(c for c in whole.things if c in task.classes),
            "label_ids": tuple(whole.classes.index(c) for c in task.classes),
        }
    )


def data_view(source: PreparedDataset, labels: bool, scenes: tuple[str, ...], kind: str = "semantic") -> DataView:
    """The view of a dataset with or without labels; with labels it includes the classes of the `kind` of task."""
    boxes = {
        "classes": source.dataset.detected_classes,
        "heading_bins": source.dataset.heading_bins,
        "box_mean_sizes_metres": source.dataset.box_mean_sizes_metres,
    }
    points = {
        "classes": source.dataset.classes if labels else (),
        "things": source.dataset.thing_classes if kind == "instance" else (),
    }
    return DataView(
        dataset=source.dataset.name,
        manifest_sha256=source.manifest.sha256,
        synthetic=source.manifest.synthetic,
        view="labelled" if labels else "unlabelled",
        scenes=scenes,
        **(boxes if kind == "detection" else points),
    )
