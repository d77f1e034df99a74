"""Signatures of files by SSH keys, made and checked by ssh-keygen; a signature of FILE is FILE.sig."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot

NAMESPACE = "pretrain-bench"
"""The namespace of a signature, in ssh-keygen's terms."""
SUFFIX = ".sig"


def sign(path: Path, key: Path) -> None:
    """Sign a file. Raises EnvironmentCannot if ssh-keygen is missing or cannot sign with this key."""
    signature_of(path).unlink(missing_ok=True)  # ssh-keygen would ask before replacing one
    command = ["ssh-keygen", "-Y", "sign", "-q", "-f", str(key), "-n", NAMESPACE, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise EnvironmentCannot("--sign needs ssh-keygen (OpenSSH), which is not installed") from None
    if done.returncode != 0:
        raise EnvironmentCannot(f"--sign {key.name}: {done.stderr.strip() or 'ssh-keygen failed'}")


def signature_of(path: Path) -> Path:
    """The path of a file's signature."""
    return path.with_name(path.name + SUFFIX)


def signature_problem(path: Path, signers: Path, signer: str) -> str | None:
    """Why a file's signature is not that of `signer`, as listed in `signers` (ssh-keygen's allowed signers); None if it is.
    Raises EnvironmentCannot without ssh-keygen, and OSError without the file."""
    command = [
        "ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", signer, "-n", NAMESPACE, "-s", str(signature_of(path)),
    ]  # fmt: skip
    try:
        with path.open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        if error.filename == command[0]:
            raise EnvironmentCannot("ssh-keygen (OpenSSH) is not installed") from None
        raise
    return None if done.returncode == 0 else f"not by {signer}: {(done.stdout + done.stderr).strip()[:200]}"
