"""Messages name the actual cause and the user's own files, and no task is dropped silently."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import pretrain_bench as pb
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.loading import load_spec
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import cache_folder
from tests.conftest import Bench


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(116, "Stale file handle", "/net/data"), "error: /net/data: Stale file handle (the machine refused"),
        (MemoryError(), "error: not enough memory"),
        (
            ModuleNotFoundError("No module named 'pandas'"),
            "error: the installation is incomplete or damaged: No module",
        ),
    ],
)
def test_the_machine_is_named_where_it_is_the_cause(
    raised: Exception, said: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise raised

    monkeypatch.setattr(pb, "list_datasets", refuse)
    error = bench("data", "ls", code=3).stderr
    assert said in error and "a fault of bench" not in error


def test_tilde_is_the_home_in_options_and_variables(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("BENCH_CACHE", "~/cache")
    assert f"{tmp_path}/home/runs: no such folder" in bench("show", "--runs=~/runs", code=2).stderr
    assert f"{tmp_path}/home/runs: no such folder" in bench("show", "--runs", "~/runs", code=2).stderr
    assert cache_folder() == tmp_path / "home/cache"
    assert os.listdir(tmp_path) == ["home"]


def test_several_tasks_run_as_several_methods_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Suite] = []

    def stop(cells: Suite, **_: object) -> None:
        chosen.append(cells)
        raise WrongUse("far enough")

    monkeypatch.setattr(pb, "run", stop)
    command = ["run", "--method", "scratch", "--method", "csc", "--task", "s3dis-sem", "--task=scannet-sem"]
    bench(*command, "--budget", "smoke", code=2)
    assert chosen[0].tasks == ("s3dis-sem", "scannet-sem") and chosen[0].methods == ("scratch", "csc")


def test_a_field_is_named_by_the_file_that_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: smoke\nname: base\npretrain: {optimizer_steps: -3}\n")
    (tmp_path / "own.yaml").write_text("extends: base\nname: own\nfinetune: {optimizer_steps: -4}\n")
    smoke = Path(pb.__file__).parent / "benchmarks/configs/budgets"
    with pytest.raises(WrongUse) as caught:
        load_spec(tmp_path / "own.yaml", Budget, smoke)
    assert str(caught.value).split("; ") == [
        f"{tmp_path}/base.yaml: pretrain.optimizer_steps: Input should be greater than 0 (got -3)",
        f"{tmp_path}/own.yaml: finetune.optimizer_steps: Input should be greater than 0 (got -4)",
    ]
    (tmp_path / "base.yaml").write_bytes("extends: smoke\ndescription: Größe\n".encode("latin-1"))
    with pytest.raises(WrongUse, match=r"base\.yaml, line 2: byte 0xf6 is not UTF-8"):
        load_spec(tmp_path / "own.yaml", Budget, smoke)


def test_a_backbone_is_not_written_over_a_folder(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    command = ["methods", "import-checkpoint", "a.pth", "--origin", "bench", "--out", "folder"]
    assert "--out folder: a folder; name the file to write, such as folder/backbone" in bench(*command, code=2).stderr
    assert os.listdir(tmp_path) == ["folder"]
