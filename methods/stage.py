"""The entry point in every image: `python -m pretrain_bench.methods.stage pretrain|features|finetune --root /bench`.

Exit codes: 0 done; 1 failed, also if stage.json cannot be read or is of another kind; 2 the input was refused before the stage
started; 130 cancelled. Except for an unusable stage.json, the end event in out/ gives the reason.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import get_args

import torch

from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse
from pretrain_bench.harness.contract.events import End
from pretrain_bench.harness.contract.method_code import import_from_folder
from pretrain_bench.harness.contract.stage import METHOD_FOLDER, Kind, StageSpec
from pretrain_bench.methods.context import CANCEL, FINISH, StageContext
from pretrain_bench.methods.training.loop import Cancelled


def main(arguments: list[str] | None = None) -> int:
    """Run one stage and return its exit code. Raises WrongUse if stage.json is invalid or of another kind."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain_bench.methods.stage", description="Run one stage of the container contract."
    )
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("--root", type=Path, default=Path("/bench"), help="where in/, data/, parents/ and out/ are")
    options = parser.parse_args(arguments)
    faulthandler.enable()  # the executor ends a hanging stage with SIGABRT, and the log then shows where it hung
    context = StageContext.open(options.root)
    if context.spec.kind != options.kind:
        raise WrongUse(f"stage.json describes a {context.spec.kind} stage, but this command runs {options.kind}")
    for number, meaning in ((signal.SIGTERM, FINISH), (signal.SIGINT, CANCEL)):
        signal.signal(number, lambda *_, meaning=meaning: setattr(context, "stop", context.stop or meaning))
    set_up_torch(context.spec)
    try:
        module = stage_module(context)
        metrics = module.run(context)
        stopped = "soft_limit" if context.stop == FINISH else None
        context.events.write(End(status="ok", stopped=stopped, metrics=metrics, notes=context.notes))
        return 0
    except Cancelled as error:
        context.events.write(End(status="cancelled", message=str(error), notes=context.notes))
        return 130
    except WrongUse as error:
        # After the start event, refused input is a failure of the run like any other.
        status, code = ("failed", 1) if context.started else ("refused", 2)
        context.events.write(End(status=status, message=str(error), notes=context.notes))
        return code
    except BenchError as error:
        context.events.write(End(status="failed", message=str(error), notes=context.notes))
        return 1
    except Exception as error:  # every failure must reach the event log; the traceback goes to log.txt
        traceback.print_exc()
        context.events.write(End(status="failed", message=f"{type(error).__name__}: {error}", notes=context.notes))
        return 1


def stage_module(context: StageContext) -> ModuleType:
    """The module whose `run(context)` executes the stage: from the user's method folder if the stage has one, else built in.

    Raises WrongUse if the module in the folder cannot be imported.
    """
    folder, spec = context.root / "in" / METHOD_FOLDER, context.spec
    if spec.kind != "pretrain" or not folder.is_dir():
        return importlib.import_module(module_of(spec))
    try:
        return import_from_folder(folder, spec.method, spec.part)
    except ImportError as error:
        raise WrongUse(f"method {spec.method!r}: {spec.part}.py cannot be imported: {error}") from error


def module_of(spec: StageSpec) -> str:
    """The name of the built-in module that executes a stage."""
    return f"pretrain_bench.methods.{spec.code_of if spec.kind == 'pretrain' else 'finetune'}.{spec.part}"


def set_up_torch(spec: StageSpec) -> None:
    """Set torch's threads, deterministic mode, precision and default seed for one stage."""
    torch.set_num_threads(spec.threads)
    torch.set_deterministic_debug_mode("warn" if spec.device == "cuda" else "error")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # fp32 means fp32 on every GPU: by default torch computes image convolutions, but no matrix products, in TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(spec.seed)


if __name__ == "__main__":
    sys.exit(main())
