"""`python -m pretrain_bench.methods.imported.command JSON` imports, checks or exports checkpoints, so that the API need not load
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
        """Report counts, place and kernel order of the import, and tensors that were not used. Raises as `import_checkpoint`, and
        as `writing` if the file cannot be written."""
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
    """Import files as the stage will, without writing anything."""

    kind: Literal["check"] = "check"
    requests: tuple[Request, ...]

    def run(self) -> dict[str, object]:
        """Report under `drawn`, for each file, the backbone tensors that it lacks. Raises as `import_checkpoint`."""
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
        """Report how many tensors were written, and which were left out and why. Raises as `export_checkpoint`, and as `writing`
        if the file cannot be written."""
        exported = export_checkpoint(self.backbone, self.network, self.format, self.partial)
        with writing(self.out, "checkpoint (--out names another file)"):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            exported.save(self.out)
        return {"written": len(exported.weights), "left_out": exported.left_out}


class _Command(Spec):
    command: Import | Check | Export = Field(discriminator="kind")


def main() -> int:
    """Run the command given as the only argument, and print its report as JSON; if it is refused, print the reason to standard
    error and return the error's exit code (2 or 3)."""
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
