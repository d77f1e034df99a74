"""Check that a run's budget and profile equal those that ship under their names, and that the budget was kept."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.recipes import Recipe
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import AuditedRun, Runs, behind
from pretrain_bench.harness.audit.shipped import is_comparable, shipped
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.run_length import budget_problem
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning.recipes import finetune_recipe, stage_recipe
from pretrain_bench.harness.planning.stage_specs import TRANSFER
from pretrain_bench.harness.store.retention import BACKBONE
from pretrain_bench.harness.store.spec_reader import SharedSpec

BUDGET, PROFILE = "budget is the one that ships", "profile is the one that ships"
TINY = 1e-6
FILLED_IN = ("steps", "validate_every")
"""Recipe fields of a task that the planner computes from the training scenes if the profile leaves them unset."""


def check_budget(run: AuditedRun, runs: Runs, tally: Tally) -> None:
    """The limits are those of the shipped budget with this name and version, and were kept."""
    spec, limits = run.spec, run.spec.limits
    if run.record.outcome == Outcome.ok:
        trains_nothing = spec.data is None
        problem = budget_problem(limits, run.record.ledger, trains_nothing or run.record.stopped is not None)
        tally.expect("budget kept", problem is None, run.name, problem or "")
    budget = shipped(Budget, limits.budget)
    version = budget.version if budget else None
    if not is_comparable(BUDGET, run, f"budget {limits.budget!r}", limits.budget_version, version, tally):
        return
    assert budget is not None
    half = budget.pretrain if spec.kind == "pretrain" else budget.finetune
    given = {
        "currency": half.currency,
        "uniformity": "at_most" if spec.takes_no_step else half.uniformity,
        "schedule_horizon": budget.schedule_horizon,
        "loader_workers": half.loader_workers,
        "wall_seconds": half.wall_seconds,
    }
    share = _share(spec)
    amount = half.amount * (1.0 if share is None else share)
    differing = [
        f"{name} {getattr(limits, name)} instead of {value}"
        for name, value in given.items()
        if getattr(limits, name) != value
    ]
    # The shares of a user's method are not known, but with its backbone the whole half has been given out.
    amounts = [limits.amount, *(s.spec.limits.amount for s in behind(run, runs) or () if s.spec.kind == "pretrain")]
    if share is None and (
        sum(amounts) > amount + TINY or (BACKBONE in run.record.artifacts and sum(amounts) < amount - TINY)
    ):
        differing.append(f"amount {sum(amounts):g} of all its stages instead of {amount:g}")
    if share is not None and abs(limits.amount - amount) > TINY:
        differing.append(f"amount {limits.amount:g} instead of {amount:g}")
    text = f"{'; '.join(differing)}: {budget.name} v{budget.version} gives this stage other limits"
    tally.expect(BUDGET, not differing, run.name, text)


def _share(spec: StageSpec) -> float | None:
    """A stage's share of its budget half; None for a stage of a user's method."""
    if spec.kind != "pretrain":
        return 1.0
    method = shipped(Method, spec.code_of)
    return None if method is None else next((s.share for s in method.stages if s.name == spec.stage), 1.0)


def check_profile(run: AuditedRun, tally: Tally) -> None:
    """Network, precision, selection and recipe are those of the shipped profile with this name and version."""
    spec = run.spec
    profile = shipped(Profile, spec.profile)
    version = profile.version if profile else None
    if not is_comparable(PROFILE, run, f"profile {spec.profile!r}", spec.profile_version, version, tally):
        return
    assert profile is not None
    other = _difference(run.shared, profile.name)
    text = f"{other}: differs from profile {spec.profile!r} v{version}"
    if other is None or run.record.files:
        tally.expect(PROFILE, other is None, run.name, text)
    else:
        tally.note(PROFILE, "not checked", run.name, f"{text} of this version; recorded before profiles were compared")


@lru_cache(maxsize=1024)
def _difference(shared: SharedSpec, name: str) -> str | None:
    """The first difference between a stage and the shipped profile of this name."""
    profile = shipped(Profile, name)
    assert profile is not None
    return next(_differences(shared.spec, profile), None)


def _differences(spec: StageSpec, profile: Profile) -> Iterator[str]:
    """The fields, with values, in which a stage differs from its profile."""
    if spec.network != profile.network:
        yield f"network {_changed(spec.network.model_dump(), profile.network.model_dump())}"
    if spec.precision != profile.precision:
        yield f"precision {spec.precision}"
    if spec.kind == "finetune" and spec.selection != profile.selection:
        yield f"selection {spec.selection}"
    if spec.kind == "finetune" and spec.probe != profile.probes.of(spec.protocol):
        yield f"probe {spec.probe}"
    if spec.kind == "features":
        shared = profile.probes.linear.features.model_dump(mode="json")
        recorded = {name: (spec.recipe or {}).get(name) for name in shared}
        if recorded != shared:
            yield f"recipe {_changed(recorded, shared)}"
    try:
        expected = _expected_recipe(spec, profile)
        if expected is None:
            return
        actual = type(expected).model_validate(spec.recipe)
    except (BenchError, ValidationError) as error:
        yield f"recipe: {str(error).splitlines()[0]}"
        return
    ours = expected.model_dump(mode="json", exclude={TRANSFER})
    theirs = actual.model_dump(mode="json", exclude={TRANSFER})
    if spec.kind == "finetune":
        ours |= {name: theirs[name] for name in FILLED_IN if ours.get(name) is None and name in theirs}
    if ours != theirs:
        yield f"recipe {_changed(theirs, ours)}"


def _expected_recipe(spec: StageSpec, profile: Profile) -> Recipe | None:
    """The recipe of a stage under a profile; None for a stage without a recipe, or of a user's method or task. Raises WrongUse
    for a stage or field that the method does not have."""
    if spec.kind == "finetune":
        task = shipped(Task, spec.task)
        return None if task is None else finetune_recipe(profile, task)
    method = shipped(Method, spec.code_of)
    stage = next((s for s in method.stages if s.name == spec.stage), None) if method else None
    if method is None or stage is None:
        return None
    followed = {name: (spec.recipe or {}).get(name) for name in spec.from_task if name in stage.from_task}
    return stage_recipe(method, stage, profile, followed)


def _changed(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    names = [n for n in sorted({*theirs, *ours}) if theirs.get(n) != ours.get(n)]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]} {theirs.get(names[0])} instead of {ours.get(names[0])}{more}"
