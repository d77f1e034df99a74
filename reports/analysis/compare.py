"""Two stores or suites side by side (before and after, one machine and another): every cell against its own twin."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pretrain_bench.benchmarks.support.errors import WrongUse, cannot_write
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.frame import METRIC_NAMES, Loaded, load
from pretrain_bench.reports.analysis.overview import in_any_order
from pretrain_bench.reports.analysis.statistics import TESTED, estimate, sign_flip_test, verdict
from pretrain_bench.reports.export.folder import OF_A_COMPARISON, earlier_files_removed
from pretrain_bench.reports.figures.plots import SYNTHETIC_MARK, paired_scores, save
from pretrain_bench.reports.tables.formats import latex, markdown, plain, write_data
from pretrain_bench.reports.tables.tables import UNIT, headline, show, show_p

if TYPE_CHECKING:
    import pandas as pd

    from pretrain_bench.harness.contract.records import Provenance

CELL = [
    "task",
    "metric",
    "dataset",
    "synthetic",
    "label_ratio",
    "method",
    "pretrain_dataset",
    "pretrain_seed",
    "finetune_seed",
]
"""What makes two runs twins. Budget, profile, pre-training and protocol may differ; the table says where they do."""
ROW = ["task", "dataset", "synthetic", "label_ratio", "method", "row", "pretrain_dataset"]
WAYS = ["budget", "profile", "protocol", "pretraining"]
SHOWN = ["task", "ratio", "row", "A", "B", "B - A", "n", "equal", "without twin", "protocol", "verdict"]
NOTES = """B - A: mean of differences of twins (same cell, same seeds), averaged within each pre-training seed, with its 95 %
interval; n counts pre-training seeds. equal: twins whose scores are the same to the last bit. A and B are means of twins;
where there are none, of what the side has."""


class Side(NamedTuple):
    """One of the two: what it is called, its store, the runs that count (None: all), and whether they are those of a commit."""

    name: str
    store: Store
    keys: set[str] | None = None
    of_commit: bool = False


def at_commit(side: Side, commit: str) -> Side:
    """The runs of a side that were made at one commit, given by its first digits. What was not run again then, since nothing
    had changed for it, is not among them. Raises WrongUse where there are none, and where the digits fit several commits."""
    told = [r for r in side.store.records() if side.keys is None or r.key in side.keys]
    there = {r.provenance.git_commit for r in told if r.provenance.git_commit}
    meant = {one for one in there if commit and one.startswith(commit)}
    if len(meant) != 1:
        wrong, which = ("several commits", meant) if meant else ("no runs of that commit", there)
        known = ", ".join(sorted(one[:SHORT] for one in which)) or "no known commit"
        raise WrongUse(f"{side.name}@{commit}: {wrong}; {side.name} has runs of: {known}")
    return Side(f"{side.name}@{commit}", side.store, {r.key for r in told if r.provenance.git_commit in meant}, True)


SHORT = 10
"""Digits of a commit that tell it apart."""


def _commit(told: Provenance) -> str:
    return (told.git_commit or "unknown")[:SHORT] + " with changes" * bool(told.git_dirty)


class Comparison(NamedTuple):
    """The table, what was written, and the whole as text."""

    table: pd.DataFrame
    files: dict[str, Path]
    text: str


def build_comparison(one: Side, two: Side, out: Path) -> Comparison:
    """Write compare.md, .tex, .csv, .json and a figure with its data to `out`; of synthetic data, under names that say so.

    Raises WrongUse where no cell is on both sides or a side has one cell twice, EnvironmentCannot where `out` cannot be written.
    """
    sides = [_loaded(side) for side in (one, two)]
    pairs, checkpoint = paired(one, two, sides)
    table = differences(pairs)
    made = "\n".join(
        textwrap.fill(f"{letter}: {plain(made_by(loaded))}", 120, subsequent_indent="   ")
        for letter, loaded in zip("AB", sides, strict=True)
    )
    texts: list[str] = []
    files: dict[str, Path] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with earlier_files_removed(out, OF_A_COMPARISON):
            # A synthetic result stands in no table and no figure with a real one.
            for synthetic, part in pairs.groupby("synthetic"):
                prefix, mark = ("synthetic-", f"{SYNTHETIC_MARK}: ") if synthetic else ("", "")
                kinds = " or ".join(METRIC_NAMES[m].removesuffix(" (%)") for m in sorted(set(part["metric"])))
                title = f"{mark}B ({two.name}) against A ({one.name}), {kinds} in per cent, {checkpoint} checkpoint"
                mine = table[table["synthetic"] == synthetic]
                shown = mine[SHOWN].rename(columns={"row": "method"})
                text = f"{plain(title)}\n\n{markdown(shown)}\n\n{mark}{overall(part)}\n\n{NOTES}\n\n{made}\n"
                (out / f"{prefix}compare.md").write_text(text)
                (out / f"{prefix}compare.tex").write_text(latex(shown, title))
                write_data(mine, out / f"{prefix}compare")
                part.to_csv(out / f"figure-{prefix}compare.csv", index=False)
                pictures = save(paired_scores(part, (one.name, two.name), title), out / f"figure-{prefix}compare")
                texts.append(text)
                files |= {f"{prefix}compare": out / f"{prefix}compare.md", f"figure-{prefix}compare": pictures[0]}
    except OSError as error:
        raise cannot_write(out, error, "comparison (--out names another folder)") from error
    return Comparison(table, files, "\n".join(texts))


def paired(one: Side, two: Side, sides: Sequence[Loaded] | None = None) -> tuple[pd.DataFrame, str]:
    """One row a cell of either side, with `score_a` and `score_b` in per cent (NaN where a side has no good run) and whether they
    are the `same` to the last bit; and the checkpoint that they are of: `selected` where both sides have it everywhere, else
    `final`. `sides`: both, where they are read."""
    read = sides or [_loaded(side) for side in (one, two)]
    frames = [loaded.runs for loaded in read]
    checkpoint = "selected" if all(headline(runs) == "selected" for runs in frames) else "final"
    parts = []
    for letter, runs in zip("ab", frames, strict=True):
        raw = runs[f"score_{checkpoint}"].where(runs["outcome"] == "ok")
        part = runs[[*CELL, *WAYS, "key", "outcome"]].assign(score=100 * raw, raw=raw)
        parts.append(part.rename(columns={c: f"{c}_{letter}" for c in part if c not in CELL}))
    pairs = parts[0].merge(parts[1], on=CELL, how="outer")
    if not (pairs["key_a"].notna() & pairs["key_b"].notna()).any():
        raise WrongUse(
            f"{one.name} and {two.name} have no cell in common: no method, task, ratio and seeds are in both"
        )
    # Of what records hold: as per cent, two scores that differ in their last bit can be one number.
    pairs["same"] = pairs.pop("raw_a") == pairs.pop("raw_b")
    for letter, side, loaded in zip("ab", (one, two), read, strict=True):
        pairs[f"lacks_{letter}"] = _lacking(pairs, letter, side, loaded)
    several = pairs.groupby(["synthetic", "method"])["pretrain_dataset"].transform("nunique") > 1
    pairs["row"] = pairs["method"].where(~several, pairs["method"] + " (" + pairs["pretrain_dataset"] + ")")
    order = ["method", "row", "task", "label_ratio", "pretrain_seed", "finetune_seed"]
    return pairs.sort_values(order, key=in_any_order, kind="stable", ignore_index=True), checkpoint


def _lacking(pairs: pd.DataFrame, letter: str, side: Side, loaded: Loaded) -> list[str]:
    """Why a side has no score of a cell; empty where it has one."""
    other = "b" if letter == "a" else "a"
    own = set(loaded.runs[["budget", "profile"]].itertuples(index=False, name=None))
    which = ["method", "pretrain_dataset", UNIT]
    # A seed that has a run since was repaired.
    repaired = set(loaded.runs[which].itertuples(index=False, name=None))
    lost = {
        (one.method, one.pretrain_dataset, one.seed, one.budget, one.profile)
        for one in loaded.lost
        if (one.method, one.pretrain_dataset, one.seed) not in repaired
    }
    words = []
    for cell, (score, outcome, key) in zip(
        pairs[[*which, f"budget_{other}", f"profile_{other}"]].itertuples(index=False, name=None),
        pairs[[f"{c}_{letter}" for c in ("score", "outcome", "key")]].itertuples(index=False, name=None),
        strict=True,
    ):
        if not np.isnan(score):
            words.append("")
        elif isinstance(key, str):
            words.append("without a score" if outcome == "ok" else outcome)
        else:
            failed = cell in lost or any((*cell[:3], *budget) in lost for budget in own)
            words.append("pre-training failed" if failed else "not run at that commit" if side.of_commit else "not run")
    return words


def made_by(loaded: Loaded) -> str:
    """How many runs there are, and on which devices and from which commits they and their pre-trainings were made."""
    keys = {*loaded.runs["key"], *(key for keys in loaded.runs["pretrain_keys"] for key in keys)}
    told = [loaded.records[key].provenance for key in sorted(keys)]
    gpus = [p.numerics.get("gpu", "none") for p in told]
    devices = {p.cpu if gpu == "none" else gpu for p, gpu in zip(told, gpus, strict=True)}
    torches = {p.numerics.get("torch") or p.packages.get("torch", "unknown") for p in told}
    commits = {_commit(p) for p in told}
    parts = (f"{len(loaded.runs)} runs", "; ".join(sorted(devices)))
    return ", ".join((*parts, f"torch {' and '.join(sorted(torches))}", f"commit {' and '.join(sorted(commits))}"))


def _loaded(side: Side) -> Loaded:
    loaded = load(side.store, side.keys)
    runs = loaded.runs
    if not len(runs):
        raise WrongUse(f"{side.name}: no fine-tuning runs to compare")
    twice = runs[runs.duplicated(CELL, keep=False)]
    if len(twice):
        r = twice.iloc[0]
        ways = twice[(twice[CELL] == r[CELL]).all(axis=1)]["key"]
        commits = sorted({_commit(loaded.records[key].provenance) for key in ways})
        raise WrongUse(
            f"{side.name}: {r['method']} on {r['task']} at {r['label_ratio']}, seeds {r['pretrain_seed']}/{r['finetune_seed']}, "
            f"was run in {len(ways)} ways (budget, recipe, data or code; commit {', '.join(commits)}); compare what holds one of "
            f"them: a store or a suite{', or either at a commit (NAME@COMMIT)' * (len(commits) > 1)}"
        )
    return loaded


def differences(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row for each method, task and ratio: means of twins, their difference with its interval, and the words for it."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for names, group in pairs.groupby(ROW, dropna=False):
        described = dict(zip(ROW, names, strict=True))
        both = group[group["score_a"].notna() & group["score_b"].notna()]
        gaps = (both["score_b"] - both["score_a"]).groupby(both[UNIT]).mean().to_numpy()
        gap = estimate(gaps)
        present = group[group["key_a"].notna() & group["key_b"].notna()]
        shown = {side: both if len(both) else group.dropna(subset=[f"score_{side}"]) for side in "ab"}
        rows.append(
            {
                **described,
                "A": _mean(shown["a"].groupby(UNIT)["score_a"].mean()),
                "B": _mean(shown["b"].groupby(UNIT)["score_b"].mean()),
                "B - A": show(gap, signed=True),
                "difference": gap.mean,
                "low": gap.low,
                "high": gap.high,
                "n": gap.n,
                "equal": f"{int(both['same'].sum())} of {len(both)}",
                "without twin": _without_twin(group),
                "protocol": _protocols(present),
                "verdict": _words(verdict(gap), both),
            }
        )
    table = pd.DataFrame(rows).sort_values(ROW, key=in_any_order, kind="stable")
    return table.rename(columns={"label_ratio": "ratio"}).reset_index(drop=True)


def overall(pairs: pd.DataFrame) -> str:
    """B against A over all methods, tasks and ratios, in words: a permutation test of the differences of pre-trainings, each the
    mean over its cells, since cells that share a pre-training are one draw of it."""
    both = pairs[pairs["score_a"].notna() & pairs["score_b"].notna()]
    units = [both[c] for c in ("method", "pretrain_dataset", UNIT)]
    gaps = (both["score_b"] - both["score_a"]).groupby(units).mean().to_numpy()
    if not len(gaps):
        return "Over all cells: no twins"
    test = sign_flip_test(gaps)
    words = "the same" if both["same"].all() else test.words()
    p = f", permutation p {show_p(test.p)}" if words in TESTED else ""
    # Without an interval: Student's would stand beside a verdict that is not its own.
    return f"Over all cells: B - A {gaps.mean():+.1f}, n={len(gaps)} pre-trainings{p}: {words}"


def _without_twin(group: pd.DataFrame) -> str:
    """How many cells lack a good run on either side, and why: `2 crashed in B, 1 not run in A`."""
    why = Counter(f"{words} in {side.upper()}" for side in "ab" for words in group[f"lacks_{side}"] if words)
    return ", ".join(f"{n} {words}" for words, n in why.most_common()) or "0"


def _mean(units: pd.Series) -> str:
    return f"{units.mean():.1f}" if len(units) else "-"


def _words(words: str, both: pd.DataFrame) -> str:
    if not len(both):
        return "no twins"
    if both["same"].all():
        return "the same"
    return words


def _protocols(present: pd.DataFrame) -> str:
    """Whether twins were made in one way, and by name what differs where a name does."""
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
    stages = [words for name, words in (("pretraining", "pre-training"), ("protocol", "fine-tuning")) if changed[name]]
    return "differs: " + (", ".join(named) or f"recipe, data or code of {' and '.join(stages)}")
