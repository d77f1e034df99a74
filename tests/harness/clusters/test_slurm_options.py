"""Requests to Slurm: the user's options, those of bench.yaml, and the needs of stages; and which stages share a job."""

from __future__ import annotations

from pathlib import Path

import pytest

import pretrain_bench as pb
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.clusters.base import ReadyStage
from pretrain_bench.harness.clusters.slurm_options import packs, parse_options, sbatch_parameters
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Demand

NEED = Demand(3, 4096, 1)


def test_options_of_the_command_replace_those_of_the_file() -> None:
    in_file = {
        "partition": "cpu",
        "mem-per-cpu": "4G",
        "finetune": {"time": "1:00:00", "qos": "short"},
        "exclusive": True,
    }
    options = parse_options(["partition=gpu,gres=gpu:h100:1,time=24:00:00", "exclude=n1,n2"], in_file)
    assert options.of("pretrain") == {
        "partition": "gpu", "mem_per_cpu": "4G", "exclusive": "true", "gres": "gpu:h100:1", "time": "24:00:00",
        "exclude": "n1,n2",
    }  # fmt: skip
    assert options.of("finetune")["time"] == "24:00:00" and options.of("finetune")["qos"] == "short"
    assert options.gives_gpus and not parse_options(["time=5"]).gives_gpus


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu", "expected NAME=VALUE as sbatch takes it"),
        ("array=0-3", "--slurm array: bench sets this option itself"),
        ("pack=many", "--slurm pack=many: expected a number"),
    ],
)
def test_a_wrong_option_is_named(text: str, message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        parse_options([text])
    with pytest.raises(WrongUse, match="slurm: finetuning: expected one of pretrain"):
        parse_options([], {"finetuning": {"time": "5"}})


def test_a_job_asks_for_what_its_stages_need_and_the_user_does_not_name() -> None:
    asked = sbatch_parameters({"partition": "gpu", "pack": "5", "exclusive": "true", "x11": "false"}, NEED)
    assert asked == {"cpus_per_task": "3", "mem": "5120M", "gpus_per_node": "1", "partition": "gpu", "exclusive": True}
    assert sbatch_parameters({"gres": "gpu:2", "mem_per_cpu": "1G", "cpus_per_task": "8"}, NEED) == {
        "gres": "gpu:2", "mem_per_cpu": "1G", "cpus_per_task": "8",
    }  # fmt: skip
    assert sbatch_parameters({}, Demand(1, 0, 0.25)) == {"cpus_per_task": "1", "gpus_per_node": "1"}
    assert sbatch_parameters({}, Demand(1, 0, 0)) == {"cpus_per_task": "1"}


def test_short_stages_share_a_job_up_to_its_minutes(cells: list[PlannedCell]) -> None:
    planned = cells[0].stages[0]

    def stages(seconds: float, number: int, gpus: float = 0) -> list[ReadyStage]:
        return [ReadyStage(planned, str(n), Demand(1, 0, gpus), seconds=seconds) for n in range(number)]

    def sizes(jobs: list[list[ReadyStage]]) -> list[int]:
        return [len(job) for job in jobs]

    assert sizes(packs(stages(60, 250), 10)) == [10] * 25 and sizes(packs(stages(3600, 2), 10)) == [1, 1]
    assert sizes(packs(stages(10, 64), 10)) == [8] * 8, "eight nodes may share them"
    assert sizes(packs(stages(1, 64), 10)) == [60, 4], "a job takes a minute at least"
    assert sizes(packs(stages(0, 2), 10)) == [1, 1], "without an estimate"
    assert sizes(packs([*stages(0, 1), *stages(5, 2)], 10)) == [1, 2], "nothing joins a stage without an estimate"
    assert sizes(packs(stages(5, 3), 0)) == [1, 1, 1], "pack=0: each has its own"
    assert sizes(packs(stages(8, 40, gpus=0.25), 10)) == [30, 10], "four at a time share the GPU"


def test_where_a_run_takes_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench.yaml").write_text("slurm:\n  partition: gpu\n  pretrain: {gres: 'gpu:1'}\n")
    where = pb.Where("slurm", ("time=5",))
    settings = where.settings(pb.Settings())
    assert settings.device == "cuda" and settings.elsewhere, "jobs that ask for a GPU run on it"
    assert where.settings(pb.Settings(device="cpu")).device == "cpu"
    assert pb.Where().settings(pb.Settings()) == pb.Settings()
    for wrong, message in (
        (pb.Where("local", ("time=5",)), "--slurm: it is for runs on a cluster; add --on slurm"),
        (pb.Where("local", (), 3), "--max-pending: it is for runs on a cluster"),
        (pb.Where("moon"), "--on 'moon': expected one of local, slurm"),  # type: ignore[arg-type]
    ):
        with pytest.raises(WrongUse, match=message):
            wrong.check()
    with pytest.raises(WrongUse, match="--detach: it submits the command as a job; add --on slurm"):
        pb.detach(["run"], pb.Where(), tmp_path / "runs")
