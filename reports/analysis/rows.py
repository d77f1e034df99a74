"""Rows of tables: runs of one method that differ only in their seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.benchmarks.specs.probes import DecoderProbe, LinearProbe
from pretrain_bench.reports.analysis.columns import ROW
from pretrain_bench.reports.analysis.method_cards import BASELINE, is_imported, place_of, uses_labels

if TYPE_CHECKING:
    import pandas as pd

SYNTHETIC_PRETRAINING = "SYNTHETIC"
"""Mark in row names: pre-trained on synthetic data, fine-tuned and tested on real data."""


IMPORTED_MARK = "imported, budget unknown"
"""Mark in row names: a user's checkpoint, made under no budget of this project."""


def row_names(runs: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """Printed name to (method, pre-training dataset, hash of the pre-training), in table order."""
    rows = runs[["row", *ROW]].drop_duplicates().itertuples(index=False, name=None)
    return {r[0]: r[1:] for r in sorted(rows, key=lambda r: (place_of(r[1]), r[1:]))}


def row_name(method: str, pretrain_dataset: str, several: bool, synthetic_before_real: bool) -> str:
    """The printed name of a row without its hash: `ours`, `ours (rgbd-folder)`, `ours (synth-scannet, SYNTHETIC)`.

    `several`: the method was pre-trained on several datasets. `synthetic_before_real`: pre-trained on synthetic data before a
    task on real data, which the table of real data must show. Imported checkpoints are marked.
    """
    if is_imported(method):
        return f"{method} ({IMPORTED_MARK})"
    if synthetic_before_real:
        return f"{method} ({pretrain_dataset}, {SYNTHETIC_PRETRAINING})"
    return f"{method} ({pretrain_dataset})" if several else method


def by_row(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of each row, by its printed name and in table order."""
    parts = {name: part for name, part in runs.groupby("row", sort=False)}
    return {name: parts[name] for name in row_names(runs)}


def imported_rows(runs: pd.DataFrame) -> dict[str, int]:
    """Printed names of the rows of imported checkpoints, with the number of files, each of which is one pre-training."""
    rows = {name: part for name, part in by_row(runs).items() if is_imported(str(part["method"].iloc[0]))}
    return {name: int(part["pretrain_seed"].nunique()) for name, part in rows.items()}


def baseline_rows(runs: pd.DataFrame) -> list[str]:
    """Printed names of the rows of the baseline; with more than one there is no single row to compare with."""
    return [name for name, (method, *_) in row_names(runs).items() if method == BASELINE]


def probes_decoder(protocol: str) -> bool:
    """Whether a protocol, by its name in reports, needs the pre-trained decoder, and not only the encoder."""
    return protocol.startswith((LinearProbe().title, DecoderProbe(start="kept").title))


def has_no_finetuning_seed(protocol: str) -> bool:
    """Whether runs of a protocol, by its name in reports, depend on no fine-tuning seed, as linear probes."""
    return protocol.startswith(LinearProbe().title)


def applicable(method: str, pretrain_dataset: str, dataset: str) -> bool:
    """Whether a method with this pre-training may be fine-tuned on a dataset: not if it used labels of the same dataset."""
    return not uses_labels(method) or pretrain_dataset != dataset
