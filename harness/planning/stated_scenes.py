"""Check the scenes that users state for weights from elsewhere: a misspelled item would read as no contamination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pretrain_bench.benchmarks.datasets.contamination import dataset_of, unmatched
from pretrain_bench.benchmarks.datasets.published_pretrainings import LABELS, expand
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.catalog import MISSPELLED, available, closest
from pretrain_bench.harness.planning.stage_specs import PlannedCell

SCAN_IDS = ("scannet", "s3dis", "kitti", "sunrgbd")
"""Datasets by the names in the ids of their scans (`places.py`)."""
SAME_WORD = 0.88
"""Resemblance from which a name is taken as a misspelling: `scanet` is one of `scannet`, but `scenenet` is another dataset."""
_SHOWN = 3


def known_datasets(own: Iterable[str]) -> frozenset[str]:
    """Every name by which the scenes of a dataset may be stated. `own` are a user's own datasets in this run."""
    return frozenset((*SCAN_IDS, *available(Dataset), *own))


def check_stated(methods: Iterable[Method], known: frozenset[str]) -> None:
    """Raises WrongUse for an item in no known form, or whose dataset is a misspelled known one. Names such as `scannetpp`, which
    extend a known one, are other datasets."""
    for method in methods:
        for item, name in _foreign(method.pretrained_on or (), known):
            close = closest(name, known, SAME_WORD)
            if close and not name.startswith(tuple(known)):
                raise WrongUse(
                    f"method {method.name!r}, pretrained_on {item!r}: unknown dataset {name!r}; did you mean "
                    f"{item.replace(name, close, 1)!r}? If it is another dataset, state it under a name that resembles none of "
                    f"these: {', '.join(sorted(known))}"
                )


def lines_on_stated(planned: Iterable[PlannedCell], known: frozenset[str]) -> list[str]:
    """Warnings of stated items that match no scene of the dataset that is tested, or that name a dataset of no task here."""
    lines: dict[str, None] = {}
    for cell in planned:
        target = cell.stages[-1].data if cell.stages else None
        stated = [item for s in cell.stages if s.spec.kind == "pretrain" for item in s.spec.pretrained_on or ()]
        if not stated or target is None or target.is_expected:
            continue
        scenes, name = target.scenes, target.dataset.name
        who = f"warning: {cell.cell.method}: "
        if items := unmatched(stated, scenes, name, target.manifest.synthetic):
            where = f"{len(scenes)} scenes of {name}, such as {name}/{scenes[0]}"
            lines[f"{who}{_some(items)} in its stated scenes match none of the {where}; a folder ends in /*"] = None
        folders = {scene.partition("__")[0] for scene in scenes if "__" in scene}
        for item, prefix in _foreign(stated, known):
            folder = next((f"{name}/{f}" for f in sorted(folders) if f.lower() == prefix.lower()), None)
            right = folder or closest(prefix, known, MISSPELLED)
            hint = "" if right is None else f"; did you mean {item.replace(prefix, right, 1)!r}?"
            lines[f"{who}{item!r} in its stated scenes is of no dataset known here, so it does not count{hint}"] = None
    return list(lines)


def _foreign(stated: Iterable[str], known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The stated items of datasets that are not known, and the names of these."""
    for item in expand(stated):
        name = dataset_of(item.removeprefix(LABELS))
        if name is not None and name not in known:
            yield item, name


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(map(repr, items[:_SHOWN])) + more
