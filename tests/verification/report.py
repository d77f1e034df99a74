"""What a verification leaves behind: docs/verification/NAME.json. Needs nothing but the standard library."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from pretrain_bench.harness.planning.code_digest import digest
from pretrain_bench.harness.store.machine import cpu_name, package_version

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs/verification"
PACKAGES = ("torch", "numpy", "MinkowskiEngine", "spconv")


def write_report(name: str, what: str, verdict: str, code_of: tuple[str, ...], **content: Any) -> Path:
    """Write and print the report: commit, machine, code digest, and what was measured.

    `verdict` is ok, failed or `not run`; `code_of` are the modules that the result depends on, with all that they import.
    """
    report = {
        "what": what,
        "verdict": verdict,
        **content,
        "commit": _commit(),
        "code_of": sorted(code_of),
        "code_sha256": digest(code_of),
        "machine": {
            "cpu": cpu_name(),
            "python": platform.python_version(),
            "packages": {p: v for p in PACKAGES if (v := package_version(p))},
        },
    }
    text = json.dumps(report, indent=1, sort_keys=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(text + "\n")
    print(text)
    return path


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
