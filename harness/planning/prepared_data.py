"""From a dataset's name to its prepared form: configured by the user, or the procedural stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.datasets.layout import MANIFEST, Manifest, read_manifest
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.planning.catalog import available, find

ProgressFor = Callable[[str], Callable[[Iterable[str]], Iterable[str]]]


class PreparedDataset(NamedTuple):
    """A dataset that is ready to be used."""

    dataset: Dataset
    folder: Path
    manifest: Manifest

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of all scenes."""
        return tuple(s.name for s in self.manifest.scenes)

    @property
    def tested(self) -> tuple[str, ...]:
        """Names of the scenes that the layout itself calls test scenes."""
        return tuple(s.name for s in self.manifest.scenes if s.test)


def prepared_with_manifest(dataset: str, sha256: str) -> tuple[Path, Manifest]:
    """The prepared data that a run was made from, by the hash of their manifest. Raises WrongUse where they are not there."""
    for folder in sorted((cache_folder() / "prepared").glob(f"{dataset}-*")):
        # Without a manifest it is being prepared, or was left so; that is no reason not to find another.
        if (folder / MANIFEST).is_file() and (manifest := read_manifest(folder)).sha256 == sha256:
            return folder, manifest
    raise WrongUse(
        f"the prepared data of {dataset!r} that this run was made from are not in {cache_folder()}; the `bench run` that made "
        "it prepares them again, and BENCH_CACHE names another cache"
    )


def parse_roots(options: Iterable[str], flag: str) -> dict[str, Path]:
    """NAME=DIR options to a mapping. Raises WrongUse for a malformed one or an unknown dataset."""
    roots = {}
    for option in options:
        name, equals, folder = option.partition("=")
        if not equals or not folder:
            raise WrongUse(f"{flag} {option!r}: expected NAME=DIR, such as s3dis=/data/s3dis")
        if name not in available(Dataset):
            raise WrongUse(f"{flag} {option!r}: unknown dataset {name!r}. There are: {', '.join(available(Dataset))}")
        roots[name] = Path(folder).expanduser()
    return roots


def resolve(name: str, roots: Mapping[str, Path], say: Callable[[str], None]) -> str:
    """The dataset that will be used for `name`: itself where a root is configured or it is procedural, else its stand-in.

    Raises WrongUse where there is neither.
    """
    dataset = find(Dataset, name)
    if name in roots or dataset.synthetic:
        return name
    if dataset.stand_in is None:
        raise WrongUse(f"dataset {name!r} has no data configured and no stand-in; give --data {name}=DIR")
    say(
        f"{dataset.title}: no data configured, using {dataset.stand_in} instead (SYNTHETIC; --data {name}=DIR for yours)"
    )
    return dataset.stand_in


def ready_already(name: str, roots: Mapping[str, Path], frame_stride: int, world: str) -> PreparedDataset | None:
    """What `ready` would give at once; None where something is to be generated or prepared first, or a root is missing."""
    from pretrain_bench.benchmarks.datasets.prepare import prepared_already
    from pretrain_bench.benchmarks.procedural.write import generated_already

    dataset = find(Dataset, name).sized(world)
    cache = cache_folder()
    root = generated_already(dataset, cache) if dataset.synthetic else roots.get(name)
    if root is None or not root.is_dir():
        return None
    folder = prepared_already(dataset, root, cache, dataset.frame_stride or frame_stride)
    return None if folder is None else PreparedDataset(dataset, folder, read_manifest(folder))


def ready(
    name: str,
    roots: Mapping[str, Path],
    frame_stride: int,
    strict: bool,
    progress: ProgressFor,
    say: Callable[[str], None],
    world: str = "smoke",
) -> PreparedDataset:
    """Generate (where procedural) and prepare a dataset; quick when that was done before.

    `frame_stride` is the profile's, which a dataset of chosen frames overrides; `world` is the size of a procedural one.
    """
    from pretrain_bench.benchmarks.datasets.prepare import prepare
    from pretrain_bench.benchmarks.procedural.write import generate

    dataset = find(Dataset, name).sized(world)
    cache = cache_folder()
    root = generate(dataset, cache, progress(f"generate {name}")) if dataset.synthetic else roots[name]
    stride = dataset.frame_stride or frame_stride
    folder = prepare(
        dataset, root, cache, frame_stride=stride, strict=strict, progress=progress(f"prepare {name}"), say=say
    )
    manifest = read_manifest(folder)
    for problem in manifest.problems:
        say(f"warning: {problem}")
    return PreparedDataset(dataset, folder, manifest)
