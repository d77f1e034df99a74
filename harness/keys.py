"""The code digest: a hash of the files that a stage can import, of the lock and of what its image is built from, so that a change
elsewhere invalidates nothing (design section 4)."""

from __future__ import annotations

import hashlib
from functools import cache

from benchmarks.errors import WrongUse
from harness.code import base_inputs, digest, docker_folder, file_of, module_hashes


@cache
def code_sha256(kind: str, method: str, part: str) -> str:
    """Hash of the names and contents of the modules that one stage can reach by its imports and of its image's own inputs, as
    they were when this process first asked. The same for every executor, so that their bits can be compared."""
    entry = entry_module(kind, method, part)
    if file_of(entry) is None:
        raise WrongUse(
            f"method {method!r}: its stage {part!r} has no module {entry}; only methods that ship can run here"
        )
    found = hashlib.sha256(digest(("methods.stage", entry)).encode())
    for name, sha256 in sorted(build_hashes(kind).items()):
        found.update(f"{name} {sha256}\n".encode())
    return found.hexdigest()


def code_hashes(kind: str, method: str, part: str) -> dict[str, str]:
    """Module or file to hash of everything that `code_sha256` covers, so that a person can be told what changed."""
    return {**module_hashes(("methods.stage", entry_module(kind, method, part))), **build_hashes(kind)}


@cache
def build_hashes(kind: str) -> dict[str, str]:
    """File to hash of what the image of a stage is built from beside its modules: Dockerfiles, lock, edits of MinkowskiEngine."""
    folder = docker_folder()
    own = "task.Dockerfile" if kind == "finetune" else "method.Dockerfile"
    files = {name: folder / name for name in ("base.Dockerfile", own)} | base_inputs()
    return {f"docker/{name}": hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def entry_module(kind: str, method: str, part: str) -> str:
    """The module that carries out a stage (`part`: see `StageSpec.part`): the rule of `methods.stage.module_of`, which the
    harness cannot import."""
    return f"methods.{'finetune' if kind == 'finetune' else method}.{part}"
