"""Job requests to Slurm: the user's options (`--slurm`, `slurm:` in bench.yaml) and the demand of stages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.clusters.base import ReadyStage
from pretrain_bench.harness.contract.stage import Kind
from pretrain_bench.harness.running.capacity import Demand

Values = dict[str, str]
Section = Mapping[str, str | int | bool | Mapping[str, str | int | bool]]
DRIVER = "driver"
SECTIONS = (*get_args(Kind), DRIVER)
"""Sections of options for one kind of stage, or for the job of `--detach`."""
PACK_MINUTES, GRACE_SECONDS = 10.0, 90
OWN = ("pack", "grace")
"""Options of bench rather than sbatch: estimated minutes up to which short stages share a job, and seconds between the signal
and the end of a job."""
GPU_OPTIONS = ("gres", "gpus", "gpus_per_node", "gpus_per_task")
MEMORY_OPTIONS = ("mem", "mem_per_cpu", "mem_per_gpu")
SPREAD, LEAST_SECONDS = 8, 60.0
"""Short stages are packed into at least this number of jobs, so that nodes share them, as long as each job takes at least this
time."""
WORKER_MIB = 1024
"""Memory of the worker in addition to its stage."""
SET_HERE = ("array", "job_name", "output", "error", "signal", "requeue", "no_requeue", "open_mode", "wrap")
"""Options that would break assumptions of a submission."""


class SlurmOptions(NamedTuple):
    """Options for all jobs, and those for one kind of stage or for the driver, which take precedence."""

    common: Values = {}
    sections: Mapping[str, Values] = {}

    def of(self, section: str) -> Values:
        """The options for one kind of stage, or for the driver."""
        return {**self.common, **self.sections.get(section, {})}

    @property
    def gives_gpus(self) -> bool:
        """Whether any job asks for a GPU."""
        return any(name in GPU_OPTIONS for values in (self.common, *self.sections.values()) for name in values)


def parse_options(texts: Iterable[str], in_file: Section | None = None) -> SlurmOptions:
    """Parse `partition=gpu,gres=gpu:h100:1,time=24:00:00`; these replace the options of `bench.yaml` one by one.

    A part without `=` belongs to the previous value, as in `exclude=n1,n2`. Raises WrongUse.
    """
    common: Values = {}
    sections: dict[str, Values] = {}
    for name, value in (in_file or {}).items():
        if isinstance(value, Mapping):
            if name not in SECTIONS:
                raise WrongUse(
                    f"bench.yaml: slurm: {name}: expected one of {', '.join(SECTIONS)}, or an option of sbatch"
                )
            sections[name] = {_name(key): _value(one) for key, one in value.items()}
        else:
            common[_name(name)] = _value(value)
    for name, text in _given(texts).items():
        common[name] = text
        for values in sections.values():
            values.pop(name, None)
    for values in (common, *sections.values()):
        _check(values)
    return SlurmOptions(common, sections)


def _given(texts: Iterable[str]) -> Values:
    values: Values = {}
    last = ""
    for text in texts:
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if equals:
                last = _name(name)
                values[last] = value.strip()
            elif last:
                values[last] += f",{part}"
            else:
                raise WrongUse(
                    f"--slurm {text!r}: expected NAME=VALUE as sbatch takes it, such as --slurm partition=gpu,time=2:00:00"
                )
    return values


def _check(values: Values) -> None:
    for name in values:
        if name in SET_HERE:
            raise WrongUse(f"--slurm {name}: bench sets this option itself; leave it out")
    for name in OWN:
        if name in values and not _is_number(values[name]):
            raise WrongUse(f"--slurm {name}={values[name]}: expected a number, such as {name}=30")


def _name(text: str) -> str:
    return text.strip().lstrip("-").replace("-", "_")


def _value(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def sbatch_parameters(values: Values, need: Demand | None) -> dict[str, str | bool]:
    """Options of sbatch, by long name, for a job whose stages each have this demand; `true` means an option without a value."""
    asked: Values = {} if need is None else _needed(values, need)
    asked |= {name: value for name, value in values.items() if name not in OWN}
    return {name: value == "true" or value for name, value in asked.items() if value != "false"}


def _needed(values: Values, need: Demand) -> Values:
    asked = {"cpus_per_task": str(need.cpus)}
    if need.memory_mib and not any(name in values for name in MEMORY_OPTIONS):
        asked["mem"] = f"{need.memory_mib + WORKER_MIB}M"
    if need.gpus and not any(name in values for name in GPU_OPTIONS):
        asked["gpus_per_node"] = str(math.ceil(need.gpus))
    return asked


def packs(stages: Sequence[ReadyStage], minutes: float) -> list[list[ReadyStage]]:
    """Pack stages of one shape into jobs. Short ones share a job of up to `minutes` by their estimates, or less if SPREAD jobs
    of at least a minute can share them. A stage without an estimate has its own job. Stages that need a share of a GPU run in
    parallel in a job, so their estimates count by that share."""

    def seconds(stage: ReadyStage) -> float:
        return stage.seconds * (stage.demand.gpus if 0 < stage.demand.gpus < 1 else 1.0)

    most = min(60 * minutes, max(LEAST_SECONDS, sum(map(seconds, stages)) / SPREAD))
    jobs: list[list[ReadyStage]] = []
    held = math.inf
    for stage in stages:
        if held + seconds(stage) > most or not stage.seconds:
            jobs.append([])
            held = 0.0
        jobs[-1].append(stage)
        held += seconds(stage) or math.inf
    return jobs
