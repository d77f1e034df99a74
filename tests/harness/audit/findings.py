"""Audits on the command line, and their findings."""

from __future__ import annotations

import json

from tests.conftest import Bench


def audit(bench: Bench, *arguments: str, code: int = 0) -> list[dict[str, str]]:
    return json.loads(bench("audit", *arguments, "--json", code=code).stdout)


def failures(findings: list[dict[str, str]]) -> set[str]:
    """The checks that failed."""
    return {f["check"] for f in findings if f["verdict"] == "failed"}
