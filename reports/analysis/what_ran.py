"""Facts behind the numbers of a report: dates, code, machines, store, budget, protocol, data and contamination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pretrain_bench.harness.contract.records import Provenance, is_commit
from pretrain_bench.harness.store.bundle import bundle_name
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.budgets import budget_words
from pretrain_bench.reports.analysis.frame import Loaded
from pretrain_bench.reports.analysis.titles import contaminated_rows

COMMIT_DIGITS = 10

MOST_LISTED = 3
Fact = tuple[str, str]


def what_ran(store: Store, loaded: Loaded) -> list[Fact]:
    """Names and values of the facts that the reported runs share; empty without fine-tuning runs. Names no path."""
    runs = loaded.runs
    if not len(runs):
        return []
    used = set(runs["key"]).union(*runs["pretrain_keys"])
    records = [record for key, record in loaded.records.items() if key in used]
    first, last = min(r.started_at for r in records)[:10], max(r.ended_at for r in records)[:10]
    failed = int((runs["outcome"] != "ok").sum()) + len(loaded.failed_pretrainings)
    provenances = [r.provenance for r in records]
    return [
        ("runs", f"{len(runs):,} evaluations of {len(records) - len(runs):,} pre-training stages; {failed:,} failed"),
        ("dates", first if first == last else f"{first} to {last}"),
        ("store", bundle_name(store.bundle) if store.bundle else store.root.resolve().name),
        ("code", _most_common(map(code_words, provenances))),
        ("machine", _most_common(map(machine_words, provenances))),
        (
            "budget",
            f"{_names(runs['budget'])}, profile {_names(runs['profile'])}: {budget_words(runs).removeprefix('budget: ')}",
        ),
        ("protocol", f"{_names(runs['protocol'])}; judged at the checkpoint {_names(runs['checkpoint'])}"),
        ("data", "; ".join(_data(loaded))),
        (
            "contamination",
            contaminated_rows(runs).removeprefix("; ") or "no pre-training is known to have seen test scenes",
        ),
    ]


def code_words(provenance: Provenance) -> str:
    """Version and commit of the project, in words."""
    return f"version {provenance.project_version}, commit {commit_words(provenance)}"


def commit_words(provenance: Provenance) -> str:
    """The first digits of a commit, or a text if it is not recorded, or hidden in an anonymous bundle."""
    if provenance.git_commit is None:
        return "unknown (installed copy)"
    shown = provenance.git_commit[:COMMIT_DIGITS] if is_commit(provenance.git_commit) else "hidden (anonymous bundle)"
    return shown + " with changes" * bool(provenance.git_dirty)


def machine_words(provenance: Provenance) -> str:
    """Processors and memory of a machine, in words."""
    return f"{provenance.cpu}, {provenance.cpu_count} CPUs, {provenance.memory_bytes >> 30} GiB"


def _data(loaded: Loaded) -> list[str]:
    """Each task's dataset, with a mark if it is synthetic, and the pre-training datasets."""
    tasks = loaded.runs[["task", "dataset", "synthetic"]].drop_duplicates().sort_values(["task", "dataset"])
    kinds = {True: "synthetic", False: "real"}
    texts = [
        f"{task}: {dataset} ({kinds[bool(synthetic)]})" for task, dataset, synthetic in tasks.itertuples(index=False)
    ]
    return [", ".join(texts), f"pre-trained on {_names(loaded.runs['pretrain_dataset'])}"]


def _names(values: Iterable[object]) -> str:
    return ", ".join(sorted(set(map(str, values))))


def _most_common(texts: Iterable[str]) -> str:
    """The most frequent texts, and how many others follow."""
    counts = Counter(texts).most_common()
    more = f"; {len(counts) - MOST_LISTED} more" if len(counts) > MOST_LISTED else ""
    return "; ".join(text for text, _ in counts[:MOST_LISTED]) + more
