"""`record.json`: the result of one run of a stage. `SCHEMA_VERSION` increases with every change of meaning."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Annotated, Literal, TypeGuard

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from pretrain_bench.benchmarks.datasets.contamination import Contamination
from pretrain_bench.benchmarks.datasets.coverage import SplitCoverage
from pretrain_bench.benchmarks.specs.base import FileName, Name, Sha256, Spec, is_none
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.checkpoint import ImportedFrom
from pretrain_bench.benchmarks.specs.method import MethodCard
from pretrain_bench.harness.contract.events import Ledger
from pretrain_bench.harness.contract.stage import Kind, canonical_json

SCHEMA_VERSION = 2

RunKey = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
MetricName = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,200}$")]


class Outcome(StrEnum):
    """How a run ended; a closed list (docs/architecture.md#outcomes)."""

    ok = "ok"
    timeout = "timeout"
    oom_host = "oom_host"
    oom_gpu = "oom_gpu"
    over_budget = "over_budget"
    crashed = "crashed"
    invalid_output = "invalid_output"
    build_failed = "build_failed"
    infra_error = "infra_error"
    cancelled = "cancelled"


class Measured(Spec):
    """Resources measured by the executor, over this attempt only."""

    wall_seconds: NonNegativeFloat = 0.0
    cpu_seconds: NonNegativeFloat = 0.0
    peak_memory_bytes: NonNegativeInt = 0
    written_bytes: NonNegativeInt = 0
    output_bytes: NonNegativeInt = 0
    gpu_seconds: NonNegativeFloat = 0.0
    peak_gpu_memory_bytes: NonNegativeInt = 0
    gpu_joules: float | None = None
    """Energy of the stage's GPUs while it ran, by NVML; None if not measured."""


class ArtifactEntry(Spec):
    """One file under `artifacts/`."""

    bytes: NonNegativeInt
    sha256: Sha256


class Provenance(Spec):
    """Facts outside the key that could explain a difference. Holds no path, user name or environment variable."""

    project_version: str
    git_commit: str | None
    git_dirty: bool | None
    python: str
    packages: dict[str, str]
    platform: str
    cpu: str
    cpu_count: int
    memory_bytes: int
    machine: str
    numerics: dict[str, str] = {}


def is_commit(text: str | None) -> TypeGuard[str]:
    """Whether a record shows its commit: anonymous bundles have a shorter hash instead."""
    return text is not None and re.fullmatch(r"[0-9a-f]{40}", text) is not None


class Record(Spec):
    """One attempt at a stage."""

    schema_version: Literal[2] = 2
    key: RunKey
    kind: Kind
    method: Name
    method_card: MethodCard | None = None
    """The method's appearance in reports; None in records older than this field."""
    imported: ImportedFrom | None = Field(None, exclude_if=lambda imported: imported is None)
    """Origin of the checkpoint that the stage imported, if any."""
    stage: Name
    attempt: int
    outcome: Outcome
    message: str = ""
    stopped: str | None = None
    cell: Cell | None = None
    dataset: str | None = None
    synthetic: bool
    metrics: dict[MetricName, float | None] = {}
    coverage: SplitCoverage | None = None
    """The share of the test split behind `metrics`; None without metrics, or in records older than this field."""
    contamination: Contamination | None = Field(None, exclude_if=is_none)
    """Fine-tuning: which of its scenes the pre-training had seen; None in records older than this field."""
    stage_metrics: dict[MetricName, float | None] = {}
    ledger: Ledger = Ledger()
    measured: Measured = Measured()
    executor: str
    image: str | None = None
    label_isolation: str
    not_enforced: tuple[str, ...] = ()
    provenance: Provenance
    notes: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    artifacts: dict[FileName, ArtifactEntry] = {}
    files: dict[FileName, ArtifactEntry] = {}
    """Files beside the record that a page shows or a verdict uses: events, log, confusion matrices, code hashes. Empty in records
    older than this field."""
    left_out_scenes: tuple[Annotated[str, Field(max_length=1024)], ...] = ()
    """Prefixes of scenes of the dataset that the profile excludes; the split consists of the others."""
    parents: dict[Name, RunKey] = {}
    started_at: str
    ended_at: str
    sha256: str = ""

    def sealed(self) -> Record:
        """The same record with its own hash set."""
        return self.model_copy(update={"sha256": self.content_sha256()})

    def content_sha256(self) -> str:
        """Hash of everything except `sha256` itself."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude={"sha256"})).encode()).hexdigest()
