"""Does pre-training help a 3D network, by how much, and how sure are we? Equal budgets, recorded runs, honest numbers.

    import pretrain_bench as pb

    plan = pb.plan(pb.suite("tiny"), runs="runs")
    pb.run(pb.cells(methods=["ours", "scratch"], tasks=["s3dis-sem"], budget="smoke"), runs="runs")
    frame = pb.load_runs("runs")
    pb.report("runs", out="report")
    pb.audit("runs").failed

Each name is loaded when it is first used (PEP 562): importing this package imports nothing else of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain_bench.api.advice import next_steps
    from pretrain_bench.api.auditing import Audit, PackedBundle, audit, pack_bundle, unpack_bundle
    from pretrain_bench.api.checkpoints import (
        ExportedCheckpoint,
        ImportedCheckpoint,
        export_checkpoint,
        import_checkpoint,
    )
    from pretrain_bench.api.cleaning import Removed, clean, withdraw
    from pretrain_bench.api.data import (
        DataCounts,
        count_data,
        dataset,
        list_datasets,
        prepare_data,
        preview_data,
        subset_data,
        verify_data,
        verify_source,
        write_synthetic,
    )
    from pretrain_bench.api.deciding import Look, run_until_decided
    from pretrain_bench.api.display import Display, LineDisplay, Progressed, Silent, TqdmDisplay
    from pretrain_bench.api.doctor import Diagnosis, doctor, doctor_of_worker
    from pretrain_bench.api.errors import BenchError, DataError, EnvironmentCannot, WrongUse
    from pretrain_bench.api.features import draw_features
    from pretrain_bench.api.images import (
        ImageState,
        LockedBases,
        Pruned,
        build_images,
        list_images,
        lock_bases,
        prune_images,
    )
    from pretrain_bench.api.methods import check_method, list_methods
    from pretrain_bench.api.own_data import FolderDescription, InitialFiles, describe_data, holds_originals, init_data
    from pretrain_bench.api.places import Detached, Where, detach
    from pretrain_bench.api.planning import Plan, plan
    from pretrain_bench.api.power import Power, power, power_of_plan
    from pretrain_bench.api.reporting import compare, keys_of_suite, report, watch_runs
    from pretrain_bench.api.running import RunResult, StageRow, run
    from pretrain_bench.api.runs import RUN_COLUMNS, ListedRun, Run, find_run, iterate_runs, list_runs, load_runs
    from pretrain_bench.api.scenes import draw_scene, tested_scenes
    from pretrain_bench.api.settings import Settings
    from pretrain_bench.api.sizing import fitting_budget
    from pretrain_bench.api.specs import ExplainedField, explain, list_specs
    from pretrain_bench.api.status import CommandProgress, StageUnderWay, Status, status
    from pretrain_bench.api.stores import open_runs, unreadable_runs
    from pretrain_bench.api.suites import cells, list_suites, suite
    from pretrain_bench.api.version import __version__
    from pretrain_bench.benchmarks.datasets.layout import Manifest
    from pretrain_bench.benchmarks.specs.dataset import Dataset
    from pretrain_bench.benchmarks.specs.method import Method
    from pretrain_bench.benchmarks.specs.suite import Suite
    from pretrain_bench.harness.audit.findings import Finding
    from pretrain_bench.harness.executors.image_build import Built
    from pretrain_bench.harness.planning.plan import StageState, Total
    from pretrain_bench.harness.planning.prepared_data import PreparedDataset
    from pretrain_bench.harness.running.conformance import CheckResult
    from pretrain_bench.harness.running.stage_runner import StageReport
    from pretrain_bench.reports.build import BuiltReport
    from pretrain_bench.reports.comparison import Comparison

_MODULES = {
    "advice": ("next_steps",),
    "auditing": ("Audit", "PackedBundle", "audit", "pack_bundle", "unpack_bundle"),
    "checkpoints": ("ExportedCheckpoint", "ImportedCheckpoint", "export_checkpoint", "import_checkpoint"),
    "cleaning": ("Removed", "clean", "withdraw"),
    "data": (
        "DataCounts", "count_data", "dataset", "list_datasets", "prepare_data", "preview_data", "subset_data", "verify_data",
        "verify_source", "write_synthetic",
    ),
    "display": ("Display", "LineDisplay", "Progressed", "Silent", "TqdmDisplay"),
    "doctor": ("Diagnosis", "doctor", "doctor_of_worker"),
    "errors": ("BenchError", "DataError", "EnvironmentCannot", "WrongUse"),
    "features": ("draw_features",),
    "images": ("ImageState", "LockedBases", "Pruned", "build_images", "list_images", "lock_bases", "prune_images"),
    "methods": ("check_method", "list_methods"),
    "deciding": ("Look", "run_until_decided"),
    "own_data": ("FolderDescription", "InitialFiles", "describe_data", "holds_originals", "init_data"),
    "places": ("Detached", "Where", "detach"),
    "planning": ("Plan", "plan"),
    "power": ("Power", "power", "power_of_plan"),
    "reporting": ("compare", "keys_of_suite", "report", "watch_runs"),
    "running": ("RunResult", "StageRow", "run"),
    "runs": ("RUN_COLUMNS", "ListedRun", "Run", "find_run", "iterate_runs", "list_runs", "load_runs"),
    "scenes": ("draw_scene", "tested_scenes"),
    "settings": ("Settings",),
    "sizing": ("fitting_budget",),
    "specs": ("ExplainedField", "explain", "list_specs"),
    "status": ("CommandProgress", "StageUnderWay", "Status", "status"),
    "stores": ("open_runs", "unreadable_runs"),
    "suites": ("cells", "list_suites", "suite"),
    "version": ("__version__",),
}  # fmt: skip
_TYPES = {
    "benchmarks.datasets.layout": ("Manifest",),
    "benchmarks.specs.dataset": ("Dataset",),
    "benchmarks.specs.method": ("Method",),
    "benchmarks.specs.suite": ("Suite",),
    "harness.audit.findings": ("Finding",),
    "harness.executors.image_build": ("Built",),
    "harness.planning.plan": ("StageState", "Total"),
    "harness.planning.prepared_data": ("PreparedDataset",),
    "harness.running.conformance": ("CheckResult",),
    "harness.running.stage_runner": ("StageReport",),
    "reports.build": ("BuiltReport",),
    "reports.comparison": ("Comparison",),
}  # fmt: skip
"""What functions of the API take or return and other rooms define."""
_HOMES = {name: f"{__name__}.api.{module}" for module, names in _MODULES.items() for name in names}
_HOMES |= {name: f"{__name__}.{module}" for module, names in _TYPES.items() for name in names}

__all__ = [
    "RUN_COLUMNS",
    "Audit",
    "BenchError",
    "Built",
    "BuiltReport",
    "CheckResult",
    "CommandProgress",
    "Comparison",
    "DataCounts",
    "DataError",
    "Dataset",
    "Detached",
    "Diagnosis",
    "Display",
    "EnvironmentCannot",
    "ExplainedField",
    "ExportedCheckpoint",
    "Finding",
    "FolderDescription",
    "ImageState",
    "ImportedCheckpoint",
    "InitialFiles",
    "LineDisplay",
    "ListedRun",
    "LockedBases",
    "Look",
    "Manifest",
    "Method",
    "PackedBundle",
    "Plan",
    "Power",
    "PreparedDataset",
    "Progressed",
    "Pruned",
    "Removed",
    "Run",
    "RunResult",
    "Settings",
    "Silent",
    "StageReport",
    "StageRow",
    "StageState",
    "StageUnderWay",
    "Status",
    "Suite",
    "Total",
    "TqdmDisplay",
    "Where",
    "WrongUse",
    "__version__",
    "audit",
    "build_images",
    "cells",
    "check_method",
    "clean",
    "compare",
    "count_data",
    "dataset",
    "describe_data",
    "detach",
    "doctor",
    "doctor_of_worker",
    "draw_features",
    "draw_scene",
    "explain",
    "export_checkpoint",
    "find_run",
    "fitting_budget",
    "holds_originals",
    "import_checkpoint",
    "init_data",
    "iterate_runs",
    "keys_of_suite",
    "list_datasets",
    "list_images",
    "list_methods",
    "list_runs",
    "list_specs",
    "list_suites",
    "load_runs",
    "lock_bases",
    "next_steps",
    "open_runs",
    "pack_bundle",
    "plan",
    "power",
    "power_of_plan",
    "prepare_data",
    "preview_data",
    "prune_images",
    "report",
    "run",
    "run_until_decided",
    "status",
    "subset_data",
    "suite",
    "tested_scenes",
    "unpack_bundle",
    "unreadable_runs",
    "verify_data",
    "verify_source",
    "watch_runs",
    "withdraw",
    "write_synthetic",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a name of the API when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
