"""Size of a run against machine and data: the default budget, refusals, and the estimate before it starts."""

from __future__ import annotations

from collections.abc import Iterable

from pretrain_bench.api.display import about, duration
from pretrain_bench.api.settings import Settings, resolve
from pretrain_bench.api.suites import Names, cells
from pretrain_bench.benchmarks.specs.rates import Rates
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.plan import StageState, Total
from pretrain_bench.harness.planning.resolved_suite import ResolvedSuite
from pretrain_bench.harness.running.capacity import Capacity, demand

FULL, SMALL = "uniform", "smoke"
"""Default budgets of `bench run`: with data and a GPU, and otherwise."""


def fitting_budget(methods: Names, tasks: Names, settings: Settings, on: str | None = None) -> tuple[str, list[str]]:
    """The budget of a command that names none, and lines that say why: `uniform` with a GPU and data for each task,
    else `smoke`. A plan `on` another machine (see `plan`) assumes that the data are present.

    Raises WrongUse for unknown names, EnvironmentCannot for a device that this machine lacks.
    """
    if on is not None:
        budget = FULL if find(Rates, on).device == "cuda" else SMALL
        return budget, [f"budget {budget}, which `bench run` takes on such a machine; --budget names another"]
    resolved = resolve(cells(methods, tasks, budget=FULL), (), settings)
    without = task_stand_ins(resolved)
    lacks = ["no GPU"] * (resolved.machine.device == "cpu") + [f"no data of {name}" for name in without]
    if not lacks:
        return FULL, []
    options = " ".join(f"--data {name}=DIR" for name in without)
    if any(m.needs.data for m in resolved.methods.values()):
        options += "".join(f" --pretrain-data {name}=DIR" for name in pretrain_stand_ins(resolved))
    place = " on a machine with a GPU" if resolved.machine.device == "cpu" else ""
    return SMALL, [
        f"budget {SMALL}, which takes minutes, because there is {' and '.join(lacks)}; "
        "its numbers only show that the pipeline runs",
        f"for real numbers add {options.strip()}{place}" if options.strip() else f"for real numbers run it{place}",
    ]


def check_fit(resolved: ResolvedSuite, synthetic: bool, on_cpu: bool) -> None:
    """Raises WrongUse for a GPU-sized budget on generated data (unless `synthetic`) or on a CPU (unless `on_cpu`), and
    for fine-tuning on real data after pre-training on a stand-in (unless `synthetic`)."""
    budget, without = resolved.budget.name, task_stand_ins(resolved)
    pretrain_without = pretrain_stand_ins(resolved)
    tasks_are_real = any(
        not resolved.sources.dataset(resolved.names[t.dataset]).synthetic for t in resolved.tasks.values()
    )
    if pretrain_without and tasks_are_real and not synthetic:
        raise WrongUse(
            f"--pretrain-data is missing: the tasks have real data, but methods would be pre-trained on a generated stand-in of "
            f"{pretrain_without[0]}; give --pretrain-data {pretrain_without[0]}=DIR, or --synthetic to allow it"
        )
    if not resolved.budget.pretrain.gpus:
        return
    stand_ins = list(dict.fromkeys([*without, *pretrain_without]))
    if stand_ins and not synthetic:
        roots = " ".join(f"--data {name}=DIR" for name in stand_ins)
        small = "a budget that fits generated data (--budget smoke or tiny)"
        smaller = small if resolved.suite.name == "cells" else "a suite that fits generated data (--suite smoke)"
        raise WrongUse(
            f"budget {budget!r} is sized for real data, and there are none of {', '.join(stand_ins)}; give their folders "
            f"({roots}), {smaller}, or --synthetic to run it on generated data"
        )
    if resolved.machine.device == "cpu" and not on_cpu:
        raise WrongUse(
            f"budget {budget!r} is sized for a GPU, and this machine has none; on a CPU it takes weeks; the suites smoke "
            "and tiny fit a CPU, and --device cpu runs this one anyway"
        )


def task_stand_ins(resolved: ResolvedSuite) -> list[str]:
    """Datasets of tasks that have no data here, so that generated ones stand in."""
    return _stand_ins(resolved, (task.dataset for task in resolved.tasks.values()))


def pretrain_stand_ins(resolved: ResolvedSuite) -> list[str]:
    """Pre-training datasets that have no data here; none where no method needs any."""
    if not any(method.needs.data for method in resolved.methods.values()):
        return []
    return _stand_ins(resolved, resolved.suite.pretrain_datasets)


def _stand_ins(resolved: ResolvedSuite, datasets: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(datasets) if resolved.names.get(name, name) != name]


def estimate_line(left: list[StageState]) -> str:
    """`5 stages to run, about 3 min one after the other (1 to 7 min)`."""
    total = Total.of(left)
    stages = "1 stage" if total.stages == 1 else f"{total.stages:,} stages"
    return f"{stages} to run, {about(total.seconds)} one after the other ({time_range(total)})"


def line_on_workers(left: Iterable[StageState], capacity: Capacity, workers: int) -> str | None:
    """A line that says why fewer than `workers` of these stages run in parallel on this machine; None if that many fit."""
    holds = {need: capacity.holds(need) for need in {demand(stage.planned, capacity) for stage in left}}
    at_once = max(holds.values(), default=workers)
    if at_once >= workers:
        return None
    smallest = max(holds, key=holds.__getitem__)
    parts = [
        f"{smallest.cpus} of {capacity.cpus} processors (threads and loader workers)",
        f"{smallest.memory_mib / 1024:.1f} of {capacity.memory_mib / 1024:.1f} GiB",
    ]
    if smallest.gpus:
        parts.append(f"{smallest.gpus:g} of {len(capacity.gpus)} GPUs")
    return f"at most {at_once} at a time, not {workers}: each uses {', '.join(parts)}"


def time_range(total: Total) -> str:
    """`1.5 to 7.0 h`, `40 s to 3 min`, `<1 s`."""
    low, high = duration(total.low), duration(total.high)
    unit = f" {high.split()[1]}"
    if low == high:
        return high
    return f"{low.removesuffix(unit)} to {high}"
