"""Write docs/verification/NAME.json, the report of a verification. Needs nothing but the standard library."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from pretrain_bench.harness.store.machine import cpu_name, package_version
from tests.verification.code_of import module_hashes

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs/verification"
PACKAGES = ("torch", "numpy", "MinkowskiEngine", "spconv")


def write_report(name: str, what: str, verdict: str, **content: Any) -> Path:
    """Write and print the report: commit, machine, hashes of the modules that it covers, and what was measured.

    `verdict` is ok, failed or `not run`. A machine that cannot run a verification leaves the report of one that could.
    """
    path = FOLDER / f"{name}.json"
    if verdict == "not run" and path.is_file():
        print(f"not run here: {content.get('why', '')}; {path.name} stays as it is")
        return path
    report = {
        "what": what,
        "verdict": verdict,
        **content,
        "commit": commit(),
        "modules": module_hashes(name),
        "machine": {
            "cpu": cpu_name(),
            "python": platform.python_version(),
            "packages": {p: v for p in PACKAGES if (v := package_version(p))},
        },
    }
    text = json.dumps(report, indent=1, sort_keys=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(text)
    return path


def commit() -> str:
    """The commit that is checked out, with `-dirty` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
