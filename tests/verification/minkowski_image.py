"""`make verify-minkowski-image`: MinkowskiEngine as built into an image, against the embedded engine, inside a container.

Needs a container engine, and a network for the build (10 to 20 minutes on two cores). The base image keeps MinkowskiEngine;
`bench images build` without `--minkowski` rebuilds it without. Writes docs/verification/minkowski-image.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from pretrain_bench.harness.executors.engine import connect
from pretrain_bench.harness.executors.image_build import BUILD_SECONDS, build_all
from pretrain_bench.harness.executors.image_contents import BASE, PUBLIC_BASE, BuildSettings, tag
from tests.verification.report import ROOT, write_report

WITHIN = ["python", "-m", "tests.verification.minkowski", "--print"]


def main() -> int:
    """Build, compare inside the container, and write the report; returns 1 if the build or a bound fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=PUBLIC_BASE)
    parser.add_argument("--wheels", type=Path, help="a folder with a torch wheel  [default: pip's index]")
    parser.add_argument("--torch-args", default="", help="more arguments of pip for torch")
    options = parser.parse_args()
    settings = BuildSettings(options.base, options.wheels, options.torch_args, minkowski=True)
    client = connect(timeout=BUILD_SECONDS)
    with tempfile.TemporaryDirectory() as logs:
        (built,) = build_all([BASE], settings, Path(logs), lambda image, step, steps: None)
    print(built.outcome, built.message, file=sys.stderr)
    if built.outcome == "build_failed":
        return 1
    # No network and no writable folder, as for a stage; the comparing code comes from the checkout.
    output = client.containers.run(
        tag(BASE),
        WITHIN,
        environment={"PYTHONPATH": "/repository"},
        mounts=[_checkout()],
        working_dir="/repository",
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},
        remove=True,
    )
    found = json.loads(output.decode())
    write_report(
        "minkowski-image",
        "Res16UNet34C on the embedded engine against MinkowskiEngine 0.5.4 built into the base image, inside a container, CPU, fp32",
        "ok" if found["good"] else "failed",
        bounds=found["bounds"],
        results=found["results"],
        inside=found["inside"],
        variant="cuda" if options.base == PUBLIC_BASE else "cpu",
        build_seconds=round(built.seconds),
    )
    return 0 if found["good"] else 1


def _checkout() -> object:
    from docker.types import Mount

    return Mount("/repository", str(ROOT), type="bind", read_only=True)


if __name__ == "__main__":
    sys.exit(main())
