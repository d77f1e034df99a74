"""JSON schemas of the interface between harness and stage (docs/contract.md).

`python -m pretrain_bench.harness.contract.schemas DIR` writes them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pretrain_bench.benchmarks.specs.method import MethodFile
from pretrain_bench.harness.contract.events import Event
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec


def schemas() -> dict[str, Any]:
    """Map file names to schemas."""
    models: dict[str, Any] = {"stage": StageSpec, "event": Event, "record": Record, "method": MethodFile}
    return {f"{name}.schema.json": TypeAdapter(model).json_schema() for name, model in models.items()}


def main() -> None:
    """Write all schemas to the folder given as argument."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
