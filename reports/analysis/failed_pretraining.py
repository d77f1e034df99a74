"""Failed pre-trainings: their fine-tunings never ran and have no records, but count as failures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.reports.analysis.columns import ROW, UNIT
from pretrain_bench.reports.analysis.rows import applicable, by_row, probes_decoder, row_name

if TYPE_CHECKING:
    import pandas as pd

OTHER_PRETRAINING = "other code or recipe"


class FailedPretraining(NamedTuple):
    """One failed pre-training, with the groups in which it would have counted and its printed row name."""

    budget: str
    profile: str
    synthetic: bool | None
    """Whether it counts for tasks on synthetic data (True), on real data (False), or both (None)."""
    method: str
    pretrain_dataset: str
    seed: int
    key: str
    digest: str = ""
    """Hash of its stage without the seed; runs with equal pre-training list it in `pretrain_stages`."""
    row: str = ""
    pretrain_synthetic: bool | None = None
    """Whether its own data are synthetic; None if it read no data."""
    task: str | None = None
    protocol: str | None = None
    """For failed features: the task and protocol of the missing runs. None: all."""
    transfer: str = "all"
    """What it would have handed on: `all`, or only its `encoder`."""


class _SameMethod(NamedTuple):
    """A row of a group: its pre-training seeds, and the digests of its pre-training stages."""

    seeds: set[int]
    stages: set[str]


def failed_by_row(runs: pd.DataFrame, failed: Iterable[FailedPretraining]) -> dict[str, list[FailedPretraining]]:
    """Map printed row names to the failed pre-trainings that would have counted in this group of runs.

    A failure belongs to the row with equal pre-training. If there is none, it has a row of its own, unless another row of the
    method has a run with its seed, for example after a repair.
    """
    in_order = sorted(failed, key=lambda one: (one.method, one.pretrain_dataset, one.seed, one.key))
    if not in_order:
        return {}
    rows: dict[tuple[str, str], dict[str, _SameMethod]] = {}
    for row, mine in by_row(runs[["row", *ROW, UNIT, "pretrain_stages"]]).items():
        stages = {stage for several in set(mine["pretrain_stages"]) for stage in several}
        which = str(mine["method"].iloc[0]), str(mine["pretrain_dataset"].iloc[0])
        rows.setdefault(which, {})[row] = _SameMethod(set(mine[UNIT]), stages)
    result: dict[str, list[FailedPretraining]] = {}
    for one in in_order:
        if not _belongs(one, runs):
            continue
        marked = bool(one.pretrain_synthetic) and not runs["synthetic"].iloc[0]
        for name in _rows_of(one, rows, marked):
            if one.seed not in {other.seed for other in result.get(name, ())}:
                result.setdefault(name, []).append(one)
    return result


def _belongs(one: FailedPretraining, runs: pd.DataFrame) -> bool:
    """Whether a failed pre-training would have been fine-tuned in this group of runs."""
    first = runs.iloc[0]
    if (one.budget, one.profile) != (first["budget"], first["profile"]):
        return False
    if one.protocol is not None and (one.task, one.protocol) != (first["task"], first["protocol"]):
        return False
    if one.transfer != "all" and probes_decoder(first["protocol"]):
        return False
    # A pre-training without data belongs to both kinds; one on real data may serve a task on synthetic data.
    same_kind = one.synthetic in (None, first["synthetic"]) or one.pretrain_dataset in set(runs["pretrain_dataset"])
    return same_kind and applicable(one.method, one.pretrain_dataset, first["dataset"])


def _rows_of(
    one: FailedPretraining, rows: dict[tuple[str, str], dict[str, _SameMethod]], synthetic_before_real: bool
) -> list[str]:
    """Printed names of the rows that lack the seed of a failed pre-training. `synthetic_before_real`: as for `row_name`."""
    alike = rows.get((one.method, one.pretrain_dataset), {})
    same_way = {name: row.seeds for name, row in alike.items() if one.digest in row.stages}
    if same_way:
        return [name for name, seeds in same_way.items() if one.seed not in seeds]
    if any(one.seed in row.seeds for row in alike.values()):
        return []
    others = any(method == one.method and dataset != one.pretrain_dataset for method, dataset in rows)
    name = row_name(one.method, one.pretrain_dataset, True, synthetic_before_real) if others else one.row
    return [f"{name}, {OTHER_PRETRAINING}" if alike else name]
