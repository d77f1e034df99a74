"""Ends with 3 and one line where OpenBLAS, which the build of MinkowskiEngine needs, is not installed. Needs Python alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = "#include <cblas.h>\nint main(void) { return cblas_idamax(0, 0, 1) != 0; }\n"


def problem() -> str | None:
    """What is missing, with what to do; None where a program compiles and links against OpenBLAS."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return "no C++ compiler; install one (Debian: apt-get install build-essential)"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "uses_blas.cpp")
        source.write_text(PROGRAM)
        # Debian keeps the header in a folder of the architecture, which its compiler searches; others keep it in openblas/.
        command = [compiler, str(source), "-I/usr/include/openblas", "-o", str(Path(folder, "uses_blas")), "-lopenblas"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return "OpenBLAS with its headers is missing; install it (Debian: apt-get install libopenblas-dev)"


if __name__ == "__main__":
    missing = problem()
    if missing is not None:
        print(f"error: MinkowskiEngine cannot be built: {missing}; nothing was downloaded", file=sys.stderr)
        sys.exit(3)
