"""`make verify-status`: one line for each verification report: its verdict, whether it is fresh, and why not.

A report is fresh while all modules that it covers (code_of.py) are unchanged. A stale report is not a failure; one whose verdict is
not ok is, here and in the tests. `--declare REPORT... --why TEXT` appends a declaration that the changes so far do not affect
the results of these reports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pretrain_bench.harness.planning.code_digest import PACKAGE, file_of
from tests.verification.code_of import CODE, module_hashes
from tests.verification.report import FOLDER, ROOT, commit
from tests.verification.settings import settings_hashes

DECLARED = FOLDER / "declared.yaml"
LISTED = 3
HEADER = """\
# Differences between the code that reports cover and later code which do not change what the reports state (see README.md).
# Append only: each entry's sha256 covers the entry and the one before it. Written by
#   python -m tests.verification.status --declare REPORT... --why TEXT
"""


class Declaration(NamedTuple):
    """States that these reports also hold for `modules` with these hashes (as of `commit`), with the reason `why`."""

    reports: list[str]
    commit: str
    why: str
    modules: dict[str, str]


class State(NamedTuple):
    """Whether a report covers exactly the current code, and if not, why."""

    fresh: bool
    reason: str


def read_reports() -> dict[str, dict[str, Any]]:
    """Every report by name."""
    return {name: json.loads((FOLDER / f"{name}.json").read_bytes()) for name in CODE}


def read_declarations(path: Path = DECLARED) -> list[Declaration]:
    """The declarations, oldest first. Raises ValueError if an entry does not match its hash, because it or an earlier one was edited."""
    declarations, before = [], ""
    for number, entry in enumerate(yaml.safe_load(path.read_text()) or [], 1):
        content = {k: v for k, v in entry.items() if k != "sha256"}
        if entry.get("sha256") != sealed(content, before):
            raise ValueError(
                f"{path.name}: entry {number} was edited, or one before it was: declarations are append-only"
            )
        before = entry["sha256"]
        declarations.append(
            Declaration(content["reports"], content["commit"], content["why"], content.get("modules", {}))
        )
    return declarations


def sealed(entry: Mapping[str, Any], before: str) -> str:
    """Hash of a declaration, chained to the previous one."""
    return hashlib.sha256(f"{before}{json.dumps(entry, sort_keys=True)}".encode()).hexdigest()


def declare(reports: list[str], why: str, path: Path = DECLARED) -> None:
    """Append a declaration for the current modules of these reports."""
    read_declarations(path)
    entries = yaml.safe_load(path.read_text()) or []
    hashes = {module: digest for name in reports for module, digest in module_hashes(name).items()}
    entry = {"reports": sorted(reports), "commit": commit(), "why": why, "modules": hashes}
    entry["sha256"] = sealed(entry, entries[-1]["sha256"] if entries else "")
    text = yaml.safe_dump([*entries, entry], sort_keys=False, width=120, allow_unicode=True)
    path.write_text(HEADER + text)


def state(name: str, report: Mapping[str, Any], declarations: Iterable[Declaration]) -> State:
    """Compare the code that a report covers with the current code."""
    recorded, now = report.get("modules", {}), module_hashes(name)
    changed = [m for m, digest in now.items() if recorded.get(m) != digest]
    base, reasons = report["commit"].removesuffix("-dirty"), []
    for declared in declarations:
        covered = [m for m in changed if declared.modules.get(m) == now[m]]
        if name in declared.reports and declared.modules:
            base = declared.commit
            if covered:
                first, _, _ = declared.why.partition(". ")
                reasons.append(f"declared: {first.rstrip('.')}")
                changed = [m for m in changed if m not in covered]
    if changed:
        reasons.append(f"changed since {base[:7]}: {_listed(changed, base)}")
    if "modules" in report and report.get("settings", {}) != settings_hashes(name):
        reasons.append("recipes, budget, world or probed methods changed")
    return State(not reasons, "; ".join(reasons))


def _listed(modules: list[str], base: str) -> str:
    """The first modules, each with the last commit that changed it."""
    names = []
    for module in modules[:LISTED]:
        last = _last_commit(module, base)
        names.append(f"{module} ({last})" if last else module)
    return ", ".join(names) + (f" and {len(modules) - LISTED} more" if len(modules) > LISTED else "")


def _last_commit(module: str, base: str) -> str:
    """The last commit after `base` that changed a module; "" if git does not know it (a shallow clone, an uncommitted edit)."""
    path = file_of(f"{PACKAGE}.{module}")
    assert path is not None
    command = ["git", "log", "-1", "--format=%h", f"{base}..HEAD", "--", str(path.resolve())]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def line(name: str, report: Mapping[str, Any], freshness: State) -> str:
    """One line with name, verdict, state, commit and machine of the run, and the reason."""
    machine = report["machine"]
    where = report.get("gpu") or machine["cpu"]
    torch = machine["packages"].get("torch", "no torch")
    age = "fresh" if freshness.fresh else "stale"
    text = f"{name:<16} {report['verdict']:<8} {age}  {report['commit'][:7]}  {where}, torch {torch}"
    return f"{text}  {freshness.reason}".rstrip()


def main() -> int:
    """Print the lines; returns 1 if a verification failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--declare", nargs="+", choices=CODE, metavar="REPORT")
    parser.add_argument("--why", help="why the changes do not touch what the reports say")
    options = parser.parse_args()
    if options.declare:
        if len(options.why or "") <= 20:
            parser.error("--declare needs --why, in a sentence")
        declare(options.declare, options.why)
    declarations = read_declarations()
    reports = read_reports()
    for name, report in reports.items():
        print(line(name, report, state(name, report, declarations)))
    return int(any(report["verdict"] == "failed" for report in reports.values()))


if __name__ == "__main__":
    sys.exit(main())
