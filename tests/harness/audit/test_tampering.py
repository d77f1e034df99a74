"""An audit detects exactly those ways of tampering with a store that docs/audit.md lists as detected, and names what is missing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support import foreign_files
from pretrain_bench.harness.audit import split, static, tables
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.store.store import CODE, RECORD, Store, write_json
from tests.conftest import Bench
from tests.harness.audit.cheats import section
from tests.harness.audit.edits import edit_record, edit_spec, edit_split, folder_of, replace_checkpoint, reseal
from tests.harness.audit.findings import audit, failures
from tests.reports.stores import add

DOCS = Path(__file__).parent.parent.parent.parent / "docs/audit.md"


# Each edits files as a cheat would; a cheat who knows the hashes calls `reseal` afterwards.


def edit_metric(runs: Path) -> None:
    edit_record(folder_of(runs, "csc"), lambda r: r["metrics"].update(miou_voxel_final=0.99))


def swap_predictions(runs: Path) -> None:
    one, two = folder_of(runs, "csc"), folder_of(runs, "scratch")
    name = next((one / "artifacts").rglob("predictions/final/*.npz")).relative_to(one)
    a, b = (one / name).read_bytes(), (two / name).read_bytes()
    assert a != b
    (one / name).write_bytes(b)
    (two / name).write_bytes(a)


def change_seed(runs: Path) -> None:
    edit_record(folder_of(runs, "csc"), lambda r: r["cell"].update(pretrain_seed=5))


def drop_run(runs: Path) -> None:
    shutil.rmtree(folder_of(runs, "scratch"))


def hide_attempt(runs: Path) -> None:
    """Delete the first, failed attempt, as if only the second had run."""
    folder = folder_of(runs, "csc")
    edit_record(folder, lambda r: r.update(attempt=2))
    os.rename(folder / "attempts/1", folder / "attempts/2")


def alter_split(runs: Path) -> None:
    """Train on a test room."""

    def change(split: dict) -> None:
        split["train"] = [*split["train"], split["test"][0]]
        split["test"] = split["test"][1:] or split["test"]

    edit_split(folder_of(runs, "csc"), change)


def bigger_budget(runs: Path) -> None:
    def change(spec: dict) -> None:
        spec["limits"]["amount"] *= 10

    edit_spec(folder_of(runs, "csc", "pretrain"), change)


def copy_seed(runs: Path) -> None:
    """Present one pre-training as two seeds."""
    one, two = [
        p.parent
        for p in sorted(runs.glob("pretrain/*/record.json"))
        if json.loads(p.read_text())["method"] == "scratch"
    ]
    shutil.copyfile(two / "artifacts/backbone.safetensors", one / "artifacts/backbone.safetensors")
    edit_record(one, lambda r: r.update(artifacts=json.loads((two / "record.json").read_text())["artifacts"]))


def change_contamination(runs: Path) -> None:
    """Claim a pre-training on other rooms."""
    edit_record(folder_of(runs, "csc"), lambda r: r["contamination"].update(places_sha256="1" * 64))


def claim_image(runs: Path) -> None:
    edit_record(folder_of(runs, "csc"), lambda r: r.update(executor="docker", image="sha256:" + "1" * 64))


TAMPERING: dict[Callable[[Path], None], tuple[str, str | None]] = {
    edit_metric: ("record and spec parse and match their hashes", "metrics recomputed from predictions"),
    swap_predictions: ("artifacts match their hashes", "metrics recomputed from predictions"),
    change_seed: (
        "record and spec parse and match their hashes",
        "method, task, ratio and seeds match the spec",
    ),
    drop_run: ("no run was removed or inserted", None),
    hide_attempt: ("record and spec parse and match their hashes", "every attempt is kept"),
    alter_split: ("record and spec parse and match their hashes", "split"),
    bigger_budget: ("record and spec parse and match their hashes", "budget is the one that ships"),
    replace_checkpoint: ("artifacts match their hashes", None),
    copy_seed: ("record and spec parse and match their hashes", "seeds give different results"),
    change_contamination: (
        "record and spec parse and match their hashes",
        "contamination matches the specs",
    ),
    claim_image: ("record and spec parse and match their hashes", None),
}
"""Each with the check that detects it unsealed, and the one that detects it resealed (None: only a signature or a rerun does)."""


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda f: f.__name__)
def test_plain_tampering_is_found(tamper: Callable[[Path], None], runs: Path, bench: Bench) -> None:
    tamper(runs)
    assert TAMPERING[tamper][0] in failures(audit(bench, "--runs", str(runs), code=1))


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda f: f.__name__)
def test_tampering_by_somebody_who_knows_how(tamper: Callable[[Path], None], runs: Path, bench: Bench) -> None:
    tamper(runs)
    reseal(runs)
    expected = TAMPERING[tamper][1]
    found = failures(audit(bench, "--runs", str(runs), code=1 if expected else 0))
    assert (expected in found) if expected else not found


def test_resealing_alone_is_not_seen(runs: Path, bench: Bench) -> None:
    reseal(runs)
    assert not failures(audit(bench, "--runs", str(runs)))


REMEDIES = {
    "drop_run": "only a registration, or a bundle signed before",
    "replace_checkpoint": "only a signature or a re-run",
    "claim_image": "only running that image",
}
"""What detects tampering that an audit of the resealed store misses."""


def tampering_table() -> str:
    """The rows of docs/audit.md, which `python -m tests.harness.audit.cheats` writes."""
    lines = ["| case | plain, found by | resealed, found by |", "|---|---|---|"]
    for tamper, (plain, resealed) in TAMPERING.items():
        lines.append(f"| {tamper.__name__.replace('_', ' ')} | {plain} | {resealed or REMEDIES[tamper.__name__]} |")
    return "\n".join(lines)


def test_the_documentation_lists_every_case() -> None:
    assert section(DOCS.read_text(), "tampering") == tampering_table()


def test_pruned_is_distinguished_from_missing(
    runs: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = json.loads(bench("clean", "--keep", "final", "--dry-run", "--runs", str(runs), "--json").stdout)
    assert dry["removed"] and not failures(audit(bench, "--runs", str(runs)))
    bench("clean", "--keep", "none", "--runs", str(runs))
    assert not list(runs.glob("*/*/artifacts/**/*.safetensors"))
    findings = audit(bench, "--runs", str(runs))
    assert not failures(findings)
    assert {f["check"] for f in findings if f["verdict"] == "not checked"} == {
        "artifacts are there", "metrics recomputed from predictions", "profile is the one that ships",
    }  # fmt: skip
    missing = [f["subject"] for f in findings if f["check"] == "artifacts are there"]
    assert missing and len(missing) == len(set(missing)), "one line a run, however many files it had"
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    without = audit(bench, "--runs", str(runs))
    assert not (tmp_path / "cache").exists(), "no data are made for what cannot be scored"
    assert "split made again from the rule and the manifest" in {
        f["check"] for f in without if f["verdict"] == "not checked"
    }
    (folder_of(runs, "csc", "pretrain") / "pruned.json").unlink()
    assert "artifacts are there" in failures(audit(bench, "--runs", str(runs), code=1))


def test_without_the_data_nothing_is_called_ok(honest: Path, runs: Path, bench: Bench) -> None:
    folder = folder_of(runs, "csc")

    def elsewhere(spec: dict) -> None:
        spec["data"]["dataset"], spec["data"]["synthetic"] = "s3dis", False

    for method in ("csc", "scratch"):
        for path in runs.glob("finetune/*/record.json"):
            if json.loads(path.read_text())["method"] == method:
                edit_spec(path.parent, elsewhere)
                edit_record(path.parent, lambda r: r.update(dataset="s3dis"))
    reseal(runs)
    findings = audit(bench, "--runs", str(runs), code=1)  # the split differs from that of the real S3DIS
    verdicts = {f["verdict"] for f in findings if f["check"] == "metrics recomputed from predictions"}
    assert verdicts == {"not checked"} and folder.parent.is_dir()


def test_what_runs_share_is_judged_once_and_a_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may hold 50,000 runs of a few hundred specs."""
    store = Store(tmp_path / "runs")
    for seed in range(3):
        add(store, "csc", 0.5, finetune_seed=seed)
    for record in list(store.records()):
        folder = store.folder(record.kind, record.key)
        write_json(folder / CODE, {"module": "0" * 64})
        (folder / "attempts/1").mkdir(parents=True)
        shutil.copy(folder / RECORD, folder / "attempts/1")
    read, judged = list[Path](), list[object]()
    read_plain, of_test_scenes = foreign_files.read_plain, split._of_test_scenes

    def counted(path: Path, *arguments: object, **options: object) -> bytes:
        read.append(Path(path))
        return read_plain(path, *arguments, **options)  # type: ignore[arg-type]

    for module in (foreign_files, tables, static):
        monkeypatch.setattr(module, "read_plain", counted)
    monkeypatch.setattr(split, "_of_test_scenes", lambda *a: [judged.append(a), *of_test_scenes(*a)][1:])
    tally = Tally()
    runs, _ = static.audit_files(store, tally)
    assert len(runs) == 4 and len(judged) == 1, "three fine-tunings share a spec"
    assert sum(path.name == "pruned.json" for path in read) == 4
    assert len({id(tables.code_list(run)) for run in runs.values()}) == 1, "one list of code in memory"
    assert tally.held["every attempt is kept"] == 8 and not [f for f in tally.findings if "attempt" in f.check]
