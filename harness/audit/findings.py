"""Findings of an audit."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal["ok", "failed", "warning", "not checked"]


class Finding(NamedTuple):
    """One check of one thing. `subject` is a run (`finetune/KEY`), a group of runs, or the store."""

    check: str
    verdict: Verdict
    subject: str
    detail: str


class Tally:
    """Collects findings; of checks that hold only the number is kept."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.held: dict[str, int] = {}

    def expect(self, check: str, holds: bool, subject: str, detail: str) -> bool:
        """Count a check that holds, keep one that fails."""
        if holds:
            self.held[check] = self.held.get(check, 0) + 1
        else:
            self.findings.append(Finding(check, "failed", subject, detail))
        return holds

    def note(self, check: str, verdict: Verdict, subject: str, detail: str) -> None:
        """Keep a finding that is neither a simple ok nor failed."""
        self.findings.append(Finding(check, verdict, subject, detail))

    def all(self) -> list[Finding]:
        """All findings: failures first, then the rest, then one line for each check that held."""
        order = {"failed": 0, "warning": 1, "not checked": 2, "ok": 3}
        held = [
            Finding(check, "ok", "all" if not self._fails(check) else "others", str(number))
            for check, number in self.held.items()
        ]
        return sorted([*self.findings, *held], key=lambda f: order[f.verdict])

    def _fails(self, check: str) -> bool:
        return any(f.check == check and f.verdict == "failed" for f in self.findings)
