"""Findings of an audit, their verdicts, and their one-sentence summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Verdict = Literal["ok", "failed", "warning", "not checked"]
SEVERITY: dict[Verdict, int] = {"failed": 1, "warning": 4, "not checked": 5, "ok": 0}
"""Verdict to exit code, worst first. Warnings and unchecked items count only on request (`--strict`)."""
BEYOND_A_STORE = "no store can show omitted runs (--registered can) or made-up predictions (--rerun can)"


class Finding(NamedTuple):
    """One check of one thing. `subject` is a run (`finetune/KEY`), a group of runs, or the store."""

    check: str
    verdict: Verdict
    subject: str
    detail: str


class Tally:
    """Collects findings; checks that hold are only counted."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.held: dict[str, int] = {}

    def expect(self, check: str, holds: bool, subject: str, detail: str) -> bool:
        """Count a check that holds, keep a finding for one that fails."""
        if holds:
            self.held[check] = self.held.get(check, 0) + 1
        else:
            self.findings.append(Finding(check, "failed", subject, detail))
        return holds

    def note(self, check: str, verdict: Verdict, subject: str, detail: str) -> None:
        """Keep a finding with a verdict other than plain ok or failed."""
        self.findings.append(Finding(check, verdict, subject, detail))

    def add(self, other: Tally) -> None:
        """Add everything from another tally."""
        self.findings += other.findings
        for check, number in other.held.items():
            self.held[check] = self.held.get(check, 0) + number

    def all(self) -> list[Finding]:
        """All findings: failures first, then the rest, then one line for each check that held."""
        order = list(SEVERITY)
        failed = {f.check for f in self.findings if f.verdict == "failed"}
        held = [
            Finding(check, "ok", "others" if check in failed else "all", str(number))
            for check, number in self.held.items()
        ]
        return sorted([*self.findings, *held], key=lambda f: order.index(f.verdict))


def exit_code(findings: Iterable[Finding], strict: bool) -> int:
    """1 if a check failed; with `strict` 4 for warnings, or 5 for checks that were not possible; else 0."""
    verdicts = {f.verdict for f in findings}
    counted: Sequence[Verdict] = list(SEVERITY) if strict else ["failed"]
    return next((SEVERITY[v] for v in counted if v in verdicts), 0)


def summary(findings: Sequence[Finding], runs: int) -> str:
    """The verdict of an audit of `runs` runs in one sentence, with the limits of any audit of a store."""
    checks = {v: sorted({f.check for f in findings if f.verdict == v}) for v in SEVERITY}
    of = "this run" if runs == 1 else f"these {runs:,} runs"
    if checks["failed"]:
        others = f" and {len(checks['failed']) - 1} more" if len(checks["failed"]) > 1 else ""
        return f"Do not rely on {of}: {checks['failed'][0]!r}{others} does not hold."
    if not runs:
        return "No run could be audited."
    parts = [f"Nothing contradicts {of}"]
    if checks["warning"]:
        parts.append(f"{_count(checks['warning'])} worth knowing")
    if checks["not checked"]:
        parts.append(f"{_count(checks['not checked'])} could not be checked")
    return f"{'; '.join([*parts, BEYOND_A_STORE])}."


def _count(checks: Sequence[str]) -> str:
    return f"1 thing ({checks[0]})" if len(checks) == 1 else f"{len(checks)} things ({checks[0]}, ...)"
