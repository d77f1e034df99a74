"""Arguments of `bench run` and `bench plan`: several values, names without options, and advice on what a claim lacks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import pretrain_bench as pb
from pretrain_bench.api import configuration
from pretrain_bench.benchmarks.specs.checkpoint import ImportedFrom
from pretrain_bench.benchmarks.specs.loading import load_with_lines
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.store.bundle import open_store
from tests.conftest import REPOSITORY, Bench
from tests.test_bad_input import one_line

SMOKE = REPOSITORY / "docs/study/smoke.bundle.tar.zst"


@pytest.fixture(autouse=True)
def _the_default_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_EXECUTOR")


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments that reach `pb.run`, which then stops."""
    calls: list[dict[str, Any]] = []

    def stop(cells: Suite, **options: Any) -> None:
        calls.append({"cells": cells, **options})
        raise WrongUse("far enough")

    monkeypatch.setattr(pb, "run", stop)
    return calls


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--method ours,scratch --task s3dis-sem", {"methods": ("ours", "scratch")}),
        ("--method ours scratch --task s3dis-sem scannet-sem", {"tasks": ("s3dis-sem", "scannet-sem")}),
        ("--method ours --task s3dis-sem --seeds 3", {"pretrain_seeds": (0, 1, 2), "finetune_seeds": (0,)}),
        ("--method ours --task s3dis-sem --pretrain-seed 1 2 --finetune-seed 0,4",
         {"pretrain_seeds": (1, 2), "finetune_seeds": (0, 4)}),
        ("--method ours --task s3dis-sem --label-ratio 0.2 5%", {"label_ratios": ("20%", "5%")}),
    ],
)  # fmt: skip
def test_options_take_several_values(
    options: str, expected: dict[str, Any], bench: Bench, chosen: list[dict[str, Any]]
) -> None:
    bench("run", *options.split(), "--budget", "smoke", code=2)
    (call,) = chosen
    assert {name: getattr(call["cells"], name) for name in expected} == expected


@pytest.mark.parametrize("command", ["run --method ours -h", "plan --task s3dis-sem scannet-sem -h"])
def test_help_is_not_a_value(command: str, bench: Bench) -> None:
    assert "Usage:" in bench(*command.split()).stdout


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("run ours s3dis-sem", "type: bench run --method ours --task s3dis-sem"),
        ("run smoke", "type: bench run --suite smoke"),
        ("plan ours s3dis-sem", "type: bench plan --method ours --task s3dis-sem"),
        ("run our s3dis-sem", "'our': not a method, task, suite or budget, and names need their option"),
    ],
)
def test_names_without_options_are_explained(words: str, right: str, bench: Bench) -> None:
    assert right in bench(*words.split(), code=2).stderr


def test_bench_yaml_counts_less_than_options_and_variables(
    bench: Bench, chosen: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_RUNS", raising=False)
    for folder in ("s3dis", "other", "deep/er"):
        (tmp_path / folder).mkdir(parents=True)
    file = tmp_path / "bench.yaml"
    file.write_text(
        "data: {s3dis: s3dis, scannet: /data/scannet}\nruns: store\nexecutor: docker\nlabel_splits: {la20: p/20}\n"
    )
    command = ("run", "--method", "scratch", "--task", "s3dis-sem", "--budget", "smoke")
    bench(*command, code=2, cwd=tmp_path / "deep/er")
    call = chosen.pop()
    assert call["runs"] == tmp_path / "store" and call["settings"].executor == "docker"
    assert call["settings"].data == [f"s3dis={tmp_path}/s3dis", "scannet=/data/scannet"]
    assert call["settings"].label_splits == [f"la20={tmp_path}/p/20"]
    monkeypatch.setenv("BENCH_RUNS", "elsewhere")
    bench(*command, "--executor", "local", "--data", "s3dis=other", code=2)
    call = chosen.pop()
    assert call["runs"] == Path("elsewhere") and call["settings"].executor == "local"
    assert call["settings"].data == ["scannet=/data/scannet", "s3dis=other"]
    bench(*command, "--pretrain-data", "scannet=other", code=2)
    assert chosen.pop()["settings"].data == [f"s3dis={tmp_path}/s3dis"], "one root for tasks and pre-training"
    file.write_text("data: {./own.yaml: s3dis}\nexecutor: docker\n")
    bench(*command, "--data", "own.yaml=other", code=2)
    assert chosen.pop()["settings"].data == ["own.yaml=other"]
    moved = file.rename(tmp_path / "mine.yaml")
    monkeypatch.setenv("BENCH_CONFIG", str(moved))
    bench(*command, code=2, cwd=tmp_path / "deep")
    assert chosen.pop()["settings"].executor == "docker"
    moved.write_text("runs: store\ndata:\n  s3dis: /data\nrun: x\nexecutor: slurm\n")
    error = bench(*command, code=2).stderr
    assert "mine.yaml, line 4: run: unknown key, did you mean 'runs'?" in error
    assert "mine.yaml, line 5: executor: Input should be 'auto', 'bubblewrap', 'local', 'docker' or 'podman'" in error
    monkeypatch.setenv("BENCH_CONFIG", "nowhere.yaml")
    assert "$BENCH_CONFIG: nowhere.yaml: no such file" in bench(*command, code=2).stderr


def test_bench_yaml_names_the_runs_of_every_command(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a group of commands, too: `bench methods export`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench.yaml").write_text("runs: elsewhere\n")
    for command in (("show",), ("methods", "export", "abcdefgh", "--format", "spconv", "--out", "x.pth")):
        assert f"{tmp_path}/elsewhere" in one_line(bench(*command, code=2).stderr), command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("audit --sign KEY", "--sign needs a bundle to pack: give --bundle FILE.tar.zst as well"),
        ("show ab --out pictures", "--out is for the picture of a scene: give --scene as well"),
        ("show ab --checkpoint best", "--checkpoint is for the picture of a scene: give --scene as well"),
        ("show --out pictures", "--out is for the picture of a scene"),
        ("report --port 8000", "--port 8000 is for a report that is served: give --watch --serve as well"),
        ("report --compare a b --no-page --no-scenes --port 8000",
         "--no-page, --no-scenes, --port: cannot be combined with --compare"),
        ("run --method scratch --task s3dis-sem --on slurm --detach --workers 2", "--workers: it is for runs on this"),
        ("run --method scratch --task s3dis-sem --on slurm --detach --sign KEY", "--sign signs the registration"),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_refused(
    words: str, said: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pb, "detach", lambda *_: pytest.fail("a job was submitted"))
    assert said in one_line(bench(*words.split(), code=2).stderr)
    assert not list(tmp_path.iterdir())


def test_a_misspelt_dataset_is_named_where_it_is_written(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("plan", "--method", "scratch", "--task", "s3dis-sem")
    hint = "unknown dataset 'scanet'. Did you mean 'scannet'?"
    assert f"--data 'scanet=x': {hint}" in one_line(bench(*command, "--data", "scanet=x", code=2).stderr)
    (tmp_path / "bench.yaml").write_text("data: {scanet: x}\n")
    assert f"{tmp_path}/bench.yaml: data: {hint}" in one_line(bench(*command, code=2).stderr)


def test_stages_in_parallel_are_not_limited_on_a_cluster(bench: Bench) -> None:
    command = ("run", "--method", "scratch", "--task", "s3dis-sem", "--on", "slurm", "--workers", "2")
    assert "--workers: it is for runs on this machine; on a cluster --max-pending" in one_line(
        bench(*command, code=2).stderr
    )


def test_bench_yaml_is_read_once_and_stops_only_what_uses_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing list or disk matters only to commands that need it."""
    reads: list[Path] = []

    def counted(path: Path, model: Any) -> Any:
        reads.append(path)
        return load_with_lines(path, model)

    monkeypatch.setattr(configuration, "load_with_lines", counted)
    (tmp_path / "bench.yaml").write_text(
        "data: {scannet: /nowhere}\nlabel_splits: {la20: gone/points20}\nruns: store\n"
    )
    plan = ("plan", "--method", "scratch", "--budget", "smoke", "--task")
    assert "s3dis-sem" in bench(*plan, "s3dis-sem", cwd=tmp_path).stdout
    assert reads == [tmp_path / "bench.yaml"]
    error = bench(*plan, "scannet-sem", code=2, cwd=tmp_path).stderr
    assert "scannet: data root /nowhere is not a folder" in error
    error = bench(*plan, "scannet-sem", "--label-ratio", "la20", code=2, cwd=tmp_path).stderr
    assert f"la20={tmp_path}/gone/points20: cannot be read" in error


def test_data_commands_take_roots_from_bench_yaml(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots: list[object] = []

    def stop(name: str, root: object, **_: object) -> None:
        roots.append(root)
        raise WrongUse("far enough")

    monkeypatch.setattr(pb, "prepare_data", stop)
    (tmp_path / "bench.yaml").write_text("data: {s3dis: rooms}\n")
    for command in (("prepare", "s3dis"), ("verify", "s3dis"), ("info", "s3dis", "--counts"), ("preview", "s3dis")):
        bench("data", *command, code=2)
    bench("data", "prepare", "s3dis", "--root", "other", code=2)
    bench("data", "prepare", "scannet", code=2)
    assert roots == [*[tmp_path / "rooms"] * 4, Path("other"), None]
    (tmp_path / "own.yaml").write_text("name: own\nlayout: s3dis\nclasses: [wall]\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/bench.yaml").write_text("data: {../own.yaml: halls}\n")
    bench("data", "prepare", "../own.yaml", code=2, cwd=tmp_path / "deep")
    assert roots[-1] == tmp_path / "deep/halls"


def test_doctor_shows_what_is_set_where(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(pb, "doctor", lambda *_: [])
    (tmp_path / "bench.yaml").write_text("data: {s3dis: rooms}\nruns: store\n")
    assert re.search(r"executor +local +--executor\n", bench("doctor", "--executor", "local").stdout)
    text = " ".join(bench("doctor", "--json").stdout.split())
    for name, value, source in (
        ("runs", f"{tmp_path}/store", f"{tmp_path}/bench.yaml"), ("executor", "auto", "default"),
        ("cache", str(cache), "$BENCH_CACHE"), ("data: s3dis", f"{tmp_path}/rooms", f"{tmp_path}/bench.yaml"),
    ):  # fmt: skip
        assert f'"name": "{name}", "source": "{source}", "value": "{value}"' in text
    (tmp_path / "bench.yaml").write_text("cache: prepared\n")
    monkeypatch.delenv("BENCH_CACHE")
    found = json.loads(bench("doctor", "--json").stdout)["settings"]
    by_name = {s["name"]: (s["value"], s["source"]) for s in found}
    assert by_name["cache"] == (f"{tmp_path}/prepared", f"{tmp_path}/bench.yaml")


def test_relative_paths_of_a_suite_start_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "suites"
    (folder / "mine").mkdir(parents=True)
    (folder / "few.yaml").write_text("extends: smoke\nname: few\n")
    (folder / "one.yaml").write_text(
        "name: one\nversion: 1\nbudget: ./few.yaml\nmethods: [scratch, mine]\ntasks: [s3dis-sem]\n"
        "exclude: [{method: mine, task: s3dis-sem}]\n"
    )
    monkeypatch.chdir(tmp_path)
    suite = pb.suite("suites/one.yaml")
    assert (suite.budget, suite.methods) == ("suites/few.yaml", ("scratch", "suites/mine"))
    assert suite.exclude == ({"method": "suites/mine", "task": "s3dis-sem"},) and suite.tasks == ("s3dis-sem",)


class Report:
    """The fields of a stage that `next_steps` reads."""

    def __init__(self, record: Any) -> None:
        self.record = record


def test_an_unknown_protocol_is_refused_by_its_option(bench: Bench) -> None:
    command = ("run", "--method", "scratch", "--task", "s3dis-sem", "--protocol", "lin")
    error = one_line(bench(*command, code=2).stderr)
    assert "--protocol 'lin': expected one of finetune, linear, decoder" in error


def test_a_suite_without_data_lists_every_missing_root_once(bench: Bench) -> None:
    """Another budget does not help: a suite names its own."""
    error = one_line(bench("run", "--suite", "table1", code=2).stderr)
    assert "(--data s3dis=DIR --data scannet=DIR --data semantickitti=DIR --data sunrgbd=DIR), a suite that" in error
    assert "--budget" not in error
    alone = ("run", "--method", "scratch", "--task", "s3dis-sem", "--budget", "uniform")
    assert "(--data s3dis=DIR), a budget that fits" in one_line(bench(*alone, code=2).stderr)


def test_a_folder_without_runs_is_named_with_what_to_do(bench: Bench, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty}: no runs, so there is nothing to audit" in one_line(
        bench("audit", "--runs", str(empty), code=2).stderr
    )
    assert "start some with `bench run`, or name another folder" in bench("show", "--runs", str(empty)).stdout
    for where in ((str(empty),), ("--runs", str(empty))):
        assert f"{empty}: no method has runs beside scratch's" in bench("power", *where).stdout
    both = one_line(bench("power", str(empty), "--runs", str(SMOKE), code=2).stderr)
    assert f"{empty} and --runs {SMOKE}: name one of them" in both
    error = one_line(bench("show", str(empty), "--runs", str(empty), code=2).stderr)
    assert f"to name a folder or a bundle: --runs {empty}" in error
    error = one_line(bench("audit", "--registered", "nope.json", "--runs", str(SMOKE), code=2).stderr)
    assert "nope.json: no such file; `bench plan --register FILE` writes a registration" in error


def test_missing_parts_of_a_claim_are_named() -> None:
    records = [r for r in open_store(SMOKE).records() if r.method in ("ours", "scratch")]
    assert {r.cell.pretrain_seed for r in records if r.cell} == {0}
    minutes = round(2 * sum(r.ledger.wall_seconds for r in records) / 60)
    steps = pb.next_steps(map(Report, records))  # type: ignore[arg-type]
    assert steps == [f"for a claim, two more seeds: --pretrain-seed 1 2, about {minutes} min"]
    alone = pb.next_steps(Report(r) for r in records if r.method == "scratch")  # type: ignore[misc]
    assert alone[0] == "to compare scratch with something, add --method ours" and len(alone) == 2
    real = [Report(r.model_copy(update={"synthetic": False})) for r in records if r.method == "scratch"]
    assert pb.next_steps(real)[0] == (  # type: ignore[arg-type]
        "to compare scratch with something, add --method ours --pretrain-data rgbd-folder=DIR (the folder of your RGB-D recordings)"
    )
    origin = ImportedFrom(file="mine.pth", sha256="0" * 64, origin="minkowski-0.5")
    mine = [r if r.method == "scratch" or r.cell else r.model_copy(update={"imported": origin}) for r in records]
    (step,) = pb.next_steps(map(Report, mine))  # type: ignore[arg-type]
    assert step == "for a claim, one checkpoint per pre-training seed: --method ours=FILE,FILE,FILE"
    only = pb.next_steps(Report(r) for r in mine if r.method == "ours")  # type: ignore[misc]
    assert only == ["to compare ours with something, add --method scratch", step]
    more = [r.model_copy(update={"cell": r.cell.model_copy(update={"pretrain_seed": seed})})
            for r in mine if r.method == "ours" and r.cell for seed in (1, 2)]  # fmt: skip
    assert pb.next_steps(map(Report, [*mine, *more]))[0].startswith("for a claim, two more seeds"), "of scratch"  # type: ignore[arg-type]
    seeded = [
        r.model_copy(update={"cell": r.cell and r.cell.model_copy(update={"pretrain_seed": seed})})
        for r in records
        for seed in (0, 1, 2)
    ]
    assert pb.next_steps(map(Report, seeded)) == []  # type: ignore[arg-type]
