"""Titles and file names of groups of runs, and the mark of synthetic data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretrain_bench.benchmarks.specs.cell import label_words
from pretrain_bench.benchmarks.specs.official_labels import OFFICIAL
from pretrain_bench.benchmarks.specs.probes import FINETUNE
from pretrain_bench.reports.analysis.columns import GROUP

if TYPE_CHECKING:
    import pandas as pd

SYNTHETIC_MARK = "SYNTHETIC DATA"


def text_mark(synthetic: Any) -> str:
    """The beginning of table titles."""
    return f"{SYNTHETIC_MARK}: " if synthetic else ""


def figure_mark(synthetic: Any) -> str:
    """The beginning of figure titles, with the mark on its own line."""
    return f"{SYNTHETIC_MARK}\n" if synthetic else ""


def protocol_mark(protocol: Any) -> str:
    """The end of titles for protocols other than fine-tuning: `, protocol linear`."""
    return "" if protocol == FINETUNE else f", protocol {protocol}"


def group_title(group: Mapping[str, Any]) -> str:
    """A title of what the runs of a group share. `group` maps the columns GROUP to values."""
    return (
        f"{group['task']} on {group['dataset']}, {label_words(str(group['label_ratio']))}, "
        f"budget {group['budget']}, profile {group['profile']}{protocol_mark(group['protocol'])}"
    )


def short_ratio(ratio: str) -> str:
    """A label ratio at the head of a column: `5%`, `official scannet-lr20`."""
    return "official " * (ratio in OFFICIAL) + ratio


def short_group_title(group: Mapping[str, Any]) -> str:
    """A shorter title; the profile is omitted if it has the name of its budget."""
    budget, profile = group["budget"], group["profile"]
    limits = budget if profile == budget else f"{budget}, profile {profile}"
    title = f"{group['task']} on {group['dataset']}, {short_ratio(str(group['label_ratio']))}, budget {limits}"
    return title + protocol_mark(group["protocol"])


def with_part(title: str, group: pd.DataFrame) -> str:
    """The title of a group of runs, plus the scored part of the test split if it is not all of it."""
    part = str(group["part_of_test_split"].iloc[0])
    return f"{title}, {part}" if part else title


def parts_of_test_splits(runs: pd.DataFrame) -> str:
    """The end of the title of a table over several tasks: tasks whose test split is not scored completely."""
    parts = runs[runs["part_of_test_split"] != ""]
    tasks = sorted({f"{task} ({part})" for task, part in zip(parts["task"], parts["part_of_test_split"], strict=True)})
    return f"; not on the whole test split: {', '.join(tasks)}" if tasks else ""


def contaminated_rows(runs: pd.DataFrame) -> str:
    """The end of a table title: rows whose pre-training saw, or may have seen, test scenes of their task, so that they are not
    comparable with clean rows."""
    seen = runs.loc[runs["contamination_mark"] != "", ["row", "task", "contamination_mark"]].drop_duplicates()
    texts = [f"{row} on {task} ({words})" for row, task, words in sorted(seen.itertuples(index=False, name=None))]
    return f"; not comparable, since pre-training saw test scenes or may have: {', '.join(texts)}" if texts else ""


def group_id(group: Mapping[Any, Any]) -> str:
    """Name of a group in file names and links."""
    words = ("synthetic" if group["synthetic"] else "", *(str(group[c]) for c in GROUP if c != "synthetic"))
    return slug(" ".join(words))


def slug(text: str) -> str:
    """Text as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
