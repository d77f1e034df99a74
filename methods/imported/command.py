"""`python -m pretrain_bench.methods.imported.command JSON` imports, checks or exports checkpoints for the API, which loads no
torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.checkpoint import KERNEL_ORDER, OWN_ORDER, PARTIAL, ExportFormat
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse, writing
from pretrain_bench.methods.imported.exporting import export_checkpoint
from pretrain_bench.methods.imported.matching import Request, import_checkpoint
from pretrain_bench.methods.training.checkpoint import save_stating


class Import(Spec):
    """Convert a file and write its backbone."""

    kind: Literal["import"] = "import"
    request: Request
    out: Path

    def run(self) -> dict[str, object]:
        imported = import_checkpoint(self.request)
        lacking = [*imported.missing, *imported.reshaped]
        statements = {KERNEL_ORDER: OWN_ORDER} | ({PARTIAL: f"{len(imported.weights)} tensors"} if lacking else {})
        with writing(self.out, "backbone (--out names another file)"):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            save_stating(imported.weights, self.out, statements)
        return {
            "transferred": len(imported.weights),
            "expected": imported.expected,
            "place": imported.place,
            "kernel_order": imported.order,
            "permuted": imported.permuted,
            "missing": imported.missing,
            "reshaped": imported.reshaped,
            "dropped": imported.dropped,
        }


class Check(Spec):
    """Read files as the stage will, and write nothing."""

    kind: Literal["check"] = "check"
    requests: tuple[Request, ...]

    def run(self) -> dict[str, object]:
        """`drawn`: for each file the tensors of the backbone that it lacks."""
        return {"drawn": [import_checkpoint(request).drawn(request.network) for request in self.requests]}


class Export(Spec):
    """Write a backbone of this project in another project's layout."""

    kind: Literal["export"] = "export"
    backbone: Path
    network: NetworkSettings
    format: ExportFormat
    out: Path
    partial: bool = False

    def run(self) -> dict[str, object]:
        exported = export_checkpoint(self.backbone, self.network, self.format, self.partial)
        with writing(self.out, "checkpoint (--out names another file)"):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            exported.save(self.out)
        return {"written": len(exported.weights), "left_out": exported.left_out}


class _Command(Spec):
    command: Import | Check | Export = Field(discriminator="kind")


def main() -> int:
    """Carry out the command in the only argument; prints its report as JSON, or why it is refused (exit code 2 or 3)."""
    try:
        if len(sys.argv) != 2:
            raise WrongUse("expected one argument, a command as JSON")
        print(json.dumps(_Command.model_validate({"command": json.loads(sys.argv[1])}).command.run()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
