"""Plans: stages that are done, stale (with the reason), failed, n/a or to do; and estimates."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import pretrain_bench as pb
from pretrain_bench.api.display import duration
from pretrain_bench.api.sizing import estimate_line, line_on_workers
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.rates import Rates
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.harness.planning import code_digest as keys
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.estimate import Estimate
from pretrain_bench.harness.planning.plan import StageState, State, states
from pretrain_bench.harness.planning.prepared_data import DataSources
from pretrain_bench.harness.planning.recipes import finetune_recipe, stage_recipe
from pretrain_bench.harness.planning.stage_specs import PlannedCell, lines_on_absent
from pretrain_bench.harness.running.capacity import Capacity, demand
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_cells
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store.bundle import open_store
from pretrain_bench.harness.store.store import Store
from tests.conftest import REPOSITORY, Bench
from tests.faults.in_process import SleepingInProcess
from tests.faults.suite import matrix, planned


@pytest.fixture(scope="module")
def done(s3dis_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[PlannedCell], Path]:
    """A store in which a small suite has run completely."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    monkeypatch.setenv("BENCH_TEST_SLEEP", "0.1")
    cells = planned(str(s3dis_root), seeds=1)
    runs = tmp_path_factory.mktemp("plan") / "runs"
    runner = StageRunner(Store(runs), SleepingInProcess(), Silent(), RunOptions())
    run_cells(cells, runner, Capacity(4, 1 << 20))
    monkeypatch.undo()
    return cells, runs


def test_done_and_to_do(done: tuple[list[PlannedCell], Path], s3dis_root: Path) -> None:
    cells, runs = done
    found = states(cells, Store(runs), 2)
    assert len(found) == 10 and {s.state for s in found} == {State.done}
    more = states(planned(str(s3dis_root), seeds=2), Store(runs), 2)
    fresh = [s for s in more if s.state == State.to_do]
    assert len(more) == 20 and len(fresh) == 10
    assert all(s.estimate is not None and s.estimate.source == "earlier runs" for s in fresh)
    empty = states(cells, Store(runs / "nothing"), 2)
    assert {s.state for s in empty} == {State.to_do}
    assert {s.estimate.source for s in empty if s.estimate} == {"rough"}
    assert all(s.estimate and s.estimate.seconds >= 0 and s.estimate.bytes > 0 for s in empty)


def test_a_pruned_stage_is_to_do_if_a_stage_to_run_builds_on_it(
    done: tuple[list[PlannedCell], Path], tmp_path: Path, s3dis_root: Path
) -> None:
    cells, runs = done
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    pb.clean(copy, keep="none")
    assert {s.state for s in states(cells, Store(copy), 2)} == {State.done}, "nothing needs the artifacts"
    child = next(c.stages[-1] for c in cells if c.stages[-1].spec.parents)
    (copy / "finetune" / child.spec.key).rename(tmp_path / "away")
    left = [s for s in states(cells, Store(copy), 2) if s.state == State.to_do]
    assert {s.key for s in left} == {child.spec.key, *child.spec.parents.values()}
    assert {s.reason for s in left} == {"", "its artifacts were pruned"}
    assert all(s.estimate is not None for s in left)
    (copy / "finetune" / child.spec.key).symlink_to(tmp_path / "away")
    for options in ({"later": [child]}, {}):
        known = states(cells, Store(copy), 2, **options)  # type: ignore[arg-type]
        again = {s.key for s in known if s.state == State.to_do}
        assert again == (set(child.spec.parents.values()) if options else set()), "for a stage that waits for its data"
    record = json.loads((tmp_path / "away/record.json").read_text())
    (tmp_path / "away/record.json").write_text(json.dumps({**record, "outcome": "crashed"}))
    for retry in (False, True):
        again = {s.key for s in states(cells, Store(copy), 2, retry_failed=retry) if s.state == State.to_do}
        assert again == (set(child.spec.parents.values()) if retry else set())


def test_a_plan_that_retries_failed_runs_counts_what_they_build_on(
    done: tuple[list[PlannedCell], Path], tmp_path: Path, s3dis_root: Path, bench: Bench
) -> None:
    """As the run that follows it: the pruned pre-training of a failed fine-tuning runs again."""
    cells, runs = done
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    pb.clean(copy, keep="none")
    child = next(c.stages[-1] for c in cells if c.stages[-1].spec.parents)
    path = copy / "finetune" / child.spec.key / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "outcome": "crashed"}))
    (tmp_path / "sleep.yaml").write_text(json.dumps(matrix(str(s3dis_root), 1).suite.model_dump(mode="json")))
    here = ("sleep.yaml", "--data", f"s3dis={s3dis_root}", "--threads", "1", "--device", "cpu")
    for retry, stages in (("infra", 0), ("failed", 2)):
        shape = ("--retry", retry, "--simulate", "nodes=1,gpus=0,cpus=2", "--json")
        found = json.loads(bench("plan", *here, *shape).stdout)
        assert (found["totals"]["all methods"]["stages"], found["simulation"]["stages"]) == (stages, stages), retry


def test_another_setting_makes_a_stage_stale_and_the_plan_says_which(
    done: tuple[list[PlannedCell], Path], s3dis_root: Path
) -> None:
    _, runs = done
    plan = matrix(str(s3dis_root), 1)
    task = plan.profile.tasks["s3dis-sem"]
    recipe = task.model_copy(update={"scale": (0.8, 1.2)})
    other = plan._replace(
        profile=plan.profile.model_copy(update={"tasks": {**plan.profile.tasks, "s3dis-sem": recipe}})
    )
    cells, _ = other.plan_prepared()
    found = states(cells, Store(runs), 2)
    stale = [s for s in found if s.state == State.stale]
    assert len(stale) == 8 and all(s.planned.spec.kind == "finetune" for s in stale)
    assert {s.reason for s in stale} == {"recipe.scale [0.9, 1.1] -> [0.8, 1.2]"}
    threads, _ = plan._replace(machine=plan.machine._replace(threads=2)).plan_prepared()
    reasons = {s.reason for s in states(threads, Store(runs), 2)}
    assert reasons == {"threads 1 -> 2", "an earlier stage is stale or new; threads 1 -> 2"}


def test_changed_code_is_named(
    done: tuple[list[PlannedCell], Path], s3dis_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, runs = done
    before = keys.code_hashes("pretrain", "supervised", "semantic")
    changed = {**before, "pretrain_bench.methods.finetune.steps": "0" * 64}
    monkeypatch.setattr("pretrain_bench.harness.planning.plan.code_hashes", lambda *_: changed)
    monkeypatch.setattr("pretrain_bench.harness.planning.stage_specs.code_sha256", lambda *_: "1" * 64)
    cells, _ = matrix(str(s3dis_root), 1).plan_prepared()
    reasons = [s.reason for s in states(cells, Store(runs), 2) if s.planned.spec.method == "supervised"]
    assert reasons[0] == "code of pretrain_bench.methods.finetune.steps changed"


def test_failed_and_damaged(done: tuple[list[PlannedCell], Path], tmp_path: Path) -> None:
    cells, runs = done
    shutil.copytree(runs, tmp_path / "runs")
    first, second = cells[0].stages[-1].spec.key, cells[1].stages[-1].spec.key
    path = tmp_path / "runs/finetune" / first / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"outcome": "crashed", "message": "by hand"}))
    (tmp_path / "runs/finetune" / second / "record.json").write_text('{"half')
    found = {s.key: s for s in states(cells, Store(tmp_path / "runs"), 2)}
    assert found[first].state == State.failed and found[first].reason == "crashed: by hand"
    assert found[second].state == State.to_do


def test_not_applicable(s3dis_root: Path, cache: Path) -> None:
    plan = matrix(str(s3dis_root), 1)
    same = plan._replace(
        suite=plan.suite.model_copy(update={"pretrain_datasets": ("s3dis",)}), names={"s3dis": "s3dis"}
    )
    cells, _ = same.plan_prepared()
    reasons = {c.cell.method: c.reason for c in cells if not c.stages}
    assert set(reasons) == {"supervised"} and "which task 's3dis-sem' fine-tunes on" in reasons["supervised"]


def test_absent_cells_are_counted_by_reason(done: tuple[list[PlannedCell], Path]) -> None:
    """A suite of five seeds has the same reason many times; one line says it."""
    cell = done[0][0].cell
    absent = [PlannedCell(cell, (), reason) for reason in ("no poses", "n/a: no labels", "no poses")]
    assert lines_on_absent(absent) == ["n/a (2 cells): no poses", "n/a (1 cell): no labels"]


def test_a_run_says_why_fewer_stages_run_in_parallel(done: tuple[list[PlannedCell], Path]) -> None:
    cells, runs = done
    left = states(cells, Store(runs / "nothing"), 2)
    need = demand(left[0].planned, Capacity(64, 1 << 20))
    room = Capacity(3 * need.cpus, 64 * need.memory_mib)
    assert line_on_workers(left, room, 3) is None
    line = line_on_workers(left, room, 4)
    assert line is not None
    assert line.startswith(f"at most 3 at a time, not 4: each uses {need.cpus} of {3 * need.cpus} processors"), line
    assert line_on_workers([], room, 4) is None


def test_stages_that_wait_for_data_are_listed_with_their_estimates(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The totals count them."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "empty"))
    words = ("--method", "scratch", "--task", "s3dis-sem", "--budget", "smoke")
    found = json.loads(bench("plan", *words, "--json").stdout)
    init, finetune = found["stages"]
    assert init["state"] == "to do" and len(init["key"]) == 20
    assert (finetune["key"], finetune["state"], finetune["reason"]) == (None, "waiting", "for data: synth-s3dis")
    assert found["totals"]["all methods"]["seconds"] == sum(s["estimate"]["seconds"] for s in found["stages"]) > 0
    frame = pb.plan(pb.cells("scratch", "s3dis-sem", budget="smoke"), runs=tmp_path / "none").to_frame()
    assert frame["state"].tolist() == ["to do", "waiting"] and frame["key"].dropna().tolist() == [init["key"]]
    assert frame["seconds"].sum() == found["totals"]["all methods"]["seconds"]


def test_a_plan_says_what_a_run_would_say_first(bench: Bench, tmp_path: Path) -> None:
    words = (
        "--method",
        "scratch",
        "--task",
        "s3dis-sem",
        "--budget",
        "smoke",
        "--backend",
        "triton",
        "--device",
        "cpu",
    )
    done, found = bench("plan", *words), json.loads(bench("plan", *words, "--json").stdout)["notices"]
    assert len(found) == 2 and found[0].startswith("--backend triton: ") and "SYNTHETIC" in found[1]
    assert all(line in done.stderr.splitlines() for line in found) and "--backend triton" not in done.stdout


@pytest.mark.slow
def test_cells_whose_data_are_not_prepared_are_listed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "empty"))
    found = json.loads(bench("plan", "table1", "pretrain_seed=0", "finetune_seed=0", "--json").stdout)
    assert found["cells"] == 6 * 7 and len(found["stages"]) == found["totals"]["all methods"]["stages"] > 6 * 7
    assert {(s["state"], s["key"] is None) for s in found["stages"]} == {("to do", False), ("waiting", True)}
    assert [c["cell"]["task"] for c in found["not_applicable"]] == ["scannet-sem", "scannet-inst", "scannet-det"]
    assert {c["cell"]["method"] for c in found["not_applicable"]} == {"supervised"}
    assert len(found["waiting_for_data"]) == 6 * 7 - 3
    needs = {(w["cell"]["method"], w["cell"]["task"]): w["datasets"] for w in found["waiting_for_data"]}
    assert needs["ours", "kitti-sem"] == ["semantickitti", "scannet"], "a GPU-sized budget is planned on real data"
    assert needs["scratch", "kitti-sem"] == ["semantickitti"]
    totals, gigabytes = found["totals"], {n["what"].split()[1]: n["bytes"] / 1e9 for n in found["needs"]}
    assert set(totals) == {"scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours", "all methods"}
    whole = totals.pop("all methods")
    for field in ("stages", "seconds", "low", "high", "bytes"):
        assert whole[field] == pytest.approx(sum(t[field] for t in totals.values())), field
    assert 0 < whole["low"] < whole["seconds"] < whole["high"] and whole["gpu_seconds"] == 0
    assert gigabytes["s3dis"] == pytest.approx(5.46) and sum(gigabytes.values()) == found["cache_bytes"] / 1e9
    text = bench("plan", "smoke").stdout
    assert re.search(
        r"- +ours -> s3dis-sem at 100% +0/0 +waiting  ~\d+ s +for data: synth-scannet,\s+synth-s3dis", text
    )
    assert re.search(r"all methods +19 +\d+ min +\d+ (min )?to \d+ min +- +\d\.\d\d GB", text)
    assert not list(tmp_path.glob("empty/*/*")), "nothing was prepared"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "<1 s"), (119, "119 s"), (150, "2 min"), (7200, "2.0 h"), (4e6, "1,111.1 h")]
)
def test_times_have_the_unit_that_a_person_would_say(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_estimate_below_a_second_is_put_in_words(done: tuple[list[PlannedCell], Path]) -> None:
    planned = done[0][0].stages[0]

    def line(seconds: float, within: float) -> str:
        estimate = Estimate(seconds, 0, "rough", within)
        return estimate_line([StageState(planned, planned.spec.key, State.to_do, "", estimate)])

    assert line(0.2, 2) == "1 stage to run, less than a second one after the other (<1 s)"
    assert line(1.5, 2) == "1 stage to run, about 2 s one after the other (<1 to 3 s)"


def test_the_command(done: tuple[list[PlannedCell], Path], bench: Bench, s3dis_root: Path, tmp_path: Path) -> None:
    _, runs = done
    suite = matrix(str(s3dis_root), 1).suite
    (tmp_path / "sleep.yaml").write_text(json.dumps(suite.model_dump(mode="json")))
    here = ("sleep.yaml", "--data", f"s3dis={s3dis_root}", "--threads", "1", "--runs", str(runs), "--device", "cpu")
    text = bench("plan", *here).stdout
    assert "8 cells, 10 stages" in text and "10 done" in text and "data: s3dis" in text and "research only" in text
    assert all(len(line) <= 100 for line in text.splitlines()[2:])
    less = json.loads(bench("plan", *here, "--only", "method=scratch", "label_ratio=50", "--json").stdout)
    assert {s["cell"]["pretrain_seed"] for s in less["stages"] if s["cell"]} == {0}
    fresh = bench("plan", *here[:-4], "--runs", "none", "--device", "cpu").stdout
    assert re.search(r"scratch -> s3dis-sem at 50% +0/0 +to do", fresh)
    assert re.search(r"all methods +10 +\d+ (s|min) +\d+ (s )?to \d+ (s|min) +- +\d\.\d\d GB", fresh), (
        "minutes are not rounded to 0.0 h"
    )
    assert less["cells"] == 2 and [s["state"] for s in less["stages"]] == ["done"] * 3
    assert "no method of suite" in bench("plan", *here, "--only", "method=ours", code=2).stderr
    suites = bench("suites", "ls").stdout.splitlines()
    assert "smoke: 12 cells, budget smoke" in suites and all(len(line) <= 100 for line in suites)
    assert "There are: ablation" in bench("plan", "nonsense", code=2).stderr


def test_another_machine_is_planned_without_data_or_gpu(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "empty"))
    command = ("plan", "--method", "scratch", "--task", "s3dis-sem", "--json", "--on")
    hours = {}
    for machine in available(Rates):
        total = json.loads(bench(*command, machine).stdout)["totals"]["scratch"]
        hours[machine] = total["seconds"] / 3600
        assert (total["gpu_seconds"] > 0) == (machine != "cpu")
        assert total["high"] / total["seconds"] == pytest.approx(find(Rates, machine).within)
    stage = json.loads((REPOSITORY / "docs/verification/gpu-headline.json").read_text())["stages"]
    seen = stage["scratch -> s3dis-sem at 100%"]["paper_hours"]
    assert seen / 2.3 < hours["h100"] < seen * 2.3, "as measured"
    assert hours["h100"] < hours["rtx4090"] < hours["a100"]
    shape = ("--simulate", "nodes=2,gpus=4,node=h100")
    simulated = json.loads(bench(*command[:-1], *shape).stdout)["simulation"]
    assert simulated["gpus"] == 8 and simulated["makespan_seconds"] / 3600 == pytest.approx(hours["h100"])
    assert simulated["gpu_utilisation"] == pytest.approx(1 / 8) and len(simulated["longest_chain"]) == 2
    printed = bench(*command[:-2], *shape).stdout
    assert "simulated on 8 GPUs and 128 CPUs: 2 stages in" in printed and "GPUs 12.5 %" in printed
    assert "both name the machine" in bench(*command, "cpu", *shape, code=2).stderr
    text = bench(*command[:-2], "--on", "a100").stdout
    assert "NVIDIA A100 80GB, derived: not measured" in text and "GPU-days" in text and "data: s3dis" in text
    assert "hours of a CPU" not in text
    assert "hours of a CPU; --on h100" in (bench(*command[:-2], "--budget", "uniform", "--device", "cpu").stdout)
    assert "There are: a100, cpu, h100, rtx4090" in bench(*command, "tpu", code=2).stderr


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        (
            ("table1",),
            r"\d+ cells wait for data.*: `bench data prepare s3dis --root DIR`, `bench data prepare scannet --root DIR`, ",
        ),
        (
            ("--method", "depthcontrast", "--task", "s3dis-sem", "--protocol", "linear"),
            "no cell applies: protocol 'linear'",
        ),
        (("smoke", "--on", "h100"), "leave out --on"),
        (("smoke", "--sign", "key"), "give --register FILE as well"),
    ],
)
def test_a_plan_registers_only_keys_that_a_run_here_will_have(
    options: tuple[str, ...], refusal: str, bench: Bench, tmp_path: Path
) -> None:
    register = () if "--sign" in options else ("--register", "plan.json")
    stderr = " ".join(bench("plan", *options, *register, code=2).stderr.split())
    assert re.search(refusal, stderr) and not (tmp_path / "plan.json").exists()


def test_rates_say_where_they_come_from() -> None:
    rates = {name: find(Rates, name) for name in available(Rates)}
    rows = json.loads((REPOSITORY / "docs/verification/gpu-headline.json").read_text())["stages"].values()
    worst = max(max(r := row["plan_step_seconds"] / row["step_seconds"], 1 / r) for row in rows)
    assert rates["h100"].within == round(worst, 1)
    sheets = {"h100": (3.35, 67.0), "a100": (2.039, 19.5), "rtx4090": (1.008, 82.6)}  # TB/s and TFLOPS in fp32
    for name in ("a100", "rtx4090"):
        low, high = sorted(a / b for a, b in zip(sheets["h100"], sheets[name], strict=True))
        slower, off = (low * high) ** 0.5, (high / low) ** 0.5
        one = rates[name]
        assert one.basis == "derived" and f"divided by {slower:.2f}" in one.source
        assert one.flops_a_second == pytest.approx(rates["h100"].flops_a_second / slower, rel=0.01)
        assert one.seconds_a_point == pytest.approx(rates["h100"].seconds_a_point * slower, rel=0.01)
        assert one.within == pytest.approx(worst * off, rel=0.03)
    assert {name for name, one in rates.items() if one.basis == "measured"} == {"h100", "cpu"}


@pytest.mark.slow
def test_the_rates_of_a_cpu_are_those_of_the_study() -> None:
    """Checks each kind of stage in the two studies, whose bundles are in docs/study."""
    rates, off = find(Rates, "cpu"), {}
    for name in ("smoke", "tiny"):
        profile, seconds = find(Profile, name), {}
        for record in open_store(REPOSITORY / f"docs/study/{name}.bundle.tar.zst").records():
            what = record.cell.task if record.cell else f"{record.method}/{record.stage}"
            if record.ledger.optimizer_steps:
                seconds.setdefault(what, []).append(record.ledger.cpu_seconds / record.ledger.optimizer_steps)
        for what, of_steps in seconds.items():
            method, _, stage = what.partition("/")
            if stage:
                used = find(Method, method)
                recipe = stage_recipe(used, next(s for s in used.stages if s.name == stage), profile)
            else:
                recipe = finetune_recipe(profile, find(Task, what))
            assert recipe is not None
            work = recipe.work_per_step()
            voxel = rates.seconds_a_voxel + 6.5e6 * profile.network.width**2 / rates.flops_a_second
            planned = work.voxels * voxel + work.pixels * rates.seconds_a_pixel
            ratio = planned / (sum(of_steps) / len(of_steps))
            off[name, what] = max(ratio, 1 / ratio)
    assert len(off) == 14 and max(off.values()) < rates.within, off


def test_the_command_to_prepare_data_reads_them_as_the_run_does(rgbd_root: Path) -> None:
    """Other frames or another up axis would be other data, which the run prepares once more."""
    roots = {"scannet": Path("/scans"), "rgbd-folder": rgbd_root}
    usual, own = (DataSources(roots, frame_stride=stride, up=up) for stride, up in ((50, "auto"), (25, "+y")))
    assert usual.how_to_prepare("scannet") == "bench data prepare scannet --root /scans"
    assert usual.how_to_prepare("rgbd-folder") == f"bench data prepare rgbd-folder --root {rgbd_root}"
    assert own.how_to_prepare("scannet") == "bench data prepare scannet --root /scans --frame-stride 25"
    assert own.how_to_prepare("rgbd-folder") == f"bench data prepare rgbd-folder --root {rgbd_root} --up +y"
    assert own.how_to_prepare("synth-scannet") == "bench data prepare synth-scannet --world smoke"


@pytest.mark.parametrize("name", ["synth-s3dis", "synth-scannet", "synth-kitti", "synth-sunrgbd"])
def test_expected_scenes_are_those_that_are_prepared(name: str, cache: Path) -> None:
    sources = DataSources(world="nano")
    prepared, expected = sources.prepare(name), sources.expected(name)
    assert expected is not None and expected.is_expected and not prepared.is_expected
    assert sorted(expected.scenes) == sorted(prepared.scenes) and sorted(expected.tested) == sorted(prepared.tested)


def test_published_sizes_are_those_of_the_splits() -> None:
    scenes = {n: DataSources().expected(n) for n in ("s3dis", "scannet", "semantickitti", "sunrgbd")}
    assert {n: len(e.scenes) for n, e in scenes.items() if e} == {
        "s3dis": 272, "scannet": 1513, "semantickitti": 23201, "sunrgbd": 10335,
    }  # fmt: skip
    kitti, views = scenes["semantickitti"], scenes["sunrgbd"]
    assert kitti is not None and sum(s.startswith("08__") for s in kitti.scenes) == 4071
    assert views is not None and len(views.tested) == 5050
    assert DataSources().expected("rgbd-folder") is None, "a user's recordings have no published size"


def test_a_renamed_budget_keeps_its_runs(
    done: tuple[list[PlannedCell], Path], s3dis_root: Path, tmp_path: Path
) -> None:
    _, runs = done
    nano = (REPOSITORY / "tests/specs/nano-budget.yaml").read_text()
    suite = matrix(str(s3dis_root), 1).suite
    settings = pb.Settings(data={"s3dis": s3dis_root}, threads=1, device="cpu")

    def planned_with(text: str, name: str) -> pb.Plan:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.replace("name: nano", f"name: {name}"))
        return pb.plan(suite.model_copy(update={"budget": str(path)}), runs=runs, settings=settings)

    renamed = planned_with(nano, "renamed")
    assert {s.state for s in renamed.stages} == {State.done} and renamed.budget.name == "nano"
    keys_now = pb.keys_of_suite(suite.model_copy(update={"budget": str(tmp_path / "renamed.yaml")}), runs)
    assert keys_now == pb.keys_of_suite(suite, runs) != set()
    steps = find(Budget, str(REPOSITORY / "tests/specs/nano-budget.yaml")).finetune.optimizer_steps
    assert nano.count(f"optimizer_steps: {steps}") >= 1
    changed = planned_with(nano.replace(f"optimizer_steps: {steps}", f"optimizer_steps: {steps + 1}"), "changed")
    assert changed.budget.name == "changed" and State.done not in {s.state for s in changed.stages}
