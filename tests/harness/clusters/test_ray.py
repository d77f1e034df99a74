"""Two Ray nodes on loopback: results equal local ones; losing a node, driver or head loses and duplicates no run.

Skipped without Ray, unless BENCH_REQUIRE_RAY=1, which makes a missing Ray a failure.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.harness.clusters import ray_cluster
from pretrain_bench.harness.clusters.base import Interrupted, ReadyStage
from pretrain_bench.harness.clusters.jobs import has_ended
from pretrain_bench.harness.clusters.ray_cluster import RayCluster, connect
from pretrain_bench.harness.clusters.ticket import ExecutorChoice, job_of
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Demand
from pretrain_bench.harness.running.stage_runner import RunOptions
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.store import Store
from tests.conftest import NANO, REPOSITORY, Bench, run_records
from tests.harness.clusters.ray_driver import run_on_ray
from tests.harness.clusters.ray_nodes import OBJECT_STORE_BYTES, RAY_VARIABLES

STAGES = 10
WITHOUT = find_spec("ray") is None
needs_ray = pytest.mark.skipif(
    WITHOUT and os.environ.get("BENCH_REQUIRE_RAY") != "1",
    reason="Ray is not installed (pip install -r requirements-cluster.lock; BENCH_REQUIRE_RAY=1 makes this a failure)",
)


@pytest.fixture(scope="module")
def ray_cluster_of_two(cache: Path) -> Iterator[Any]:
    """A head, and a node with s3dis and a GPU that is declared to Ray; nodes inherit the cache and the code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(cache))
        for name, value in RAY_VARIABLES.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster  # reads the environment variables for authentication

        node = {"object_store_memory": OBJECT_STORE_BYTES, "num_cpus": 2}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.second = cluster.add_node(**node, num_gpus=1, resources={"data:s3dis": 1})
        yield cluster
        cluster.shutdown()


def completed(runs: Path) -> list[str]:
    """Keys of all runs ever completed in a store, in order."""
    links = chain.read(runs)
    return [] if links is None else [link.key for link in links.links]


def apart_from_provenance(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its place, time and cost, and without hashes of files that contain times."""
    ledger = {
        n: value for n, value in record["ledger"].items() if not n.endswith("seconds") and not n.startswith("peak")
    }
    dropped = ("provenance", "started_at", "ended_at", "measured", "files", "sha256")
    return {name: value for name, value in record.items() if name not in dropped} | {"ledger": ledger}


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def driver(runs: Path, s3dis: Path, cluster: Any, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.harness.clusters.ray_driver", str(runs), str(s3dis), cluster.address]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentCannot, match=r"pip install '\.\[ray\]'"):
        connect(None)


@needs_ray
@pytest.mark.slow
def test_records_are_those_of_this_machine(
    ray_cluster_of_two: Any, bench: Bench, s3dis_root: Path, tmp_path: Path
) -> None:
    cell = (
        "run",
        "--method",
        "scratch",
        "--task",
        "s3dis-sem",
        "--data",
        f"s3dis={s3dis_root}",
        *NANO,
        "--threads",
        "1",
        "--device",
        "cpu",
    )
    bench(*cell, "--runs", "here", "--executor", "local")
    bench(*cell, "--runs", "there", "--executor", "local", "--on", "ray", "--address", ray_cluster_of_two.address)
    here, there = (run_records(tmp_path / runs) for runs in ("here", "there"))
    assert len(here) == len(there) == 2
    for mine, theirs in zip(here, there, strict=True):
        assert mine["provenance"]["numerics"] == theirs["provenance"]["numerics"]
        assert apart_from_provenance(mine) == apart_from_provenance(theirs)
    assert "nothing to do" in bench(*cell, "--runs", "there", "--executor", "local").stdout


@needs_ray
@pytest.mark.slow
def test_doctor_checks_each_node(ray_cluster_of_two: Any, bench: Bench, s3dis_root: Path, tmp_path: Path) -> None:
    where = ["--address", ray_cluster_of_two.address, "--executor", "local", "--runs", "runs"]
    command = ["doctor", "--on", "ray", *where]
    found = json.loads(bench(*command, "--data", f"s3dis={s3dis_root}", "--json").stdout)["checks"]
    nodes = [row for row in found if row["what"].startswith("Ray node ")]
    assert len({row["what"] for row in nodes}) == 2
    everywhere = "versions, code, runs folder, data cache, executor local"
    holding = f"{everywhere}, data: s3dis"  # the second node declares it
    assert sorted((row["state"], row["detail"]) for row in nodes) == [("ok", everywhere), ("ok", holding)]
    gone = tmp_path / "gone"
    found = json.loads(bench(*command, "--data", f"s3dis={gone}", "--json", code=3).stdout)["checks"]
    broken = [row for row in found if row["what"].endswith("): data: s3dis")]
    assert [row["state"] for row in broken] == ["broken"] and f"{gone} does not exist on node" in broken[0]["detail"]


@needs_ray
@pytest.mark.slow
def test_tasks_ask_for_what_a_stage_needs(ray_cluster_of_two: Any, cells: list[PlannedCell], tmp_path: Path) -> None:
    store = Store(tmp_path)
    place = RayCluster(store, job_of(store, ExecutorChoice(), RunOptions()), ray_cluster_of_two.address, limit=7)
    try:
        last = cells[0].stages[-1]
        ready = ReadyStage(last, last.spec.key, place.demand(last))
        memory = last.caps.memory_mib or 0
        assert place.resources(ready) == {"CPU": 1, "GPU": 0, "memory": memory << 20, "data:s3dis": 0.001}
        shared = last._replace(
            spec=last.spec.model_copy(update={"device": "cuda"}), caps=last.caps.model_copy(update={"gpus": 0.25})
        )
        assert place.demand(shared) == Demand(1, memory, 0.25) and place.limit == 7
        place._check_feasible(ready, place.resources(ready._replace(planned=shared, demand=place.demand(shared))))
        with pytest.raises(EnvironmentCannot, match=r"no node of the Ray cluster .* has what it needs \(CPU 99"):
            place.submit([ready._replace(demand=Demand(99, 0, 0))])
        assert not place.states()
    finally:
        place.close()


@needs_ray
@pytest.mark.slow
def test_a_killed_driver_is_followed_by_another(ray_cluster_of_two: Any, s3dis_root: Path, tmp_path: Path) -> None:
    first = driver(tmp_path, s3dis_root, ray_cluster_of_two)
    wait_for(lambda: len(completed(tmp_path)) >= 2 or first.poll() is not None)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = completed(tmp_path)
    assert 2 <= len(before) < STAGES
    second = driver(tmp_path, s3dis_root, ray_cluster_of_two)
    out, error = second.communicate(timeout=300)
    assert second.returncode == 0, error
    assert out.split()[0] == str(STAGES) and int(out.split()[1]) >= len(before)
    assert len(completed(tmp_path)) == len(set(completed(tmp_path))) == STAGES, "each stage once"


@needs_ray
@pytest.mark.slow
def test_a_driver_without_the_token_is_refused(ray_cluster_of_two: Any, s3dis_root: Path, tmp_path: Path) -> None:
    stranger = driver(tmp_path, s3dis_root, ray_cluster_of_two, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="wrong" * 8)
    _, error = stranger.communicate(timeout=120)
    assert stranger.returncode == 1 and "RAY_AUTH_TOKEN" in error and "Traceback" not in error, error


@needs_ray
@pytest.mark.slow
def test_the_stages_of_a_lost_node_run_again(ray_cluster_of_two: Any, s3dis_root: Path, tmp_path: Path) -> None:
    extra = ray_cluster_of_two.add_node(
        object_store_memory=OBJECT_STORE_BYTES, num_cpus=4, resources={"data:s3dis": 1, "data:synth-scannet": 1}
    )

    def lose() -> None:
        wait_for(lambda: len(completed(tmp_path)) >= 3)
        ray_cluster_of_two.remove_node(extra, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    reports = run_on_ray(tmp_path, str(s3dis_root), ray_cluster_of_two.address)
    thread.join()
    assert [r.record.outcome for r in reports] == ["ok"] * STAGES
    assert len(completed(tmp_path)) == len(set(completed(tmp_path))) == STAGES, "each stage once"


@needs_ray
@pytest.mark.slow
def test_a_lost_head_ends_the_driver_with_one_message(
    ray_cluster_of_two: Any, s3dis_root: Path, tmp_path: Path
) -> None:
    """The last test that uses the cluster, since it ends it."""
    doomed = driver(tmp_path, s3dis_root, ray_cluster_of_two)
    wait_for(lambda: len(completed(tmp_path)) >= 1 or doomed.poll() is not None)
    ray_cluster_of_two.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    _, error = doomed.communicate(timeout=120)
    assert doomed.returncode == 1 and error.count("is lost, and so are the running stages") == 1, error
    assert error.strip().splitlines()[-1].startswith("exit 3: the head of the Ray cluster at ")
    before = completed(tmp_path)
    assert len(before) < STAGES
    store = Store(tmp_path)
    assert {record.key for record in store.records()} == set(before)


@needs_ray
@pytest.mark.parametrize(
    ("head_answers", "lost"), [(True, "the Ray node of this command"), (False, "the head of the Ray")]
)
def test_tasks_that_fail_since_the_own_node_is_lost_are_not_submitted_again(
    monkeypatch: pytest.MonkeyPatch, cells: list[PlannedCell], tmp_path: Path, head_answers: bool, lost: str
) -> None:
    """Ray reports them as ended within seconds, and all later tasks too."""
    import ray

    def get(task: str) -> str:
        raise ray.exceptions.LocalRayletDiedError

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray_cluster, "answers", lambda address: head_answers)
    stage = cells[0].stages[0]
    place = RayCluster.__new__(RayCluster)
    place.store, place._gcs = Store(tmp_path), "192.0.2.1:6379"
    place._tasks = {"task": ray_cluster._Task(ReadyStage(stage, stage.spec.key, Demand(1, 0, 0)), "ray:job")}
    problem = place._end_of("task").problem
    assert isinstance(problem, EnvironmentCannot) and not isinstance(problem, Interrupted)
    assert lost in str(problem) and "restart the cluster and rerun the same command" in str(problem)


@needs_ray
def test_a_task_has_ended_by_rays_word(monkeypatch: pytest.MonkeyPatch) -> None:
    job = "ray:192.0.2.1:6379/session_1/01000000/abc"
    monkeypatch.setattr(ray_cluster, "_answered_lately", lambda address, period: True)
    assert not has_ended(job), "its cluster answers, and this process does not belong to it"
    monkeypatch.setattr(ray_cluster, "_ended_tasks", {job})
    assert has_ended(job)
    monkeypatch.setattr(ray_cluster, "_ended_tasks", set())
    monkeypatch.setattr(ray_cluster, "_answered_lately", lambda address, period: False)
    assert has_ended(job), "its cluster is gone"


@needs_ray
def test_a_wrong_address_is_refused_at_once() -> None:
    with pytest.raises(WrongUse, match="Ray Client is not supported"):
        connect("ray://head:10001")
    with pytest.raises(EnvironmentCannot, match="no Ray head answers; expected HOST:PORT"):
        connect("127.0.0.1:1")
