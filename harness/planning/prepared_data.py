"""Resolve a dataset's name to prepared data: the user's data, or the procedural stand-in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.datasets.layout import MANIFEST, Manifest, read_manifest
from pretrain_bench.benchmarks.datasets.problems import summarise
from pretrain_bench.benchmarks.specs.dataset import Dataset, UpChoice
from pretrain_bench.benchmarks.specs.layouts import LAYOUTS
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.planning.catalog import available, closest, find, is_path, unknown

DEFAULT_STRIDE: int = Profile.model_fields["frame_stride"].default
"""The stride of `bench data prepare`: that of a profile which sets none."""
_OTHER_CLASS = re.compile(r"class '([^']+)' is not among the dataset's classes")
"""The problem that a reader reports for a name in the files."""
ProgressFor = Callable[[str], Callable[[Iterable[str]], Iterable[str]]]


def no_progress(title: str) -> Callable[[Iterable[str]], Iterable[str]]:
    """Shows nothing."""
    return lambda items: items


def ignore(message: str) -> None:
    """Says nothing."""


class PreparedDataset(NamedTuple):
    """A dataset that is ready to use."""

    dataset: Dataset
    folder: Path
    manifest: Manifest

    @property
    def is_expected(self) -> bool:
        """Whether this is only the expected content: nothing is prepared."""
        from pretrain_bench.benchmarks.datasets.expected import ExpectedManifest

        return isinstance(self.manifest, ExpectedManifest)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of all scenes."""
        return tuple(s.name for s in self.manifest.scenes)

    def check_labels(self, scenes: Iterable[str]) -> None:
        """Raises DataError if a label file of these scenes differs from the manifest, since scores would then be wrong."""
        from pretrain_bench.benchmarks.datasets.check import changed_files

        changed = next(changed_files(self.folder, self.manifest, scenes), None)
        if changed is not None:
            raise DataError(
                f"{changed}; it changed after {self.dataset.name!r} was prepared; delete {self.folder} and run again to prepare "
                "the data anew"
            )

    @property
    def tested(self) -> tuple[str, ...]:
        """Names of the scenes that the layout marks as test scenes."""
        return tuple(s.name for s in self.manifest.scenes if s.test)


def prepared_with_manifest(dataset: str, sha256: str) -> tuple[Path, Manifest]:
    """The prepared data that a run used, by manifest hash. Raises WrongUse if they are missing."""
    for folder in sorted((cache_folder() / "prepared").glob(f"{dataset}-*")):
        # A folder without a manifest is being prepared, or was interrupted: continue with the others.
        if (folder / MANIFEST).is_file() and (manifest := read_manifest(folder)).sha256 == sha256:
            return folder, manifest
    raise WrongUse(
        f"the prepared data of {dataset!r} that this run used are not in {cache_folder()}; rerun its `bench run` to prepare them "
        "again, or set BENCH_CACHE to another cache"
    )


class DataSources(NamedTuple):
    """Sources of datasets: folders by dataset name, users' own dataset files by the name in them, and sizes."""

    roots: Mapping[str, Path] = {}
    own: Mapping[str, Dataset] = {}
    frame_stride: int = 1
    world: str = "smoke"
    chosen_stride: int | None = None
    """Overrides `frame_stride` and the dataset's own stride."""
    up: UpChoice = "auto"
    stand_ins: bool = True
    """Whether procedural datasets replace those without data; plans keep the original names instead."""

    def dataset(self, name: str) -> Dataset:
        """A dataset by name: a procedural one at its size, others in the layout found at their root. Raises WrongUse for an
        unknown name."""
        from pretrain_bench.benchmarks.datasets.layouts.registry import as_laid_out

        dataset = (self.own.get(name) or find(Dataset, name)).sized(self.world)
        return as_laid_out(dataset, self.roots[name]) if name in self.roots else dataset

    def resolve(self, name: str, say: Callable[[str], None]) -> str:
        """The dataset to use for `name`: itself if a root is configured or it is procedural, else its stand-in.

        Raises WrongUse if neither exists.
        """
        if name not in self.own and name not in available(Dataset):
            raise WrongUse(f"unknown dataset {name!r}; for one of your own, give its file: --data FILE.yaml=DIR")
        dataset = self.own.get(name) or find(Dataset, name)
        if name in self.roots or dataset.synthetic or (not self.stand_ins and dataset.published):
            return name
        if dataset.stand_in is None:
            raise WrongUse(f"dataset {name!r} has no data configured and no stand-in; give --data {name}=DIR")
        say(
            f"{dataset.title}: no data configured, using {dataset.stand_in} instead "
            f"(SYNTHETIC; --data {name}=DIR for yours)"
        )
        return dataset.stand_in

    def stride_of(self, dataset: Dataset) -> int:
        """Every n-th frame is used: n comes from the user, else from a dataset with preselected frames, else from the profile."""
        return self.chosen_stride or dataset.frame_stride or self.frame_stride

    def up_of(self, dataset: Dataset) -> UpChoice:
        """The up axis of a dataset's recordings, if its layout leaves it open."""
        if not LAYOUTS[dataset.layout].up_is_open:
            return "auto"
        return dataset.sensor.up if self.up == "auto" else self.up

    def check_up(self, names: Sequence[str]) -> None:
        """Raises WrongUse if the user gives an up axis but no dataset leaves it open."""
        if self.up != "auto" and not any(LAYOUTS[self.dataset(n).layout].up_is_open for n in names):
            given = f"{', '.join(names)} has z up by its format" if names else "no data are given"
            raise WrongUse(f"--up {self.up}: only layouts of recordings leave the up axis open; {given}")

    def prepared(self, name: str) -> PreparedDataset | None:
        """The result of `prepare` if it is in the cache; None if data must be generated or prepared first, or a root is
        missing."""
        from pretrain_bench.benchmarks.datasets.prepare import prepared_already
        from pretrain_bench.benchmarks.procedural.write import generated_already

        dataset, cache = self.dataset(name), cache_folder()
        root = generated_already(dataset, cache) if dataset.synthetic else self.roots.get(name)
        if root is None or not root.is_dir():
            return None
        folder = prepared_already(dataset, root, cache, self.stride_of(dataset), self.up_of(dataset))
        return None if folder is None else PreparedDataset(dataset, folder, read_manifest(folder))

    def expected(self, name: str) -> PreparedDataset | None:
        """A stand-in for a dataset that is not prepared, of its expected size, for plans; None if the size is
        unknown."""
        from pretrain_bench.benchmarks.datasets.expected import expected_manifest

        manifest = expected_manifest(dataset := self.dataset(name))
        return None if manifest is None else PreparedDataset(dataset, Path(), manifest)

    def bytes_of(self, name: str, held: PreparedDataset | None) -> int | None:
        """Size of a dataset in the cache: measured (`held`) or expected; None if unknown."""
        from pretrain_bench.benchmarks.datasets.expected import expected_bytes

        if held is not None:
            return sum(file.bytes for file in held.manifest.files.values())
        return expected_bytes(dataset := self.dataset(name), self.stride_of(dataset))

    def how_to_prepare(self, name: str) -> str:
        """The command that prepares a dataset; a dataset of the user's own is given by the file that describes it."""
        dataset, defaults = self.dataset(name), DataSources(frame_stride=DEFAULT_STRIDE)
        place = f"--world {self.world}" if dataset.synthetic else f"--root {self.roots.get(name, 'DIR')}"
        words = ["bench data prepare", "FILE.yaml" if name in self.own else name, place]
        if (stride := self.stride_of(dataset)) != defaults.stride_of(dataset):
            words.append(f"--frame-stride {stride}")
        if (up := self.up_of(dataset)) != defaults.up_of(dataset):
            words.append(f"--up {up}")
        return " ".join(words)

    def prepare(
        self, name: str, strict: bool = False, progress: ProgressFor = no_progress, say: Callable[[str], None] = ignore
    ) -> PreparedDataset:
        """Generate (if procedural) and prepare a dataset; quick if done before.

        Problems of the data are warnings, or with `strict` errors. Raises DataError, EnvironmentCannot.
        """
        from pretrain_bench.benchmarks.datasets.prepare import prepare
        from pretrain_bench.benchmarks.procedural.write import generate

        dataset, cache = self.dataset(name), cache_folder()
        root = generate(dataset, cache, progress(f"generate {name}")) if dataset.synthetic else self.roots[name]
        folder = prepare(
            dataset, root, cache, frame_stride=self.stride_of(dataset), strict=strict,
            progress=progress(f"prepare {name}"), say=say, up=self.up_of(dataset), bar_for=progress,
        )  # fmt: skip
        manifest = read_manifest(folder)
        for problem in summarise(manifest.problems):
            say(f"warning: {problem}")
        if name not in available(Dataset):
            others = _OTHER_CLASS.findall("\n".join(manifest.problems))
            for missing in classes_without_points(dataset, manifest):
                close = closest(missing, others)
                hint = f"did you mean {close!r}?" if close else "check its spelling in `classes`"
                say(f"warning: {name}: class {missing!r} labels no point of any scene; {hint}")
        return PreparedDataset(dataset, folder, manifest)


def classes_without_points(dataset: Dataset, manifest: Manifest) -> list[str]:
    """The classes that no labelled point of the prepared scenes has; empty if no scene has labels of points."""
    labelled = [scene.point_classes for scene in manifest.scenes if scene.point_classes is not None]
    held = {number for classes in labelled for number in classes}
    return [name for number, name in enumerate(dataset.classes) if labelled and number not in held]


def parse_data_options(options: Iterable[str], flag: str) -> tuple[dict[str, Path], dict[str, Dataset]]:
    """NAME=DIR options, where NAME may be the YAML file of a user's own dataset: roots by name, and own datasets by name.

    Raises WrongUse for a malformed option, an unknown dataset, a file that does not parse, a name that ships already, or a
    dataset with two roots.
    """
    roots: dict[str, Path] = {}
    own: dict[str, Dataset] = {}
    shipped = available(Dataset)
    for option in options:
        name, equals, folder = option.partition("=")
        if not equals or not folder:
            raise WrongUse(f"{flag} {option!r}: expected NAME=DIR, such as s3dis=/data/s3dis")
        if is_path(name):
            dataset = find(Dataset, name)
            if dataset.name in shipped:
                raise WrongUse(f"{name}: name: {dataset.name!r} is a dataset that ships; choose another name")
            _check_own(name, dataset)
            own[dataset.name], name = dataset, dataset.name
        elif name not in shipped:
            raise WrongUse(f"{flag} {option!r}: {unknown(Dataset, name, shipped)}")
        root = Path(folder).expanduser()
        check_one_root(name, (flag, roots.get(name, root)), (flag, root))
        roots[name] = root
    return roots, own


def check_one_root(name: str, *given: tuple[str, Path]) -> None:
    """Raises WrongUse if options give a dataset different roots, since its task and pre-training read the same one."""
    (flag, root), (other_flag, other) = given
    if root.absolute() != other.absolute():
        raise WrongUse(
            f"{flag} {name}={root} and {other_flag} {name}={other}: a dataset has one root, for tasks and pre-training alike; "
            "leave one of them out"
        )


def _check_own(path: str, dataset: Dataset) -> None:
    """Raises WrongUse for fields reserved to shipped datasets."""
    if dataset.synthetic:
        raise WrongUse(f"{path}: synthetic: only shipped procedural datasets are synthetic; remove the field")
    for field in ("test_scenes_file", "train_scenes_file", "split_file"):
        if getattr(dataset, field) is not None:
            raise WrongUse(
                f"{path}: {field}: names a list that ships; name your scenes with train_ and test_scene_prefixes"
            )
