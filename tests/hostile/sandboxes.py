"""The sandboxes for hostile stages behind one small interface, and the differences between them."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import save

from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.executors import container_owner
from pretrain_bench.harness.executors.base import Executor
from pretrain_bench.harness.executors.bubblewrap import BubblewrapExecutor, why_not
from pretrain_bench.harness.executors.control_group import PREFIX, cgroup_folders
from pretrain_bench.harness.executors.docker import DockerExecutor
from pretrain_bench.harness.executors.image_classic import build_context
from pretrain_bench.harness.executors.podman import PodmanExecutor
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.capacity import whole_machine
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_stages
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.conftest import REPOSITORY

Files = dict[str, bytes]


class Pwned:
    """Prints a message when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("pwned",)


def hostile_files(planned: PlannedStage) -> Files:
    """The hostile script, and files for it to leave."""
    shapes = backbone_shapes(planned.spec.network)
    good = {n: np.zeros(s, np.int64 if n.endswith("tracked") else np.float32) for n, s in shapes.items()}
    first = next(iter(good))
    nan = {**good, first: np.full(good[first].shape, np.nan, np.float32)}
    shape = {**good, first: np.zeros((2, 2), np.float32)}
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(200 << 20))
    return {
        "stage.py": (REPOSITORY / "tests/hostile/stage.py").read_bytes(),
        "good.safetensors": save(good), "nan.safetensors": save(nan), "shape.safetensors": save(shape),
        "pickle.safetensors": pickle.dumps(Pwned()), "bomb.zip": bomb.getvalue(),
    }  # fmt: skip


def build(engine: Any, files: Files, tag: str) -> str:
    engine.images.build(fileobj=build_context(files), custom_context=True, tag=tag, rm=True, forcerm=True)
    return tag


def run_with(executor: Executor, planned: PlannedStage, store: Store) -> Record:
    runner = StageRunner(store, executor, Silent(), RunOptions("failed"))
    return run_stages([planned], runner, whole_machine("cpu"))[-1].record


class InEngine:
    """Runs a case in a container of an engine, from a separate image."""

    def __init__(self, name: str, engine: Any, files: Files, base: str) -> None:
        self.name, self.engine = name, engine
        script = f'FROM {base}\nCOPY . /\nENTRYPOINT ["python3", "/stage.py"]\n'
        self.base = build(engine, {**files, "Dockerfile": script.encode()}, "bench-hostile:base")

    def run(self, case: str, planned: PlannedStage, store: Store) -> Record:
        tag = f"bench-hostile:{case.replace('_', '-')}"
        image = build(self.engine, {"Dockerfile": f'FROM {self.base}\nCMD ["{case}"]\n'.encode()}, tag)
        try:
            return run_with(self.executor({planned.spec.method: image}), planned, store)
        finally:
            self.engine.images.remove(image, force=True)

    def executor(self, own: dict[str, str]) -> DockerExecutor:
        return (PodmanExecutor if self.name == "podman" else DockerExecutor)(self.engine, own)

    def check_nothing_is_left(self, record: Record) -> None:
        assert record.image is not None and record.image.startswith("sha256:")
        left = self.engine.containers.list(all=True, filters={"label": container_owner.OWNER_LABEL})
        assert not left, "no container is left"

    def close(self) -> None:
        self.engine.images.remove(self.base, force=True)


class InBubblewrap:
    """Runs a case in namespaces; the script is in a folder of PYTHONPATH, which is visible to stages."""

    name = "bubblewrap"

    def __init__(self, files: Files, folder: Path) -> None:
        if reason := why_not():
            if os.environ.get("BENCH_REQUIRE_BUBBLEWRAP") == "1":
                pytest.fail(f"BENCH_REQUIRE_BUBBLEWRAP=1, but bubblewrap does not work: {reason}")
            pytest.skip(f"bubblewrap does not work here: {reason} (BENCH_REQUIRE_BUBBLEWRAP=1 makes this a failure)")
        self.folder = folder
        folder.chmod(0o755)  # if this user is root, the stage is a different user
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def run(self, case: str, planned: PlannedStage, store: Store) -> Record:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(self.folder))
            return run_with(self.executor(case), planned, store)

    def executor(self, case: str) -> BubblewrapExecutor:
        return BubblewrapExecutor([sys.executable, str(self.folder / "stage.py"), case])

    def check_nothing_is_left(self, record: Record) -> None:
        assert record.image is None
        left = [p for p in psutil.process_iter(["cmdline"]) if str(self.folder) in (p.info["cmdline"] or [])]
        assert not left, "no process is left"
        groups = [g for folder in cgroup_folders("memory") for g in folder.glob(f"{PREFIX}{os.getpid()}-*")]
        assert not groups, "no control group is left"

    def close(self) -> None:
        pass


Sandbox = InEngine | InBubblewrap

SAME_CODE_JUDGES = (
    "nan_checkpoint", "truncated_checkpoint", "wrong_shape", "pickled_checkpoint", "pickled_array", "bomb", "symlinked_artifacts",
    "hard_link", "pipe", "events_are_a_pipe", "strange_names", "events_are_a_folder", "refuses_late", "cancels_itself",
    "claims_a_full_disk", "many_words", "nested_pickle", "escapes_and_markup", "forged_end", "fewer_steps", "more_steps", "nothing",
)  # fmt: skip
"""Output of these cases is judged after the sandbox has ended, by code independent of the sandbox, so podman runs none of them."""

DIFFERENT: dict[str, dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    # The kernel refuses a file above the cap, so the stage itself fails; a container's file system accepts it.
    "bubblewrap": {"sparse_file": ("crashed", ("File too large",), ())},
    # Under control groups of version 1, podman does not report that a child was killed.
    "podman": {"memory": ("ok", (), ())},
}
"""Cases that end differently in a sandbox than in docker: outcome, words that must appear, words that must not."""


def expected(sandbox: str, case: str, cases: dict[str, Any]) -> Any:
    """How a case ends in a sandbox: outcome, words that must appear, words that must not; None if it is not run in it."""
    if sandbox == "podman" and case in SAME_CODE_JUDGES:
        return None
    return DIFFERENT.get(sandbox, {}).get(case, cases[case])
