"""Look up the spec that ships under a name, and decide whether a record's version of it is comparable."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.store.machine import project_version

SpecT = TypeVar("SpecT", bound=Spec)


@cache
def shipped(kind: type[SpecT], name: str | None) -> SpecT | None:
    """The spec that ships under a name; None if there is none."""
    if name is None or name not in available(kind):
        return None
    try:
        return find(kind, name)
    except BenchError:
        return None


def is_comparable(check: str, run: AuditedRun, what: str, claimed: int, ours: int | None, tally: Tally) -> bool:
    """Whether the item a record names (`what`, such as "budget 'smoke'") in version `claimed` is comparable with the shipped
    version `ours`; otherwise notes why. A version that this release never had is a failure."""
    if ours is None:
        tally.note(check, "not checked", run.name, f"{what} is the user's own")
        return False
    if claimed == ours:
        return True
    made_by, here = run.record.provenance.project_version, project_version()
    text = f"{what} v{claimed}, but v{ours} here"
    if claimed > ours and made_by == here:
        tally.expect(
            check, False, run.name, f"{text}, and version {here} of this project, which made the run, has no other"
        )
    elif claimed > ours:
        tally.note(check, "warning", run.name, f"{text}: made by another version ({made_by}), or invented")
    else:
        tally.note(check, "not checked", run.name, text)
    return False
