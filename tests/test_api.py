"""The Python API: the code of its documentation page runs unchanged, and its names and columns match the code."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import pretrain_bench as pb
from pretrain_bench.api.display import Display, Progressed, default_display
from pretrain_bench.harness.contract.events import Start, Step
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.frame import load
from tests.conftest import NANO, REPOSITORY
from tests.reports.stores import add

PAGE = (REPOSITORY / "docs/api.md").read_text()
SUITE = REPOSITORY / "benchmarks/configs/suites/smoke.yaml"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


@pytest.mark.slow
def test_the_page_runs_as_it_stands(s3dis_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all blocks in order, as in a notebook, with the smallest budget on seven small rooms."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))  # planning prepares no data
    code = "\n".join(BLOCKS)
    for shown, used in (
        ('budget="smoke"', f"budget={NANO[1]!r}, profile={NANO[3]!r}"),
        ('data={"s3dis": "/data/s3dis"}', f'data={{"s3dis": {str(s3dis_root)!r}}}, threads=1, device="cpu"'),
    ):
        assert code.count(shown) == 1
        code = code.replace(shown, used)
    names: dict = {}
    exec(compile(code, "docs/api.md", "exec"), names)
    planned = names["plan"].to_frame()
    assert planned["state"].tolist() == ["to do", "waiting", "waiting"], "nothing was prepared when it was planned"
    assert planned["key"].notna().tolist() == [True, False, False] and (planned["seconds"] >= 0).all()
    done = pb.plan(names["cells"], runs="runs", settings=names["settings"])
    assert done.to_frame()["state"].tolist() == ["done"] * 3 and done.remaining == []
    frame, runs = names["result"].to_frame(), names["runs"]
    assert frame["outcome"].tolist() == ["ok"] * 3 and not frame["reused"].any()
    assert list(runs.columns) == list(pb.RUN_COLUMNS) and runs["key"].tolist() == sorted(frame["key"][1:])
    assert runs.set_index("key")["score_final"].to_dict() == dict(
        zip(frame["key"][1:], frame["final"][1:], strict=True)
    )
    assert names["built"].files["page"].is_file() and {f.check for f in pb.audit("runs").failed} == {
        "the whole test split is scored"
    }
    assert len(list(tmp_path.glob("pictures/*-final.p*"))) == 2
    again = pb.run(names["cells"], runs="runs", settings=names["settings"], display=pb.Silent())
    assert [row.reused for row in again.rows()] == [True] * 3 and again.failed == []
    assert {one.record.key for one in pb.list_runs("runs")} == set(frame["key"])
    assert pb.status("runs").outcomes == {"ok": 3} and pb.clean("runs", keep="none", dry_run=True)
    assert set(load(Store(tmp_path / "runs")).runs.columns) == set(pb.RUN_COLUMNS), "no column is missing or made up"
    packed = pb.pack_bundle("runs.tar.zst", "runs", display=pb.Silent())
    assert packed.runs == 3 and pb.load_runs("runs.tar.zst").equals(runs)
    (scene, _) = pb.tested_scenes(run := pb.find_run(runs["key"][0], "runs.tar.zst")) * 2
    assert [p.parent for p in pb.draw_scene(run, scene)] == [Path("pictures")] * 2, "nothing is written into a bundle"
    assert pb.load_runs(pb.unpack_bundle("runs.tar.zst", "unpacked")).equals(runs)
    assert all(
        r.reused
        for r in pb.run(names["cells"], runs="unpacked", settings=names["settings"], display=pb.Silent()).rows()
    )
    for write in (lambda: pb.clean("runs.tar.zst"), lambda: pb.run(names["cells"], runs="runs.tar.zst")):
        with pytest.raises(pb.WrongUse, match="bundles are read-only"):
            write()


def test_the_page_explains_every_column() -> None:
    table = PAGE.split("## Columns of `load_runs`")[1]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, flags=re.M)) == pb.RUN_COLUMNS


def test_an_empty_store_has_all_columns(tmp_path: Path) -> None:
    assert list(pb.load_runs(tmp_path).columns) == list(pb.RUN_COLUMNS) and len(pb.load_runs(tmp_path)) == 0
    with pytest.raises(pb.WrongUse, match="no such folder of runs"):
        pb.load_runs(tmp_path / "nowhere")


def test_every_name_is_listed_once_and_documented() -> None:
    from pretrain_bench import _HOMES

    assert sorted(_HOMES) == sorted(pb.__all__) and len(set(pb.__all__)) == len(pb.__all__)
    for name in pb.__all__:
        value = getattr(pb, name)
        assert name == "__version__" or name.isupper() or value.__doc__, name
    listed = PAGE.split("## All functions")[1].split("## Columns")[0]
    functions = {n for n in pb.__all__ if n.islower() and not n.startswith("_")}
    rows = [name for row in re.findall(r"^\| ([^|]+) \|", listed, flags=re.M) for name in re.findall(r"`(\w+)`", row)]
    assert len(rows) == len(set(rows)), rows
    assert functions <= set(re.findall(r"`(\w+)`", listed)), functions - set(re.findall(r"`(\w+)`", listed))
    returned = {n for n in pb.__all__ if n[0].isupper() and not n.isupper()}
    assert returned <= set(re.findall(r"`(?:pb\.)?(\w+)`", PAGE.split("## Columns")[0])), "a type is not on the page"
    types = {n for n in re.findall(r"`(?:pb\.)?([A-Z]\w+)`", PAGE.split("## Columns")[0]) if not n.isupper()}
    assert len(types) > 30 and types <= set(pb.__all__), types - set(pb.__all__)
    assert set(pb.__all__) <= set(dir(pb))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pb.nonsense  # noqa: B018


def test_errors_are_raised_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for call, words in (
        (lambda: pb.suite("tinny"), "Did you mean 'tiny'"),
        (lambda: pb.cells("ours", "s3dis-sem", label_ratios=["1.0"]), "label ratio '1.0': expected per cent"),
        (lambda: pb.plan("tiny", runs=tmp_path, only=["method=nothing"]), "no method of suite"),
        (lambda: pb.plan("tiny", settings=pb.Settings(data={"s4dis": "/data"})), "unknown dataset 's4dis'"),
        (lambda: pb.plan("tiny", settings=pb.Settings(device="tpu")), "--device 'tpu'"),
        (lambda: pb.find_run("abc", tmp_path), "no run in"),
        (lambda: pb.clean(tmp_path, keep="some"), "expected one of none"),  # type: ignore[arg-type]
        (lambda: pb.run("tiny", runs=tmp_path, retry="twice"), "--retry 'twice'"),  # type: ignore[arg-type]
        (lambda: pb.check_method("our"), "unknown method 'our'"),
        (lambda: pb.prepare_data("s3dis"), "give --root DIR"),
        (lambda: pb.cells("ours", "s3dis-sem", pretrain_seeds="one"), "pretrain_seeds"),  # type: ignore[arg-type]
        (
            lambda: pb.cells("ours", "s3dis-sem", finetune_seeds=["a"]),  # type: ignore[list-item]
            r"^finetune_seeds \['a'\]: expected a whole number from 0, or a list of them$",
        ),
        (lambda: pb.cells(None, "s3dis-sem"), "None: expected a name or a path"),  # type: ignore[arg-type]
        (lambda: pb.cells([True], "s3dis-sem"), r"\[True\]: expected a name or a path"),  # type: ignore[list-item]
        (lambda: pb.cells("ours", "s3dis-sem", label_ratios=[None]), r"label_ratios \[None\]: expected a text such as"),  # type: ignore[list-item]
        (lambda: pb.cells("ours", "s3dis-sem", label_ratios=1), "label_ratios 1: 1 may mean 1 % or all labels"),
        (lambda: pb.cells("ours", "s3dis-sem", label_ratios=[0.2, 1.0]), "1 may mean 1 % or all labels; give '1%' or"),
        (lambda: pb.explain("task", "s3dis-sem"), "kind 'task': expected one of methods"),  # type: ignore[arg-type]
        (lambda: pb.list_specs("dataset"), "kind 'dataset': expected one of methods"),  # type: ignore[arg-type]
        (lambda: pb.plan("tiny", settings=pb.Settings(threads="2")), "--threads '2'"),  # type: ignore[arg-type]
        (lambda: pb.plan("tiny", settings=pb.Settings(threads=-1)), "--threads -1"),
        (lambda: pb.plan("tiny", settings=pb.Settings(threads=0)), "--threads 0"),
        (lambda: pb.power(tmp_path, effect="1"), "--effect '1'"),  # type: ignore[arg-type]
        (lambda: pb.power(tmp_path, tasks="rooms-sem"), "--task rooms-sem: no runs"),
        (lambda: pb.build_images("oours"), "unknown image 'oours'"),
        (lambda: pb.compare(tmp_path, pb.open_runs(tmp_path)), "no fine-tuning runs to compare"),
        (lambda: pb.compare(tmp_path, SUITE, runs=tmp_path), "no fine-tuning runs to compare"),
        (lambda: pb.report(tmp_path, tmp_path / "r", figures="papr"), "figures 'papr'"),  # type: ignore[arg-type]
        (lambda: pb.subset_data(None, tmp_path, scenes=0), "--scenes 0"),  # type: ignore[arg-type]
        (lambda: pb.subset_data(None, tmp_path, frames=0), "--frames 0"),  # type: ignore[arg-type]
        (lambda: pb.preview_data(None, scenes=0), "--scenes 0"),  # type: ignore[arg-type]
    ):
        with pytest.raises(pb.WrongUse, match=words):
            call()
    assert capfd.readouterr() == ("", "")


def test_one_value_is_taken_as_it_is(tmp_path: Path) -> None:
    """A path, a number or one name, where several are possible too."""
    one = pb.cells("ours", "s3dis-sem", label_ratios=0.2, pretrain_seeds=3, finetune_seeds=4)
    assert (one.label_ratios, one.pretrain_seeds, one.finetune_seeds) == (("20%",), (3,), (4,))
    assert pb.cells("ours", "s3dis-sem", label_ratios=[0.2, 40, "5%"]).label_ratios == ("20%", "40%", "5%")
    assert pb.cells("ours", "s3dis-sem", pretrain_seeds=np.array(3)).pretrain_seeds == (3,)
    dataset = REPOSITORY / "benchmarks/configs/datasets/s3dis.yaml"
    assert pb.dataset(dataset).name == "s3dis" and pb.explain("data", dataset) == pb.explain("data", "s3dis")
    assert pb.plan(SUITE, runs=tmp_path, only="method=scratch").suite == pb.suite("smoke")
    assert pb.keys_of_suite(SUITE, tmp_path) == set()
    assert next(pb.watch_runs(pb.open_runs(tmp_path))) == 0
    assert pb.Where(on="slurm", slurm="partition=gpu").slurm_options()
    assert pb.clean(pb.open_runs(tmp_path)) == []


def test_bench_yaml_applies_to_clusters_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page says: its data, executor, runs and cache are those of the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench.yaml").write_text(
        "data: {s3dis: /nowhere}\nexecutor: docker\nruns: elsewhere\ncache: kept\nslurm: {partition: gpu}\n"
    )
    monkeypatch.setenv("BENCH_EXECUTOR", "podman")
    monkeypatch.setenv("BENCH_RUNS", "smoke.bundle")
    monkeypatch.delenv("BENCH_CACHE")
    planned = pb.plan(SUITE, only="method=scratch")
    assert any("no data configured, using synth-s3dis" in line for line in planned.notices)
    assert not (tmp_path / "kept").exists() and "BENCH_CACHE" not in os.environ
    assert pb.Where(on="slurm").slurm_options() == pb.Where(on="slurm", slurm="partition=gpu").slurm_options()
    assert pb.Where(on="slurm", slurm="partition=cpu").slurm_options() != pb.Where(on="slurm").slurm_options()


def test_a_run_is_given_by_its_key_or_itself(tmp_path: Path) -> None:
    add(Store(tmp_path), "ours", 0.5)
    runs = {one.record.kind: one.record.key for one in pb.list_runs(tmp_path)}
    tuned, trained = runs["finetune"], runs["pretrain"]
    assert pb.tested_scenes(tuned, tmp_path) == pb.tested_scenes(pb.find_run(tuned, tmp_path)) == ("c",)
    for call, key in (
        (partial(pb.draw_scene, scene="nowhere"), tuned),
        (pb.draw_features, tuned),
        (partial(pb.export_checkpoint, format="spconv", out=tmp_path / "o.pth"), trained),
    ):
        errors = []
        for run, where in ((key[:20], {"runs": tmp_path}), (pb.find_run(key, tmp_path), {})):
            with pytest.raises(pb.WrongUse, match=r"run|scene") as raised:
                call(run, **where)
            errors.append(str(raised.value))
        assert errors[0] == errors[1] and "no run in" not in errors[0]


def test_bars_count_events(capsys: pytest.CaptureFixture[str]) -> None:
    display: Display = pb.TqdmDisplay()
    on_event = display.stage("build base")
    on_event(Progressed(2, 5))
    display.say("a line\x1b[31m")
    display.stage_ended(on_event)
    assert list(display.progress("prepare")(["a", "b"])) == ["a", "b"]
    shown = capsys.readouterr()
    assert shown.out == "" and "build base" in shown.err and "2/5" in shown.err and "a line?[31m" in shown.err
    assert re.search(r"prepare .*100%.* 2/2", shown.err)
    assert all(len(line) <= 100 for line in re.split(r"[\r\n]", shown.err))


def test_a_log_gets_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    display = pb.LineDisplay(clock=lambda: now[0])
    on_event = display.stage("csc/pairs")
    on_event(Start(total_steps=600, resumed_from=100))
    for step in range(101, 601):
        now[0] += 1.0
        on_event(Step(step=step, loss=0.5, learning_rate=0.1, gradient_norm=1.0, seconds=1.0, data_seconds=0.0))
    display.stage_ended(on_event)
    assert list(display.progress("a moment")(["a", "b"])) == ["a", "b"]
    for item in display.progress("prepare")(["a", "b"]):
        now[0] += 30.0 if item == "b" else 0.0
    nothing = display.stage("scratch/init")
    nothing(Start(total_steps=0))
    display.stage_ended(nothing)
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == "" and "\r" not in shown.err
    assert lines[:2] == ["csc/pairs: resumes after step 100", "csc/pairs: 160 of 600, loss 0.500, about 7 min left"]
    assert lines[-2:] == ["scratch/init: starts", "scratch/init: done in <1 s"]
    assert lines[-4:-2] == ["csc/pairs: 600 of 600 in 8 min", "prepare: 2 of 2 in 30 s"] and len(lines) == 1 + 8 + 2 + 2


def test_the_display_fits_where_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_PROGRESS", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert isinstance(default_display(), pb.TqdmDisplay)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert isinstance(default_display(), pb.LineDisplay)
    monkeypatch.setenv("BENCH_PROGRESS", "none")
    assert isinstance(default_display(), pb.Silent)
    monkeypatch.setenv("BENCH_PROGRESS", "some")
    with pytest.raises(pb.WrongUse, match="BENCH_PROGRESS=some: expected one of bars, lines, none"):
        default_display()


def test_a_notebook_gets_its_own_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars have the width of the notebook, and their titles are not cut."""
    import tqdm.auto

    made: list[dict] = []
    bar = type("Bar", (), {"__module__": "tqdm.notebook", "__init__": lambda self, **options: made.append(options)})
    monkeypatch.setattr(tqdm.auto, "tqdm", bar)
    pb.TqdmDisplay().stage("a title that is longer than the room on a line of a terminal")
    assert made == [
        {"desc": "a title that is longer than the room on a line of a terminal", "total": None, "unit": "step"}
    ]
