"""Compare two stores or suites (before and after, two machines), cell by cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.records import is_commit
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.columns import UNIT
from pretrain_bench.reports.analysis.frame import Loaded, load
from pretrain_bench.reports.analysis.rows import row_name
from pretrain_bench.reports.analysis.scores import headline_checkpoint
from pretrain_bench.reports.analysis.sorting import column_key
from pretrain_bench.reports.analysis.statistics import PairedTest, estimate, sign_flip_test, verdict
from pretrain_bench.reports.analysis.what_ran import COMMIT_DIGITS, commit_words

if TYPE_CHECKING:
    import pandas as pd

CELL = [
    "task",
    "metric",
    "dataset",
    "synthetic",
    "protocol",
    "label_ratio",
    "method",
    "pretrain_dataset",
    "pretrain_synthetic",
    "pretrain_seed",
    "finetune_seed",
]
"""Runs that agree in these columns are paired (twins). Budget, profile, pre-training and evaluation conditions may differ, and
the table then names the difference."""
ROW = ["task", "dataset", "synthetic", "protocol", "label_ratio", "method", "row", "pretrain_dataset"]
WAYS = ["budget", "profile", "conditions", "pretraining"]
PART = "part_of_test_split"
"""Column of the frame: the scored part of the test split as text, empty if all of it is scored."""


class Side(NamedTuple):
    """One side of a comparison: name, store, keys of the runs to compare (None: all), and whether a commit selected
    them."""

    name: str
    store: Store
    keys: set[str] | None = None
    of_commit: bool = False


def at_commit(side: Side, commit: str) -> Side:
    """The runs of a side that were made at one commit, given by its first digits; unchanged runs of earlier commits are excluded.
    Raises WrongUse if there are none, or if the digits match several commits."""
    records = [r for r in side.store.records() if side.keys is None or r.key in side.keys]
    present = {made for r in records if (made := r.provenance.git_commit) and is_commit(made)}
    matching = {one for one in present if commit and one.startswith(commit)}
    if len(matching) != 1:
        problem, listed = ("several commits", matching) if matching else ("no runs of that commit", present)
        known = ", ".join(sorted(one[:COMMIT_DIGITS] for one in listed)) or "no known commit"
        raise WrongUse(f"{side.name}@{commit}: {problem}; {side.name} has runs of: {known}")
    return Side(
        f"{side.name}@{commit}", side.store, {r.key for r in records if r.provenance.git_commit in matching}, True
    )


def load_side(side: Side) -> Loaded:
    """Read the runs of a side. Raises WrongUse if there are none, or if it has a cell twice."""
    loaded = load(side.store, side.keys)
    runs = loaded.runs
    if not len(runs):
        raise WrongUse(f"{side.name}: no fine-tuning runs to compare")
    twice = runs[runs.duplicated(CELL, keep=False)]
    if len(twice):
        r = twice.iloc[0]
        ways = twice[(twice[CELL] == r[CELL]).all(axis=1)]["key"]
        commits = sorted({commit_words(loaded.records[key].provenance) for key in ways})
        raise WrongUse(
            f"{side.name}: {r['method']} on {r['task']} at {r['label_ratio']}, seeds {r['pretrain_seed']}/{r['finetune_seed']}, "
            f"was run in {len(ways)} ways (budget, recipe, data or code; commit {', '.join(commits)}); choose a store or "
            f"suite that holds only one of them{', or either at a commit (NAME@COMMIT)' * (len(commits) > 1)}"
        )
    return loaded


def paired(one: Side, two: Side, loaded: Sequence[Loaded] | None = None) -> tuple[pd.DataFrame, str]:
    """One row per cell of either side, and the checkpoint of its scores.

    `score_a` and `score_b` are in per cent, NaN if a side has no successful run; `same` is whether they are bit-identical;
    `lacks_a` and `lacks_b` give the reason for a missing score. The checkpoint is `selected` if both sides always have it, else
    `final`. `loaded`: both sides, if already read. Raises WrongUse if no cell is on both sides.
    """
    loaded = loaded or [load_side(side) for side in (one, two)]
    frames = [side.runs for side in loaded]
    checkpoint = "selected" if all(headline_checkpoint(runs) == "selected" for runs in frames) else "final"
    parts = []
    for letter, runs in zip("ab", frames, strict=True):
        raw = runs[f"score_{checkpoint}"].where(runs["outcome"] == "ok")
        part = runs[[*CELL, *WAYS, "key", "outcome", PART]].assign(score=100 * raw, raw=raw)
        parts.append(part.rename(columns={c: f"{c}_{letter}" for c in part if c not in CELL}))
    pairs = parts[0].merge(parts[1], on=CELL, how="outer")
    if not (pairs["key_a"].notna() & pairs["key_b"].notna()).any():
        raise WrongUse(
            f"{one.name} and {two.name} have no cell in common: no method, task, ratio and seeds are in both"
        )
    # Compared as recorded: in per cent, scores that differ only in their last bit can become equal.
    pairs["same"] = pairs.pop("raw_a") == pairs.pop("raw_b")
    for letter, side, runs_of in zip("ab", (one, two), loaded, strict=True):
        pairs[f"lacks_{letter}"] = _reasons_without_score(pairs, letter, side, runs_of)
    several = pairs.groupby(["synthetic", "method"])["pretrain_dataset"].transform("nunique") > 1
    before_real = pairs["pretrain_synthetic"] & ~pairs["synthetic"]
    named = zip(pairs["method"], pairs["pretrain_dataset"], several, before_real, strict=True)
    pairs["row"] = [row_name(*one) for one in named]
    order = ["method", "row", "task", "label_ratio", "pretrain_seed", "finetune_seed"]
    return pairs.sort_values(order, key=column_key, kind="stable", ignore_index=True), checkpoint


def _reasons_without_score(pairs: pd.DataFrame, letter: str, side: Side, loaded: Loaded) -> list[str]:
    """The reason for a missing score of a side, for each cell; empty if it has one."""
    other = "b" if letter == "a" else "a"
    own_budgets = set(loaded.runs[["budget", "profile"]].itertuples(index=False, name=None))
    which = ["method", "pretrain_dataset", UNIT]
    # A later successful run of a seed clears the failure of its pre-training.
    repaired = set(loaded.runs[which].itertuples(index=False, name=None))
    failed = {
        (one.method, one.pretrain_dataset, one.seed, one.budget, one.profile)
        for one in loaded.failed_pretrainings
        if one.protocol is None and (one.method, one.pretrain_dataset, one.seed) not in repaired
    }
    reasons = []
    for cell, (score, outcome, key) in zip(
        pairs[[*which, f"budget_{other}", f"profile_{other}"]].itertuples(index=False, name=None),
        pairs[[f"{c}_{letter}" for c in ("score", "outcome", "key")]].itertuples(index=False, name=None),
        strict=True,
    ):
        if not np.isnan(score):
            reasons.append("")
        elif isinstance(key, str):
            reasons.append("without a score" if outcome == "ok" else outcome)
        elif cell in failed or any((*cell[:3], *budget) in failed for budget in own_budgets):
            reasons.append("pre-training failed")
        else:
            reasons.append("not run at that commit" if side.of_commit else "not run")
    return reasons


def differences(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row per method, task and ratio, with ROW and these columns: `mean_a` and `mean_b` of the twins in per cent, or of
    all runs of a side without twins; `part_of_test_split_a` and `_b`, empty if all of it is scored; `difference`, `low`,
    `high` and `n`; `equal` of `twins`; `without_twin`, `conditions` and `verdict` as text."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for names, group in pairs.groupby(ROW, dropna=False):
        both = _twins(group)
        gap = estimate((both["score_b"] - both["score_a"]).groupby(both[UNIT]).mean().to_numpy())
        shown = {side: both if len(both) else group.dropna(subset=[f"score_{side}"]) for side in "ab"}
        parts = {f"{PART}_{s}": ", ".join(sorted({p for p in shown[s][f"{PART}_{s}"] if p})) for s in "ab"}
        means = {f"mean_{s}": shown[s].groupby(UNIT)[f"score_{s}"].mean().mean() for s in "ab"}
        rows.append(
            {
                **dict(zip(ROW, names, strict=True)),
                **means,
                **parts,
                "difference": gap.mean,
                "low": gap.low,
                "high": gap.high,
                "n": gap.n,
                "equal": int(both["same"].sum()),
                "twins": len(both),
                "without_twin": _without_twin(group),
                "conditions": _difference_of_conditions(group[group["key_a"].notna() & group["key_b"].notna()]),
                "verdict": _verdict(verdict(gap), both),
            }
        )
    return pd.DataFrame(rows).sort_values(ROW, key=column_key, kind="stable").reset_index(drop=True)


class OverallDifference(NamedTuple):
    """B against A over all cells: the mean difference in points, its permutation test, and the verdict."""

    mean: float
    test: PairedTest
    verdict: str


def overall_difference(pairs: pd.DataFrame) -> OverallDifference | None:
    """B against A over all methods, tasks and ratios; None without twins.

    Cells that share a pre-training are not independent, so the test uses the means of pre-trainings.
    """
    both = _twins(pairs)
    units = [both[c] for c in ("method", "pretrain_dataset", UNIT)]
    gaps = (both["score_b"] - both["score_a"]).groupby(units).mean().to_numpy()
    if not len(gaps):
        return None
    test = sign_flip_test(gaps)
    return OverallDifference(float(gaps.mean()), test, "the same" if both["same"].all() else test.words())


def made_by(loaded: Loaded) -> str:
    """The number of runs of a side, and the devices, torch versions and commits of the runs and their pre-trainings."""
    keys = {*loaded.runs["key"], *(key for keys in loaded.runs["pretrain_keys"] for key in keys)}
    provenances = [loaded.records[key].provenance for key in sorted(keys)]
    gpus = [p.numerics.get("gpu", "none") for p in provenances]
    devices = {p.cpu if gpu == "none" else gpu for p, gpu in zip(provenances, gpus, strict=True)}
    torches = {p.numerics.get("torch") or p.packages.get("torch", "unknown") for p in provenances}
    commits = {commit_words(p) for p in provenances}
    parts = (f"{len(loaded.runs)} runs", "; ".join(sorted(devices)))
    return ", ".join((*parts, f"torch {' and '.join(sorted(torches))}", f"commit {' and '.join(sorted(commits))}"))


def _twins(pairs: pd.DataFrame) -> pd.DataFrame:
    return pairs[pairs["score_a"].notna() & pairs["score_b"].notna()]


def _without_twin(group: pd.DataFrame) -> str:
    """The number of cells without a successful run on either side, by reason: `2 crashed in B, 1 not run in A`."""
    why = Counter(f"{words} in {side.upper()}" for side in "ab" for words in group[f"lacks_{side}"] if words)
    return ", ".join(f"{n} {words}" for words, n in why.most_common()) or "0"


def _verdict(words: str, both: pd.DataFrame) -> str:
    if not len(both):
        return "no twins"
    return "the same" if both["same"].all() else words


def _difference_of_conditions(present: pd.DataFrame) -> str:
    """How the conditions of twins differ; or that they are equal."""
    if not len(present):
        return "-"
    changed = {name: (present[f"{name}_a"] != present[f"{name}_b"]).any() for name in WAYS}
    if not any(changed.values()):
        return "same"
    named = [
        f"{name} {'/'.join(sorted(set(present[f'{name}_a'])))} -> {'/'.join(sorted(set(present[f'{name}_b'])))}"
        for name in ("budget", "profile")
        if changed[name]
    ]
    stages = [
        words for name, words in (("pretraining", "pre-training"), ("conditions", "fine-tuning")) if changed[name]
    ]
    return "differs: " + (", ".join(named) or f"recipe, data or code of {' and '.join(stages)}")
