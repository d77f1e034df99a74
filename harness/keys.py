"""The code digest: a hash of the files that a stage can import, so that a change elsewhere invalidates nothing."""

from __future__ import annotations

from benchmarks.errors import WrongUse
from harness.code import digest, file_of


def code_sha256(kind: str, method: str, stage: str) -> str:
    """Hash of the names and contents of the modules that one stage can reach by its imports."""
    entry = entry_module(kind, method, stage)
    if file_of(entry) is None:
        raise WrongUse(
            f"method {method!r}: its stage {stage!r} has no module {entry}; only methods that ship can run here"
        )
    return digest(("methods.stage", entry))


def entry_module(kind: str, method: str, stage: str) -> str:
    """The module that carries out a stage: the rule of `methods.stage.module_of`, which the harness cannot import."""
    return "methods.finetune.semantic" if kind == "finetune" else f"methods.{method}.{stage}"
