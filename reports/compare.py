"""Two stores or suites side by side (before and after, one machine and another): every cell against its own twin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.errors import WrongUse, cannot_write
from harness.store import Store
from reports.figures import SYNTHETIC_MARK, paired_scores, save
from reports.formats import latex, markdown, write_data
from reports.frame import METRIC_NAMES, load
from reports.overview import in_any_order
from reports.statistics import TESTED, estimate, sign_flip_test, verdict
from reports.tables import UNIT, headline, show, show_p

if TYPE_CHECKING:
    import pandas as pd

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
"""What makes two runs twins. Budget, profile and protocol may differ; the table says where they do."""
ROW = ["task", "dataset", "synthetic", "label_ratio", "method", "pretrain_dataset"]


class Side(NamedTuple):
    """One of the two: what it is called, its store, and the fine-tunings that count (None: all)."""

    name: str
    store: Store
    keys: set[str] | None = None


class Comparison(NamedTuple):
    """The table, what was written, and the whole as text."""

    table: pd.DataFrame
    files: dict[str, Path]
    text: str


def build_comparison(one: Side, two: Side, out: Path) -> Comparison:
    """Write compare.md, .tex, .csv, .json and a figure with its data to `out`.

    Raises WrongUse where no cell is on both sides or a side has one cell twice, EnvironmentCannot where `out` cannot be written.
    """
    pairs, checkpoint = paired(one, two)
    table = differences(pairs)
    shown = table[["task", "ratio", "method", "A", "B", "B - A", "n", "equal", "alone", "protocol", "verdict"]]
    mark = f"{SYNTHETIC_MARK}: " if pairs["synthetic"].any() else ""
    kinds = " or ".join(METRIC_NAMES[m].removesuffix(" (%)") for m in sorted(set(pairs["metric"])))
    title = f"{mark}B ({two.name}) against A ({one.name}), {kinds} in per cent, {checkpoint} checkpoint"
    notes = (
        "B - A: mean of differences of twins (same cell, same seeds), averaged within each pre-training seed, with its 95 %\n"
        "interval; n counts pre-training seeds. equal: twins whose scores are the same to the last bit. alone: runs without a\n"
        "good twin."
    )
    text = f"{title}\n\n{markdown(shown)}\n\n{overall(pairs)}\n\n{notes}\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "compare.md").write_text(text)
        (out / "compare.tex").write_text(latex(shown, title))
        write_data(table, out / "compare")
        pairs.to_csv(out / "figure-compare.csv", index=False)
        pictures = save(paired_scores(pairs, (one.name, two.name), title), out / "figure-compare")
    except OSError as error:
        raise cannot_write(out, error, "comparison (--out names another folder)") from error
    files = {kind: out / f"compare.{kind}" for kind in ("md", "tex", "csv", "json")}
    return Comparison(table, {**files, "figure": pictures[0]}, text)


def paired(one: Side, two: Side) -> tuple[pd.DataFrame, str]:
    """One row a cell of either side, with `score_a` and `score_b` in per cent (NaN where a side has no good run), and the
    checkpoint they are of: `selected` where both sides have it everywhere, else `final`."""

    sides = [_runs(side) for side in (one, two)]
    checkpoint = "selected" if all(headline(runs) == "selected" for runs in sides) else "final"
    parts = []
    for letter, runs in zip("ab", sides, strict=True):
        score = 100 * runs[f"score_{checkpoint}"].where(runs["outcome"] == "ok")
        part = runs[[*CELL, "budget", "profile", "protocol", "key"]].assign(score=score)
        parts.append(
            part.rename(columns={c: f"{c}_{letter}" for c in ("budget", "profile", "protocol", "key", "score")})
        )
    pairs = parts[0].merge(parts[1], on=CELL, how="outer")
    if not (pairs["key_a"].notna() & pairs["key_b"].notna()).any():
        raise WrongUse(
            f"{one.name} and {two.name} have no cell in common: no method, task, ratio and seeds are in both"
        )
    return pairs, checkpoint


def _runs(side: Side) -> pd.DataFrame:
    runs = load(side.store, side.keys).runs
    if not len(runs):
        raise WrongUse(f"{side.name}: no fine-tuning runs to compare")
    twice = runs[runs.duplicated(CELL, keep=False)]
    if len(twice):
        r = twice.iloc[0]
        raise WrongUse(
            f"{side.name}: {r['method']} on {r['task']} at {r['label_ratio']}, seeds {r['pretrain_seed']}/{r['finetune_seed']}, "
            f"was run in {len(twice[(twice[CELL] == r[CELL]).all(axis=1)])} ways; name a suite in place of the store"
        )
    return runs


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
        rows.append(
            {
                **{k: described[k] for k in ("task", "dataset", "synthetic", "method", "pretrain_dataset")},
                "label_ratio": described["label_ratio"],
                "A": _mean(both.groupby(UNIT)["score_a"].mean()),
                "B": _mean(both.groupby(UNIT)["score_b"].mean()),
                "B - A": show(gap, signed=True),
                "difference": gap.mean,
                "low": gap.low,
                "high": gap.high,
                "n": gap.n,
                "equal": f"{int((both['score_a'] == both['score_b']).sum())} of {len(both)}",
                "alone": len(group) - len(both),
                "protocol": _protocols(present),
                "verdict": _words(gap.n, verdict(gap), both),
            }
        )
    table = pd.DataFrame(rows).sort_values(["task", "label_ratio", "method"], key=in_any_order, kind="stable")
    return table.rename(columns={"label_ratio": "ratio"}).reset_index(drop=True)


def overall(pairs: pd.DataFrame) -> str:
    """B against A over all methods, tasks and ratios, in words: a permutation test of the differences of pre-trainings, each the
    mean over its cells, since cells that share a pre-training are one draw of it. Real and synthetic data have a line each."""
    both = pairs[pairs["score_a"].notna() & pairs["score_b"].notna()]
    lines = []
    for synthetic, part in both.groupby("synthetic"):
        units = [part[c] for c in ("method", "pretrain_dataset", UNIT)]
        gaps = (part["score_b"] - part["score_a"]).groupby(units).mean().to_numpy()
        test = sign_flip_test(gaps)
        words = "the same" if (part["score_a"] == part["score_b"]).all() else test.words()
        p = f", permutation p {show_p(test.p)}" if words in TESTED else ""
        mark = f"{SYNTHETIC_MARK}: " if synthetic else ""
        lines.append(
            f"{mark}Over all cells: B - A {show(estimate(gaps), signed=True)}, n={len(gaps)} pre-trainings{p}: {words}"
        )
    return "\n".join(lines)


def _mean(units: pd.Series) -> str:
    return f"{units.mean():.1f}" if len(units) else "-"


def _words(n: int, words: str, both: pd.DataFrame) -> str:
    if not len(both):
        return "no twins"
    if (both["score_a"] == both["score_b"]).all():
        return "the same"
    return words if n > 1 else "cannot be tested with this n"


def _protocols(present: pd.DataFrame) -> str:
    """Whether twins were made in one way, and by name what differs where a name does."""
    if not len(present):
        return "-"
    if (present["protocol_a"] == present["protocol_b"]).all():
        return "same"
    changed = [
        f"{name} {'/'.join(sorted(set(present[f'{name}_a'])))} -> {'/'.join(sorted(set(present[f'{name}_b'])))}"
        for name in ("budget", "profile")
        if (present[f"{name}_a"] != present[f"{name}_b"]).any()
    ]
    return "differs: " + (", ".join(changed) or "recipe, data or code")
