"""Datasets: list, prepare, verify, subset and preview them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.api.display import Display, default_display
from pretrain_bench.api.stores import AnyPath
from pretrain_bench.benchmarks.datasets.layout import Manifest, is_prepared, read_manifest
from pretrain_bench.benchmarks.specs.dataset import Dataset, up_choice
from pretrain_bench.benchmarks.support.errors import WrongUse, writing
from pretrain_bench.benchmarks.support.files import cache_folder, copy_tree
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.prepared_data import DEFAULT_STRIDE, DataSources, PreparedDataset

if TYPE_CHECKING:
    from pretrain_bench.api.settings import Roots

COUNTED = ("points", "frames", "pairs", "boxes")


class DataCounts(NamedTuple):
    """Counts of a prepared dataset over all scenes."""

    scenes: int
    points: int
    frames: int
    pairs: int
    boxes: int
    classes: dict[str, int]
    """Labelled points of each class, or boxes where the dataset has no point labels."""
    without_class: int
    problems: int


def dataset(name: AnyPath) -> Dataset:
    """A shipped dataset by name, or your own by the path of its YAML file: source, licence, classes and provided inputs.

    Raises WrongUse."""
    return find(Dataset, name)


def list_datasets() -> list[Dataset]:
    """The shipped datasets, sorted by name."""
    return [find(Dataset, name) for name in available(Dataset)]


def prepare_data(
    name: AnyPath,
    root: AnyPath | None = None,
    *,
    frame_stride: int | None = None,
    world: str = "smoke",
    strict: bool = False,
    up: str = "auto",
    display: Display | None = None,
) -> PreparedDataset:
    """Convert a dataset to the prepared form, once; `run` does this automatically.

    Args:
        name: the dataset, or a folder: prepared already, or in a layout of a dataset that ships.
        root: the folder with a supported layout; procedural datasets need none.
        frame_stride: take every n-th frame of a recording; by default the dataset's stride, else `DEFAULT_STRIDE`.
        world: size of a procedural dataset: nano, smoke, tiny, study or full.
        strict: bad lines and frames are errors, not warnings.
        up: the up axis of a recording with poses (`rgbd-folder`): +x, -x, +y, -y, +z, -z, or auto to estimate it from the
            cameras and the floor.
        display: shows progress; bars on a terminal, lines elsewhere, by default.

    Raises DataError that names the file, WrongUse without a root or for an unknown `up`, EnvironmentCannot for a full disk.
    """
    chosen_up = up_choice(up)
    folder, display = Path(name).expanduser(), display or default_display()
    if is_prepared(folder):
        manifest = read_manifest(folder)
        if manifest.dataset not in available(Dataset):
            raise WrongUse(
                f"{folder}: prepared from {manifest.dataset!r}, a dataset file of yours; give that file and --root DIR instead"
            )
        return PreparedDataset(find(Dataset, manifest.dataset), folder, manifest)
    name = os.fspath(name)
    if root is None and folder.is_dir() and name not in available(Dataset):
        name, root = _dataset_of(folder), folder
    wanted = find(Dataset, name)
    if root is None and not wanted.synthetic:
        raise WrongUse(f"{name}: give --root DIR, the folder that holds a supported layout ({wanted.source})")
    roots = {} if root is None else {wanted.name: Path(root).expanduser()}
    sources = DataSources(roots, {wanted.name: wanted}, DEFAULT_STRIDE, world, frame_stride, chosen_up)
    sources.check_up([wanted.name])
    return sources.prepare(wanted.name, strict, display.progress, display.say)


def _dataset_of(folder: Path) -> str:
    """The shipped dataset whose data a folder contains. Raises WrongUse for other data, DataError for an unknown
    layout."""
    from pretrain_bench.api.own_data import describe_data

    described = describe_data(folder)
    if described.stands_for is None:
        raise WrongUse(
            f"{folder}: {described.card.title} of no dataset that ships; write a dataset file with `bench data init {folder}`, "
            f"and give that file and --root {folder}"
        )
    return described.stands_for


def count_data(prepared: PreparedDataset) -> DataCounts:
    """Count scenes, points, frames and classes of a prepared dataset."""
    from pretrain_bench.benchmarks.datasets.check import class_counts

    manifest, names = prepared.manifest, prepared.dataset.classes
    counts, without_class = class_counts(prepared.folder, manifest, prepared.dataset)
    totals = {name: sum(getattr(scene, name) for scene in manifest.scenes) for name in COUNTED}
    classes = dict(zip(names, counts.tolist(), strict=True))
    problems = len(manifest.problems)
    return DataCounts(len(manifest.scenes), **totals, classes=classes, without_class=without_class, problems=problems)


def verify_data(prepared: PreparedDataset, *, display: Display | None = None) -> list[str]:
    """Compare every file of a prepared dataset with its manifest; returns the differences, down to single bits."""
    from pretrain_bench.benchmarks.datasets.check import verify

    progress = (display or default_display()).progress(f"verify {prepared.dataset.name}")
    return list(verify(prepared.folder, prepared.manifest, progress))


def verify_source(
    prepared: PreparedDataset,
    root: AnyPath | None = None,
    *,
    frame_stride: int | None = None,
    world: str = "smoke",
    up: str = "auto",
    display: Display | None = None,
) -> list[str]:
    """Convert the originals again and compare the result with a prepared dataset; returns the differences.

    Args:
        prepared: the dataset.
        root: the folder with a supported layout; procedural datasets need none.
        frame_stride: the stride it was prepared with.
        world: the size of a procedural dataset that it was prepared with.
        up: the up axis it was prepared with.
        display: shows progress; bars on a terminal, lines elsewhere, by default.

    Takes as long as preparing. Raises WrongUse without a root, DataError for one without scenes.
    """
    from pretrain_bench.benchmarks.datasets.frame_writer import Reading
    from pretrain_bench.benchmarks.datasets.prepare import Source
    from pretrain_bench.benchmarks.datasets.source_check import verify_source as verify
    from pretrain_bench.benchmarks.procedural.write import generate

    wanted, display = prepared.dataset.sized(world), display or default_display()
    cache = cache_folder()
    if root is None and not wanted.synthetic:
        raise WrongUse(f"{wanted.name}: give --root DIR, the folder that holds a supported layout ({wanted.source})")
    if root is None:
        originals = generate(wanted, cache, display.progress(f"generate {wanted.name}"))
    else:
        originals = Path(root).expanduser()
        if not originals.is_dir() or is_prepared(originals):
            raise WrongUse(f"--root {originals}: not a folder with the official layout of {wanted.name}")
    sources = DataSources(frame_stride=DEFAULT_STRIDE, chosen_stride=frame_stride, up=up_choice(up))
    how = Reading(sources.stride_of(wanted), strict=False, up=sources.up_of(wanted))
    source = Source(wanted, originals.resolve(), how)
    with writing(cache, "verifying (BENCH_CACHE names another cache)"):
        cache.mkdir(parents=True, exist_ok=True)
        return verify(source, prepared.manifest, cache, display.progress(f"read {wanted.name} again"))


def subset_data(prepared: PreparedDataset, out: AnyPath, *, scenes: int = 4, frames: int | None = None) -> Manifest:
    """Cut a small subset, a quarter of its scenes for testing, with at most `frames` frames a scene; `out` becomes a data root.

    Raises WrongUse for `scenes` or `frames` below 1, EnvironmentCannot where `out` cannot be written.
    """
    from pretrain_bench.benchmarks.datasets.subset import write_subset

    _check_counts(scenes=scenes, frames=frames)
    with writing(Path(out), "subset (--out names another folder)"):
        return write_subset(prepared.dataset, prepared.folder, prepared.manifest, Path(out), scenes, frames)


def _check_counts(**counts: int | None) -> None:
    for option, number in counts.items():
        if number is not None and number < 1:
            raise WrongUse(f"--{option} {number}: expected 1 or more")


def write_synthetic(name: AnyPath, out: AnyPath, *, world: str = "smoke", display: Display | None = None) -> Dataset:
    """Write a procedural dataset in its official layout to `out`, for other programs to read.

    `world` is its size. Raises WrongUse for another dataset or a folder that is not empty,
    EnvironmentCannot where `out` cannot be written.
    """
    from pretrain_bench.benchmarks.procedural.write import generate

    wanted, target = find(Dataset, name), Path(out)
    if not wanted.synthetic:
        names = ", ".join(d.name for d in list_datasets() if d.synthetic)
        raise WrongUse(f"{name}: not a procedural dataset. There are: {names}")
    with writing(target, "data (--out names another folder)"):
        if target.exists() and any(target.iterdir()):
            raise WrongUse(f"{target}: not empty; give a folder that does not exist yet")
        target.mkdir(parents=True, exist_ok=True)  # fail before minutes are spent on generating
    progress = (display or default_display()).progress(f"generate {wanted.name}")
    written = generate(wanted.sized(world), cache_folder(), progress)
    with writing(target, "data (--out names another folder)"):
        copy_tree(written, target)
    return wanted


def preview_data(
    prepared: PreparedDataset,
    out: AnyPath | None = None,
    *,
    scenes: int = 4,
    labels: bool = True,
    label_ratio: str | None = None,
    label_splits: Roots = (),
) -> Path:
    """Draw a contact sheet: pictures, depth, clouds by colour and (`labels`) by label; returns the PNG, NAME.png by default.

    With a `label_ratio` it shows training scenes of that split and the labels that may be used; `label_splits` names files of
    official lists as in `Settings`. Raises EnvironmentCannot where it cannot be written, WrongUse for `scenes` below 1, and
    WrongUse or DataError for a ratio that does not fit the data.
    """
    from pretrain_bench.api.settings import root_options
    from pretrain_bench.benchmarks.datasets.preview import contact_sheet
    from pretrain_bench.harness.planning.label_lists import training_labels

    _check_counts(scenes=scenes)
    path = Path(f"{prepared.dataset.name}.png" if out is None else out)
    if path.suffix.lower() != ".png":
        raise WrongUse(f"--out {path}: expected a name that ends in .png")
    training = None if label_ratio is None else training_labels(prepared, label_ratio, root_options(label_splits))
    sheet = contact_sheet(prepared.dataset, prepared.folder, prepared.manifest, scenes, labels, training)
    with writing(path, "picture (--out names another file)"):
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    return path
