"""Each hostile stage ends within its limits with the right outcome; host and store are intact, and the next run succeeds."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.benchmarks.specs.budget import BudgetHalf
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.benchmarks.support.locks import exclusive
from pretrain_bench.harness.executors import container_owner
from pretrain_bench.harness.executors.engine import connect, is_podman
from pretrain_bench.harness.executors.image_classic import build_classic
from pretrain_bench.harness.executors.image_source import ImageSource
from pretrain_bench.harness.executors.podman import user_limits
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.store.store import LOG, Store, is_done
from tests.conftest import SHARED
from tests.hostile.sandboxes import InBubblewrap, InEngine, Sandbox, expected, hostile_files
from tests.methods.stages import nano_stages, small_recordings

BASE = os.environ.get("BENCH_TEST_BASE", "bench-test-base:bookworm")
CAPS = BudgetHalf(
    currency="optimizer_steps",
    optimizer_steps=8,
    wall_seconds=12,
    grace_seconds=2,
    memory_mib=600,
    disk_mib=200,
    cpus=1,
)

# Case: outcome, words that the message or log must contain, words that they must not contain.
CASES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "honest": ("ok", (), ()),
    "network": ("ok", ("not reached", "interfaces: ['lo']"), ("reached (",)),
    "writes_outside": ("ok", ("refused", "0000000000000000"), ("wrote", "user 0")),
    "reads_another_run": ("ok", ("found []", "socket False"), ("secret.txt'",)),
    "looks_for_labels": ("ok", ("labels []",), ()),
    "forks": ("ok", ("forks",), ("forks 100000",)),
    "memory": ("oom_host", ("memory",), ()),
    "memory_itself": ("oom_host", ("memory",), ()),
    "disk": ("over_budget", ("disk",), ()),
    "ignores_sigterm": ("timeout", ("wall",), ()),
    "much_log": ("ok", ("what follows was not kept",), ()),
    "floods_events": ("ok", (), ()),
    "long_and_nested_lines": ("ok", (), ()),
    "nan_checkpoint": ("invalid_output", ("non-finite",), ()),
    "truncated_checkpoint": ("invalid_output", ("not a safetensors file",), ()),
    "wrong_shape": ("invalid_output", ("has shape",), ()),
    "pickled_checkpoint": ("invalid_output", ("not a safetensors file",), ("pwned",)),
    "pickled_array": ("invalid_output", ("features.npy", "files only"), ("pwned",)),
    "bomb": ("invalid_output", ("predictions.npz", "files only"), ()),
    "symlink": ("invalid_output", ("a link or special file",), ("root:",)),
    "symlinked_artifacts": ("invalid_output", ("not a folder",), ("root:",)),
    "hard_link": ("invalid_output", ("a link or special file",), ()),
    "pipe": ("invalid_output", ("a link or special file",), ()),
    "device": ("ok", ("refused",), ()),
    "events_are_a_link": ("invalid_output", ("without an end event",), ("root:",)),
    "events_are_a_pipe": ("invalid_output", ("without an end event",), ()),
    "strange_names": ("invalid_output", ("a name with control characters",), ()),
    "events_are_a_folder": ("invalid_output", ("without an end event",), ()),
    "deep_folders": ("invalid_output", ("nested folders",), ()),
    "refuses_late": ("crashed", ("I do not like this",), ()),
    "cancels_itself": ("crashed", ("unasked",), ()),
    "claims_a_full_disk": ("crashed", ("No space left",), ()),
    "sparse_file": ("over_budget", ("disk",), ()),
    "many_words": ("ok", (), ()),
    "nested_pickle": ("invalid_output", ("not a safetensors file",), ("pwned",)),
    "escapes_and_markup": ("crashed", ("<script>",), ()),
    "forged_end": ("crashed", ("exit code 3",), ()),
    "fewer_steps": ("invalid_output", ("ledger says 1 steps, its events go to step 7",), ()),
    "more_steps": ("over_budget", ("5,000 steps", "allows 8"), ()),
    "nothing": ("invalid_output", ("without an end event",), ()),
    "exits_137": ("crashed", ("exit code 137",), ()),
    "hangs": ("timeout", (), ()),
    "zombie": ("ok", (), ()),
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """A client of a running engine with the base image; skips without one, or fails if BENCH_REQUIRE_DOCKER=1.

    Image names are global, so only one of several test processes uses the engine at a time.
    """
    with exclusive(Path(tempfile.gettempdir()) / "bench-tests-engine.lock"):
        yield _engine()


def _engine() -> Any:
    import docker

    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except Exception as error:
        if os.environ.get("BENCH_REQUIRE_DOCKER") == "1":
            pytest.fail(f"BENCH_REQUIRE_DOCKER=1, but no engine answers: {error}")
        pytest.skip("no container engine answers (BENCH_REQUIRE_DOCKER=1 makes this a failure)")
    maker = SHARED / "tools/make-base.sh"
    if not client.images.list(BASE) and maker.is_file():
        subprocess.run(["bash", str(maker), BASE], check=True, capture_output=True)
    if not client.images.list(BASE):
        if os.environ.get("BENCH_REQUIRE_DOCKER") == "1":
            pytest.fail(f"BENCH_REQUIRE_DOCKER=1, but there is no image {BASE}; BENCH_TEST_BASE names another")
        pytest.skip(f"no image {BASE} with Python to build on; BENCH_TEST_BASE names another")
    return client


@pytest.fixture(scope="module")
def planned(cache: Path) -> PlannedStage:
    source: PreparedDataset = small_recordings(cache)
    return nano_stages("pointcontrast", source)[0]._replace(caps=CAPS)


@pytest.fixture(scope="module")
def in_docker(engine: Any, planned: PlannedStage) -> Iterator[InEngine]:
    sandbox = InEngine("docker", engine, hostile_files(planned), BASE)
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def in_podman(planned: PlannedStage) -> Iterator[InEngine]:
    with exclusive(Path(tempfile.gettempdir()) / "bench-tests-podman.lock"):
        sandbox = InEngine("podman", _podman(), hostile_files(planned), BASE)
        yield sandbox
        sandbox.close()


def _podman() -> Any:
    """A client of podman with the base image, copied from docker if necessary; skips without podman, or fails if
    BENCH_REQUIRE_PODMAN=1."""
    try:
        client = connect("podman")
        if not client.images.list(BASE):
            copy = f"set -o pipefail; docker save {BASE} | podman load && podman tag localhost/{BASE} docker.io/library/{BASE}"
            subprocess.run(["bash", "-c", copy], check=True, capture_output=True)
        return client
    except (EnvironmentCannot, subprocess.CalledProcessError) as error:
        if os.environ.get("BENCH_REQUIRE_PODMAN") == "1":
            pytest.fail(f"BENCH_REQUIRE_PODMAN=1, but podman does not work: {error}")
        pytest.skip(f"podman does not work here: {error} (BENCH_REQUIRE_PODMAN=1 makes this a failure)")


@pytest.fixture(scope="module")
def in_bubblewrap(planned: PlannedStage, tmp_path_factory: pytest.TempPathFactory) -> InBubblewrap:
    return InBubblewrap(hostile_files(planned), tmp_path_factory.mktemp("hostile"))


SANDBOXES = {"docker": pytest.mark.docker, "podman": pytest.mark.docker, "bubblewrap": pytest.mark.slow}
RUNS = [
    pytest.param(name, case, marks=mark)
    for name, mark in SANDBOXES.items()
    for case in CASES
    if expected(name, case, CASES)
]


@pytest.mark.parametrize(("name", "case"), RUNS)
def test_a_hostile_stage(
    name: str, case: str, planned: PlannedStage, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    sandbox: Sandbox = request.getfixturevalue(f"in_{name}")
    store = Store(tmp_path / "runs")
    (tmp_path / "secret.txt").write_text("another run")
    began = time.monotonic()
    record = sandbox.run(case, planned, store)
    outcome, words, never = expected(name, case, CASES)
    folder = store.folder("pretrain", planned.spec.key)
    log = (folder / LOG).read_text(errors="replace")
    text = record.message + log
    assert record.outcome == outcome, (record.outcome, record.message, log[-2000:])
    assert all(w in text for w in words), text[-2000:]
    assert not any(w in text for w in never), text[-2000:]
    assert time.monotonic() - began < CAPS.wall_seconds + CAPS.grace_seconds + 30
    assert "\x1b" not in record.message and (folder / LOG).stat().st_size < 18 << 20
    assert (folder / "record.json").stat().st_size < 1 << 20, "a record stays small, whatever a stage says"
    assert "\x1b" not in (folder / "record.json").read_text() and "\\u001b" not in (folder / "record.json").read_text()
    assert record.executor == name and record.label_isolation == "mounts"
    sandbox.check_nothing_is_left(record)
    assert [r.key for r in store.records()] == [planned.spec.key], "the store is whole"
    assert not any(p.is_symlink() for p in folder.rglob("*"))
    if not is_done(record):
        # The next run succeeds, whatever the hostile one left.
        assert sandbox.run("honest", planned, store).outcome == "ok"


def test_the_output_of_a_stage_is_on_a_file_system_of_its_own_size(
    in_docker: InEngine, planned: PlannedStage, tmp_path: Path
) -> None:
    """A writer that the watcher misses stops at the size of the file system, slightly above its cap."""
    if not in_docker.executor({}).limits_disk:
        pytest.skip("this user may not mount a file system")
    store = Store(tmp_path / "runs")
    record = in_docker.run("disk_at_once", planned, store)
    log = (store.folder("pretrain", planned.spec.key) / LOG).read_text()
    (wrote,) = [int(line.split()[1]) for line in log.splitlines() if line.startswith("wrote ")]
    assert CAPS.disk_mib is not None and CAPS.disk_mib < wrote < CAPS.disk_mib * 1.2 + 20, log
    assert record.outcome == "over_budget" and "disk" in record.message
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line], "left mounted"
    assert "disk" not in " ".join(record.not_enforced)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.docker) for n in ("docker", "podman")])
def test_system_calls_that_no_stage_needs_are_refused(
    name: str, planned: PlannedStage, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The profile refuses them with EPERM or ENOSYS; without it, io_uring_setup fails with EFAULT and keyctl with EOPNOTSUPP."""
    sandbox: InEngine = request.getfixturevalue(f"in_{name}")
    store = Store(tmp_path / "runs")
    record = sandbox.run("system_calls", planned, store)
    log = (store.folder("pretrain", planned.spec.key) / LOG).read_text()
    assert record.outcome == "ok", log[-2000:]
    errors = {line.split()[1]: int(line.split()[2]) for line in log.splitlines() if line.startswith("call ")}
    assert len(errors) == 13 and errors.pop("clone3") == errno.ENOSYS
    assert set(errors.values()) == {errno.EPERM}, errors


def test_a_stage_stays_on_the_processors_that_the_harness_was_given(
    in_docker: InEngine, planned: PlannedStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a stage that requests all CPUs."""
    last = max(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {last})
    assert in_docker.run("processors", planned, Store(tmp_path / "runs")).outcome == "ok"
    log = (Store(tmp_path / "runs").folder("pretrain", planned.spec.key) / LOG).read_text()
    assert f"processors [{last}]" in log


def test_a_container_that_a_killed_harness_left_is_removed(engine: Any, in_docker: InEngine) -> None:
    dead = f"{container_owner.owner(os.getpid()).rpartition(':')[0]}:12.34"
    left = engine.containers.run(
        in_docker.base,
        ["hangs"],
        detach=True,
        labels={container_owner.OWNER_LABEL: dead, container_owner.KEY_LABEL: "k"},
    )
    kept = engine.containers.run(
        in_docker.base, ["hangs"], detach=True, labels={container_owner.OWNER_LABEL: container_owner.owner(os.getpid())}
    )
    copied = left.commit("bench-hostile", "copied")
    of_user = engine.containers.run(copied.id, ["hangs"], detach=True)
    try:
        assert container_owner.remove_orphans(engine) == ["k"]
        names = [c.id for c in engine.containers.list(all=True, filters={"label": container_owner.OWNER_LABEL})]
        assert set(names) == {kept.id, of_user.id} and left.id not in names
    finally:
        kept.remove(force=True)
        of_user.remove(force=True)
        engine.images.remove(copied.id, force=True)


@pytest.mark.docker
def test_podman_builds_images_from_the_same_files(in_podman: InEngine) -> None:
    """With the arguments, labels and steps of `bench images build --engine podman`."""
    text = b"ARG BASE\nFROM $BASE\nCOPY words /words\nRUN cp /words /more\n"
    source = ImageSource(
        "bench-hostile:built", {"Dockerfile": text, "words": b"read me"}, {"BASE": BASE}, {"made": "by bench"}
    )
    steps: list[tuple[int, int]] = []
    list(build_classic(in_podman.engine, source, 600, lambda *step: steps.append(step)))
    try:
        image = in_podman.engine.images.get(source.tag)
        assert image.labels["made"] == "by bench" and image.id.startswith("sha256:") and steps
        output = in_podman.engine.containers.run(
            source.tag, ["cat", "/more"], remove=True, ulimits=user_limits(), network_mode="none"
        )
        assert output == b"read me" and is_podman(in_podman.engine)
    finally:
        in_podman.engine.images.remove(source.tag, force=True)
