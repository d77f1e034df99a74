"""Visibility, limits and end of a stage in bubblewrap. tests/hostile runs misbehaving stages in it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import pretrain_bench as pb
from pretrain_bench.api.doctor import isolation
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.support import process_limits
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.executors import bubblewrap, choice
from pretrain_bench.harness.executors.base import Allocation, Execution, StageLaunch, Stop
from pretrain_bench.harness.executors.bubblewrap import BubblewrapExecutor, can_limit, why_not
from pretrain_bench.harness.executors.control_group import control_group
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from tests.conftest import NANO, REPOSITORY, Bench, run_records
from tests.test_plug_ins import toy

needs_bwrap = pytest.mark.skipif(
    os.environ.get("BENCH_REQUIRE_BUBBLEWRAP") != "1" and bool(why_not()), reason=f"bubblewrap: {why_not()}"
)


def run_code(code: str, folder: Path, spec: StageSpec, **caps: int) -> Execution:
    """Run Python code in the sandbox, with the folders of a stage in `folder`; its output is in `folder`/log."""
    launch = launch_in(folder, spec, **caps)
    return BubblewrapExecutor([sys.executable, "-c", code], [folder / "packages/hidden"]).run(launch)


def launch_in(folder: Path, spec: StageSpec, **caps: int) -> StageLaunch:
    root = folder / "runs/.partial/key/root"
    for name in ("in", "data", "parents", "out"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "in/stage.json").write_text("{}")
    limits = find(Budget, "smoke").pretrain.model_copy(update={"memory_mib": None, "disk_mib": 50, **caps})
    return StageLaunch(root, spec, limits, folder / "log", lambda event: None, Allocation(Stop()))


LOOKS_AROUND = """
import importlib.util, os, pathlib, socket, mine
print("value", mine.VALUE, "torch", importlib.util.find_spec("torch") is not None)
for name in (mine.__file__, os.path.dirname(os.__file__) + "/x", "/x", "/bench/in/x", "/dev/x", "/bench/out/x", "/tmp/x", "/dev/shm/x"):
    try:
        open(name, "a").close()
        print("wrote", name)
    except OSError as error:
        print("refused", name)
print("labels", os.path.exists(os.path.dirname(mine.__file__) + "/hidden/labels"))
print("interfaces", [name for _, name in socket.if_nameindex()], "checkout", os.path.exists(os.environ["PYTHONPATH"].split(":")[-1] + "/tests"))
size = os.statvfs("/dev/shm")
print("shared", size.f_blocks * size.f_frsize, "cpus", len(os.listdir("/sys/devices/system/cpu")) > 3, "user", os.getuid())
print("variables", sorted(os.environ)); print("descriptors", sorted(os.listdir("/proc/self/fd")))
"""


@needs_bwrap
def test_a_stage_sees_its_packages_read_only_and_nothing_else(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    (packages / "hidden").mkdir(parents=True)
    (packages / "mine.py").write_text("VALUE = 17\n")
    (packages / "hidden/labels").write_text("labels")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    execution = run_code(LOOKS_AROUND, tmp_path, cells[0].stages[0].spec)
    text = (tmp_path / "log").read_text()
    assert execution.returncode == 0 and execution.image is None, text
    assert "value 17 torch True" in text and "labels False" in text and "interfaces ['lo'] checkout False" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("wrote")] == [
        "/bench/out/x", "/tmp/x", "/dev/shm/x"
    ]  # fmt: skip
    assert f"shared {1 << 30} cpus True user {os.getuid() or 10001}" in text
    assert "AWS" not in text and "TMPDIR" not in text and "descriptors ['0', '1', '2', '3']" in text, (
        "3 lists the folder"
    )
    assert (tmp_path / "runs/.partial/key/root/out/x").is_file()


@needs_bwrap
def test_a_stage_can_load_what_triton_compiles(cells: list[PlannedCell], tmp_path: Path) -> None:
    code = (
        "import _ctypes, ctypes, os, shutil\n"
        "folder = os.environ['TRITON_CACHE_DIR']\n"
        "os.makedirs(folder)\n"
        "ctypes.CDLL(shutil.copy(_ctypes.__file__, folder))\n"
    )
    execution = run_code(code, tmp_path, cells[0].stages[0].spec)
    assert execution.returncode == 0, (tmp_path / "log").read_text()


TAKES = {
    "pids": "import os, time\nfor _ in range(700):\n    if os.fork() == 0: time.sleep(60); os._exit(0)\ntime.sleep(60)",
    "memory": "import time; x = bytearray(400 << 20); time.sleep(60)",
}


@needs_bwrap
@pytest.mark.parametrize("what", [pytest.param("pids", marks=pytest.mark.slow), "memory"])
def test_without_a_control_group_memory_and_processes_are_sampled_and_the_record_says_so(
    what: str, cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "can_limit", lambda: False)
    caps = {"memory_mib": 300} if what == "memory" else {}
    execution = run_code(TAKES[what], tmp_path, cells[0].stages[0].spec, **caps)
    assert execution.killed_by == what and execution.measured.wall_seconds < 30
    assert {"memory between samples", "pids between samples"} <= set(BubblewrapExecutor().not_enforced)


@needs_bwrap
def test_with_a_control_group_the_kernel_enforces_both(cells: list[PlannedCell], tmp_path: Path) -> None:
    if not can_limit():
        pytest.skip("this user may not make control groups")
    assert "between samples" not in " ".join(n for n in BubblewrapExecutor().not_enforced if "disk" not in n)
    spec = cells[0].stages[0].spec
    assert run_code(TAKES["memory"], tmp_path / "a", spec, memory_mib=300).killed_by == "memory"
    refused = TAKES["pids"].replace("time.sleep(60)", "time.sleep(1)")
    execution = run_code(refused, tmp_path / "b", spec)
    assert execution.killed_by is None and "BlockingIOError" in (tmp_path / "b/log").read_text()


@needs_bwrap
def test_signals_reach_the_stage_and_not_the_sandbox(cells: list[PlannedCell], tmp_path: Path) -> None:
    """The soft limit of wall time lets the stage save, and a hanging stage shows where it hangs."""
    spec = cells[0].stages[0].spec
    saves = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit('saved'))\ntime.sleep(60)"
    execution = run_code(saves, tmp_path / "a", spec, wall_seconds=2, grace_seconds=20)
    assert execution.soft_limited and execution.killed_by is None and execution.returncode == 1
    assert "saved" in (tmp_path / "a/log").read_text()
    hangs = "import faulthandler, time\nfaulthandler.enable()\ndef waits(): time.sleep(60)\nwaits()"
    assert run_code(hangs, tmp_path / "b", spec, stall_seconds=1).killed_by == "stall"
    assert "in waits" in (tmp_path / "b/log").read_text()


@needs_bwrap
def test_a_sandbox_that_cannot_be_made_is_the_machines_fault(cells: list[PlannedCell], tmp_path: Path) -> None:
    launch = launch_in(tmp_path, cells[0].stages[0].spec)
    (launch.root / "parents/gone").symlink_to(tmp_path / "gone")
    with pytest.raises(pb.EnvironmentCannot, match="bubblewrap cannot create the sandbox: bwrap: .*gone"):
        BubblewrapExecutor().run(launch)


KILLED = """
import sys
from pathlib import Path
from pretrain_bench.harness.contract.stage import StageSpec
from tests.harness.executors.test_bubblewrap import run_code
run_code("import time; print('sleeps', flush=True); time.sleep(601)", Path(sys.argv[1]), StageSpec.model_validate_json(sys.argv[2]))
"""


@pytest.mark.slow  # in the fast set, tests/harness/executors/test_warm_python.py kills a harness
@needs_bwrap
def test_the_sandbox_of_a_killed_harness_dies(cells: list[PlannedCell], tmp_path: Path) -> None:
    spec = cells[0].stages[0].spec.model_dump_json()
    harness = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), spec], cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + 60
        while not ((tmp_path / "log").is_file() and (tmp_path / "log").read_text()):
            assert time.monotonic() < deadline and harness.poll() is None
            time.sleep(0.05)
        inside = psutil.Process(harness.pid).children(recursive=True)
        assert len(inside) >= 3, "bubblewrap, its first process and the stage"
    finally:
        harness.send_signal(signal.SIGKILL)
        harness.wait()
    assert not psutil.wait_procs(inside, timeout=10)[1]


def test_a_control_group_of_version_2_is_made_beside_a_group_without_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would fill a new folder with the files of its controllers; here the test does."""
    monkeypatch.setattr(process_limits, "CGROUPS", tmp_path)
    monkeypatch.setattr(process_limits, "OWN_CGROUPS", tmp_path / "self")
    (tmp_path / "self").write_text("0::/app/terminal\n")
    own = tmp_path / "app/terminal"
    own.mkdir(parents=True)
    for folder in (own, own.parent):
        for name in ("cgroup.procs", "cgroup.controllers"):
            (folder / name).write_text("")
    (own / "memory.max").write_text("max\n")
    real = Path.mkdir

    def mkdir(path: Path, *arguments: object, **options: bool) -> None:
        real(path, *arguments, **options)  # type: ignore[arg-type]
        if path.parent == own.parent:
            for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs"):
                with contextlib.suppress(FileExistsError):
                    (path / name).touch(exist_ok=False)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with control_group("bench-1-key", 7 << 20, 9) as group:
        assert group is not None and group.memory == group.pids == own.parent / "bench-1-key"
        group.join()
        assert [(group.memory / n).read_text() for n in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs")] == [
            str(7 << 20), "0", "9", "0"
        ]  # fmt: skip
        for file in group.memory.iterdir():
            file.unlink()
    (own / "memory.max").write_text("1000000\n")
    with control_group("bench-1-key", 7 << 20, 9) as group:
        assert group is None, "beside it the stage would escape the limit of this process"


@pytest.mark.parametrize(
    ("version", "reason"),
    [((), "bwrap is not installed"), ((0, 6, 1), "bwrap 0.6.1 is too old; 0.7 or later is needed")],
)
def test_without_bubblewrap_stages_run_as_plain_processes_and_the_run_says_why(
    version: tuple[int, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "version", lambda: version)
    bubblewrap._why_not.cache_clear()
    try:
        assert isinstance(choice.process_executor(), LocalExecutor)
        notice = choice.notice_without_isolation("auto", "cpu")
        assert notice is not None and reason in notice and choice.notice_without_isolation("local", "cpu") is None
        with pytest.raises(pb.EnvironmentCannot, match=f"--executor bubblewrap: {reason}.*use --executor local"):
            choice.process_executor("bubblewrap")
        rows = {d.what: d for d in isolation()}
        assert rows["executor bubblewrap"].state == "missing" and reason in rows["executor bubblewrap"].detail
        assert rows["executor local"].detail.startswith("the default; no isolation")
    finally:
        bubblewrap._why_not.cache_clear()


@needs_bwrap
def test_bubblewrap_is_the_default_where_it_works() -> None:
    executor = choice.process_executor()
    assert isinstance(executor, BubblewrapExecutor) and executor.label_isolation == "mounts"
    assert choice.notice_without_isolation("auto", "cpu") is None
    assert isinstance(choice.process_executor("local"), LocalExecutor)


@needs_bwrap
@pytest.mark.slow
def test_an_own_method_has_the_same_keys_and_results_in_the_sandbox(
    bench: Bench, s3dis_root: Path, tmp_path: Path
) -> None:
    """Compares the default, with a Python in the user's home, with plain processes."""
    folder = toy(tmp_path / "toy")
    own = [
        "run",
        "--method",
        str(folder),
        "--trust-code",
        "--task",
        "s3dis-sem",
        *NANO,
        "--data",
        f"s3dis={s3dis_root}",
    ]
    bench(*own, "--threads", "1", "--executor", "auto")
    bench(*own, "--threads", "1", "--executor", "local", "--runs", "plain")
    inside, outside = run_records(tmp_path / "runs"), run_records(tmp_path / "plain")
    assert [(r["executor"], r["label_isolation"]) for r in inside + outside] == [
        *[("bubblewrap", "mounts")] * 2, *[("local", "none")] * 2
    ]  # fmt: skip
    for one, two in zip(inside, outside, strict=True):
        assert one["outcome"] == two["outcome"] == "ok"
        for field in ("key", "metrics", "artifacts", "stage_metrics"):
            assert one[field] == two[field], field
        assert one["provenance"]["numerics"] == two["provenance"]["numerics"], "the sandbox hides no processor feature"
