"""Write docs/verification/NAME.json, the report of a verification. Needs only the standard library."""

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
    """Write and print the report: commit, machine, hashes of the covered modules, and measurements.

    `verdict` is ok, failed or `not run`. With `not run`, the report of a machine that could run the verification is kept.
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
    """The commit that is checked out, with the suffix `-dirty` if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
