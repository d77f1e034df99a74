"""Exits with code 3 and one line if OpenBLAS, which building MinkowskiEngine needs, is not installed. Needs only Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = "#include <cblas.h>\nint main(void) { return cblas_idamax(0, 0, 1) != 0; }\n"


def problem() -> str | None:
    """The missing part, with advice; None if a program compiles and links against OpenBLAS."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return "no C++ compiler; install one (Debian: apt-get install build-essential)"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "uses_blas.cpp")
        source.write_text(PROGRAM)
        # Debian has the header in an architecture folder that its compiler searches; other systems in openblas/.
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
