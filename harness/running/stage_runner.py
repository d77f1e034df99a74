"""Runs one stage, or the stages of one cell: reuse what is done, run the rest, record everything."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes
from pretrain_bench.benchmarks.specs.budget import Currency
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, WrongUse, cannot_write
from pretrain_bench.harness.contract.events import EVENTS_FILE, End, Ledger, Start, Step, Usage, Warn, drop_end
from pretrain_bench.harness.contract.records import Measured, Outcome, Record
from pretrain_bench.harness.contract.stage import SHAPES_FILE, STAGE_FILE, WEIGHTS_FILE, StageSpec
from pretrain_bench.harness.executors.base import Allocation, Execution, Executor, Stop
from pretrain_bench.harness.executors.disk_quota import recover
from pretrain_bench.harness.executors.local import end_left_over_child
from pretrain_bench.harness.planning.code_digest import code_hashes
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.validate import (
    Confusion,
    InvalidOutput,
    check_plain,
    check_pretrain,
    disagreement,
    drop_special_files,
    score_finetune,
)
from pretrain_bench.harness.store.provenance import provenance
from pretrain_bench.harness.store.retention import pruned
from pretrain_bench.harness.store.store import LOG, Store, hash_artifacts, is_done

MIN_FREE_BYTES = 16 << 20
LOG_TAIL_LINES = 5
MAX_TEXT = 4000
MAX_ITEMS = 100
REFUSED = 2
PAUSE_SECONDS = 2.0

Retry = Literal["none", "infra", "failed"]
"""What runs again: nothing that has ended; what the machine broke off (infra_error), once by itself; and what failed."""


class Cancelled(BenchError):
    """A person stopped the run; what is complete is kept."""


class InfraError(EnvironmentCannot):
    """The machine, not the stage, broke a run off; it may be tried again."""


class Display(Protocol):
    """Shows a person what goes on."""

    def say(self, message: str) -> None:
        """One line."""

    def stage(self, title: str) -> Callable[[object], None]:
        """A running stage begins; returns what takes its events."""

    def stage_ended(self, shown: Callable[[object], None]) -> None:
        """The stage whose events `shown` takes has ended."""


class RunOptions(NamedTuple):
    """What a person wants of every stage of a command."""

    retry: Retry = "infra"
    imagenet_weights: Path | None = None


class StageReport(NamedTuple):
    """What became of a stage in this command: its record, and whether it was there before."""

    planned: PlannedStage
    record: Record
    reused: bool


def run_chain(
    chain: list[PlannedStage], store: Store, executor: Executor, display: Display, options: RunOptions
) -> list[StageReport]:
    """Run the stages of one cell in order, up to the first that fails. Raises as `run_stage`."""
    reports: list[StageReport] = []
    for planned in chain:
        reports.append(
            run_stage(planned, store, executor, display, options, Allocation(Stop()), planned is not chain[-1])
        )
        if reports[-1].record.outcome != Outcome.ok:
            break
    return reports


def reusable_record(planned: PlannedStage, store: Store, retry: Retry, with_artifacts: bool = False) -> Record | None:
    """The record of a stage that is not to run again; `with_artifacts` where another one is to read what it left, which may
    have been pruned."""
    record = store.record(planned.spec.kind, planned.spec.key)
    if record is not None and with_artifacts and pruned(store.folder(planned.spec.kind, planned.spec.key)):
        return None
    if record is None and retry == "none":
        record = store.last_attempt(planned.spec.key)
        return record if record is not None and record.outcome == Outcome.infra_error else None
    return record if record is not None and (is_done(record) or retry != "failed") else None


def run_stage(
    planned: PlannedStage,
    store: Store,
    executor: Executor,
    display: Display,
    options: RunOptions,
    allocation: Allocation,
    with_artifacts: bool = False,
) -> StageReport:
    """Run one stage whose parents are done, or find that it was done before.

    What the machine broke off is tried once more. Raises Cancelled after Ctrl-C, WrongUse where the stage refuses its input,
    EnvironmentCannot for a disk that is full, a store that cannot be written or an engine that does not answer. In all these
    cases the store is whole, and the same command goes on from there.
    """
    try:
        for again in (options.retry != "none", False):
            try:
                return _run_or_reuse(planned, store, executor, display, options, allocation, with_artifacts)
            except InfraError:
                if not again or allocation.stop.asked:
                    raise
                time.sleep(PAUSE_SECONDS)
    except OSError as error:
        raise cannot_write(store.root, error, planned.title) from error
    raise AssertionError("unreachable")


def _run_or_reuse(
    planned: PlannedStage,
    store: Store,
    executor: Executor,
    display: Display,
    options: RunOptions,
    allocation: Allocation,
    with_artifacts: bool,
) -> StageReport:
    spec = planned.spec
    if record := reusable_record(planned, store, options.retry, with_artifacts):
        return StageReport(planned, record, reused=True)
    with store.lock(
        spec.key, lambda who: display.say(f"{planned.title}: waiting for {who}, which runs this stage")
    ) as partial:
        # Another process may have finished it while this one waited.
        if record := reusable_record(planned, store, options.retry, with_artifacts):
            store.drop_partial(spec.key)
            return StageReport(planned, record, reused=True)
        end_left_over_child(partial)
        record = _Attempt(planned, store, executor, partial).run(display, options.imagenet_weights, allocation)
    return StageReport(planned, record, reused=False)


class _Attempt:
    """One run of one stage, from its folder to its record."""

    def __init__(self, planned: PlannedStage, store: Store, executor: Executor, partial: Path) -> None:
        self.planned, self.store, self.executor, self.partial = planned, store, executor, partial
        self.spec = planned.spec
        self.root = partial / "root"
        self.number = store.next_attempt(self.spec)
        self.started = _now()
        self.numerics: dict[str, str] = {}
        self.ledger = Ledger()
        self.warnings: list[str] = []
        self.end: End | None = None
        self.confusion: Confusion = {}
        self.last_step, self.begun = 0, False

    def run(self, display: Display, weights: Path | None, allocation: Allocation) -> Record:
        """Lay out, execute, judge, record."""
        parents = {s: self.store.folder("pretrain", k) / "artifacts" for s, k in self.spec.parents.items()}
        recover(self.root / "out")
        lay_out(self.root, self.planned, parents, weights)
        show = display.stage(self.planned.title)

        def on_event(event: object) -> None:
            self._note(event)
            show(event)

        try:
            execution = self.executor.run(
                self.root, self.spec, self.planned.caps, self.partial / LOG, on_event, allocation
            )
        except EnvironmentCannot as error:
            self._broken_off(Execution(-1, None, False, Measured()), str(error))
            raise InfraError(str(error)) from error
        finally:
            display.stage_ended(show)
        outcome, message, metrics = self._judge(execution)
        refused = execution.killed_by is None and execution.returncode == REFUSED and not self.begun
        if refused and self.end is not None and self.end.status == "refused":
            if not (self.partial / "attempts").is_dir():
                self.store.drop_partial(self.spec.key)
            raise WrongUse(f"{self.planned.title}: {self.end.message}")
        if outcome == Outcome.infra_error:
            self._broken_off(execution, message)
            raise EnvironmentCannot(message)
        record = self._record(execution, outcome, message, metrics)
        if outcome == Outcome.cancelled:
            self.store.keep_attempt(record)
            raise Cancelled(f"{self.planned.title}: cancelled; the same command goes on from its last checkpoint")
        own = self.planned.own_code
        code = {} if own else code_hashes(self.spec.kind, self.spec.method, self.spec.part)
        self.store.complete(self.spec, record, code, self.confusion)
        return record

    def _broken_off(self, execution: Execution, message: str) -> None:
        """Keep the record of an attempt that the machine broke off; on a full disk there may be no room for it."""
        with contextlib.suppress(OSError):
            self.store.keep_attempt(self._record(execution, Outcome.infra_error, message, {}))

    def _note(self, event: object) -> None:
        if isinstance(event, Start):
            self.begun, self.last_step = True, event.resumed_from
            self.numerics = clean_items(event.numerics)
        elif isinstance(event, Step):
            self.last_step = max(self.last_step, event.step)
        elif isinstance(event, Usage):
            self.ledger = event.ledger
        elif isinstance(event, Warn):
            self._warn(fit_to_keep(event.message))
        elif isinstance(event, End):
            self.end = event

    def _warn(self, message: str) -> None:
        """Keep a warning, once, and no more than MAX_ITEMS of them."""
        if message not in self.warnings and len(self.warnings) <= MAX_ITEMS:
            self.warnings.append(message if len(self.warnings) < MAX_ITEMS else "there were more warnings")

    def _judge(self, execution: Execution) -> tuple[Outcome, str, dict[str, float | None]]:
        end, message = self.end, self.end.message if self.end else ""
        killed = {
            "cancel": Outcome.cancelled,
            "memory": Outcome.oom_host,
            "disk": Outcome.over_budget,
            "wall": Outcome.timeout,
        }
        if execution.killed_by is not None:
            return killed[execution.killed_by], f"stopped by its {execution.killed_by} limit", {}
        if execution.returncode == 0 and end is not None and end.status == "ok":
            if wrong := self._wrong_account():
                return wrong
            try:
                return Outcome.ok, message, self._accept()
            except InvalidOutput as error:
                return Outcome.invalid_output, str(error), {}
        if shutil.disk_usage(self.store.root).free < MIN_FREE_BYTES:
            return (
                Outcome.infra_error,
                f"{self.store.root}: the disk is full; free some space and run the command again",
                {},
            )
        if execution.soft_limited:
            return Outcome.timeout, message or "the time limit came before the stage could save anything", {}
        if "CUDA out of memory" in message:
            return Outcome.oom_gpu, message, {}
        if "MemoryError" in message or "can't allocate memory" in message:
            return Outcome.oom_host, message, {}
        if execution.returncode == 0:
            return Outcome.invalid_output, "the stage exited 0 without an end event", {}
        if not message:
            how = f"signal {-execution.returncode}" if execution.returncode < 0 else f"exit code {execution.returncode}"
            message = f"the stage ended by {how}; last lines of its log: {log_tail(self.partial / LOG)}"
        return Outcome.crashed, message, {}

    def _wrong_account(self) -> tuple[Outcome, str, dict[str, float | None]] | None:
        """A stage whose own account does not hold: it took more steps than it says, or more than its budget allows."""
        told, counted, limits = self.last_step, self.ledger.optimizer_steps, self.spec.limits
        if told > counted:
            return Outcome.invalid_output, f"its ledger says {counted} steps, its events go to step {told}", {}
        if limits.currency == Currency.optimizer_steps and counted > limits.amount:
            return Outcome.over_budget, f"{counted} steps, budget {limits.budget!r} allows {limits.amount:g}", {}
        return None

    def _accept(self) -> dict[str, float | None]:
        """Check the artifacts; the metrics that count, for fine-tuning. Raises InvalidOutput."""
        artifacts = self.root / "out" / "artifacts"
        check_plain(artifacts)
        if self.spec.kind == "pretrain":
            check_pretrain(self.spec, artifacts, self.planned.leaves_backbone)
            return {}
        assert self.planned.data is not None and self.end is not None
        metrics, self.confusion = score_finetune(self.spec, artifacts, self.planned.data)
        if difference := disagreement(metrics, self.end.metrics):
            raise InvalidOutput(difference)
        return metrics

    def _record(self, execution: Execution, outcome: Outcome, message: str, metrics: dict[str, float | None]) -> Record:
        artifacts = hash_artifacts(self.root / "out" / "artifacts") if outcome == Outcome.ok else {}
        return Record(
            key=self.spec.key,
            kind=self.spec.kind,
            method=self.spec.method,
            stage=self.spec.stage,
            attempt=self.number,
            outcome=outcome,
            message=fit_to_keep(message),
            stopped=self.end.stopped if self.end else None,
            cell=self.planned.cell,
            dataset=self.spec.data.dataset if self.spec.data else None,
            synthetic=self.planned.synthetic,
            metrics=metrics,
            stage_metrics=dict(list(self.end.metrics.items())[: 10 * MAX_ITEMS]) if self.end else {},
            ledger=self.ledger,
            measured=execution.measured,
            executor=self.executor.name,
            image=execution.image,
            label_isolation=self.executor.label_isolation,
            not_enforced=self.executor.not_enforced,
            provenance=provenance(self.numerics),
            notes=clean_items(self.end.notes) if self.end else {},
            warnings=tuple(self.warnings),
            artifacts=artifacts,
            parents=self.spec.parents,
            started_at=self.started,
            ended_at=_now(),
        ).sealed()


def lay_out(root: Path, planned: PlannedStage, parents: Mapping[str, Path], weights: Path | None) -> None:
    """Make the folders that a stage finds around it; `out/` keeps what an earlier attempt left.

    `parents` are the artifacts of each earlier stage.
    """
    lay_out_spec(root, planned.spec, planned.data.folder if planned.data else None, parents, weights)


def lay_out_spec(
    root: Path, spec: StageSpec, data: Path | None, parents: Mapping[str, Path], weights: Path | None = None
) -> None:
    """The same for a stage whose prepared data lie in `data`."""
    for name in ("in", "data", "parents"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    (root / "out").mkdir(exist_ok=True)
    drop_special_files(root / "out")
    drop_end(root / "out" / EVENTS_FILE)
    (root / "in" / STAGE_FILE).write_text(json.dumps(spec.model_dump(mode="json"), indent=1, sort_keys=True))
    if spec.kind == "pretrain":
        (root / "in" / SHAPES_FILE).write_text(json.dumps(backbone_shapes(spec.network), indent=1))
    if spec.imagenet_weights_sha256 is not None and weights is not None:
        (root / "in" / WEIGHTS_FILE).symlink_to(weights.resolve())
    if spec.data is not None and data is not None:
        view = root / "data" / spec.data.dataset
        view.mkdir()
        for part in ("unlabelled", "labelled") if spec.data.view == "labelled" else ("unlabelled",):
            (view / part).symlink_to((data / part).resolve())
    for stage in spec.parents:
        (root / "parents" / stage).symlink_to(parents[stage].resolve())


def clean_items(items: Mapping[str, str]) -> dict[str, str]:
    """Names and texts that a stage made up, fit to keep, and not too many of them."""
    return {fit_to_keep(k)[:100]: fit_to_keep(v) for k, v in list(items.items())[:MAX_ITEMS]}


def fit_to_keep(text: str) -> str:
    """What a stage said, fit for a record that is passed on: no control characters, absolute paths cut to their last part
    (names of folders are nobody's business), and no longer than MAX_TEXT."""
    plain = "".join(c if c.isprintable() or c == "\n" else " " for c in text[: 2 * MAX_TEXT])
    return re.sub(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+", "", plain)[:MAX_TEXT]


def log_tail(log: Path) -> str:
    """The last lines of a log, in one line, without control characters."""
    try:
        lines = log.read_bytes()[-4096:].decode(errors="replace").splitlines()
    except OSError:
        return "(none)"
    text = " | ".join(line.strip() for line in lines[-LOG_TAIL_LINES:] if line.strip())
    return "".join(c for c in text if c.isprintable()) or "(empty)"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
