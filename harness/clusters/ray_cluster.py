"""Ray as a place: each stage is a task with its CPUs, GPUs (or a share of one), memory, and the dataset that its node must hold.

The scheduler handles retries, not Ray. Ray ends the tasks of a driver that is gone; the next driver finds their records and
checkpoints in the store.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.benchmarks.support.ownership import JOB_VARIABLE
from pretrain_bench.harness.clusters.base import Ended, Interrupted, JobState, ReadyStage
from pretrain_bench.harness.clusters.node_checks import Answer, Check, Probe, checks_of_node
from pretrain_bench.harness.clusters.ticket import Job, Ticket, ticket_of
from pretrain_bench.harness.clusters.worker import EndNote, run_tickets
from pretrain_bench.harness.executors.base import Stop
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.capacity import Demand, asked
from pretrain_bench.harness.running.last_events import last_step
from pretrain_bench.harness.running.stage_runner import Cancelled
from pretrain_bench.harness.store.store import Store

DATA_PREFIX = "data:"
"""A node that declares the custom resource `data:NAME` holds that dataset. Once any node does, stages that read it need it."""
DATA_SHARE = 0.001
"""Amount of that resource per stage, so that 1,000 stages fit on a node that declares 1."""
MOST_PENDING = 1000
PROBE_SECONDS, MOST_UNANSWERED, ANSWER_SECONDS = 2.0, 3, 5.0
"""The head counts as lost after refusing MOST_UNANSWERED connections in a row, PROBE_SECONDS apart."""
CANCEL_WAIT_SECONDS = 0.2
_ended_tasks: set[str] = set()
"""Tasks of this driver that Ray has reported as ended."""


class _Task(NamedTuple):
    """A submitted stage, and its job as named in its owner file."""

    stage: ReadyStage
    job: str


class RayCluster:
    """Runs each stage as a Ray task. Needs a running cluster: `address` is that of its head, by default the one on this machine.

    Raises WrongUse for a Ray Client address, and EnvironmentCannot without Ray or a responding cluster.
    """

    waits_for_others = False

    def __init__(self, store: Store, job: Job, address: str | None = None, limit: int | None = None) -> None:
        self.store, self.job, self.limit = store, job, limit or MOST_PENDING
        self._connected_here = connect(address)
        import ray

        self._work = ray.remote(max_retries=0, max_calls=0)(work)
        self._nodes: list[dict[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._tasks: dict[Any, _Task] = {}
        self._gcs = ray.get_runtime_context().gcs_address
        self._probed, self._unanswered, self._cancelled = time.monotonic(), 0, 0

    def attach(self, stages: Sequence[ReadyStage]) -> Iterable[str]:
        """Nothing to take over: Ray ends tasks with their driver. A stage that is still stopping has an owner in the store."""
        return ()

    def demand(self, planned: PlannedStage) -> Demand:
        """The threads and loader processes of a stage, its memory cap (0 without one) and its GPUs."""
        return asked(planned)

    def has_room(self, demand: Demand) -> bool:
        """Always: Ray keeps the queue."""
        return True

    def submit(self, stages: Sequence[ReadyStage]) -> None:
        """Submit a task for each stage. Raises EnvironmentCannot if no node of the cluster could ever run one."""
        for stage in stages:
            needed = self.resources(stage)
            self._check_feasible(stage, needed)
            own = {name: amount for name, amount in needed.items() if name not in ("CPU", "GPU", "memory")}
            options = dict(num_cpus=needed["CPU"], num_gpus=needed["GPU"], memory=needed["memory"], resources=own)
            text = ticket_of(stage, self.job).model_dump_json()
            task = self._work.options(name=stage.planned.title, **options).remote(text)
            self._tasks[task] = _Task(stage, job_name(task.task_id().hex()))

    def resources(self, stage: ReadyStage) -> dict[str, float]:
        """A task's resource request, by Ray's names; memory in bytes."""
        need, data = stage.demand, stage.planned.data
        needed = {"CPU": need.cpus, "GPU": need.gpus, "memory": need.memory_mib << 20}
        if data is not None:
            name = DATA_PREFIX + data.dataset.name
            if any(name in node for node in self._nodes):
                needed[name] = DATA_SHARE
        return needed

    def _check_feasible(self, stage: ReadyStage, needed: dict[str, float]) -> None:
        if any(all(node.get(name, 0) >= amount for name, amount in needed.items()) for node in self._nodes):
            return
        wanted = ", ".join(f"{name} {amount:,g}" for name, amount in needed.items() if amount)
        raise EnvironmentCannot(
            f"{stage.planned.title}: no node of the Ray cluster at {self._gcs} has what it needs ({wanted}); add such a node, or "
            "reduce the demand (--threads, memory_mib and gpus of the budget)"
        )

    def ended(self, seconds: float) -> list[Ended]:
        """See `Place.ended`; raises EnvironmentCannot if the head of the cluster is lost."""
        import ray

        try:
            done, _ = ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
            if done:
                done, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
            ends = [self._end_of(task) for task in done]
        except ray.exceptions.RaySystemError:
            ends = []
        if not ends:
            self._check_head()
        return ends

    def _end_of(self, task: Any) -> Ended:
        import ray

        key, title = self._tasks[task].stage.key, self._tasks[task].stage.planned.title
        try:
            note = EndNote.model_validate_json(ray.get(task))
            problem = note.as_error()
        except ray.exceptions.TaskCancelledError:
            problem = Cancelled("cancelled; rerun the same command to resume from its last checkpoint")
        except ray.exceptions.RayTaskError as error:
            problem = EnvironmentCannot(
                f"{title}: a node of the Ray cluster cannot run stages: {_last_line(error)}; install the same environment, this "
                "package included, on every node"
            )
        except ray.exceptions.LocalRayletDiedError:
            here = "the Ray node of this command" if answers(self._gcs) else self._head()
            problem = _lost(f"{title}: {here}")
        except ray.exceptions.RayError as error:
            why = (
                f"its task ended without a report ({type(error).__name__}): killed, out of memory, or its node was lost"
            )
            problem = Interrupted(f"{title}: {why}", last_step(self.store, key))
        _ended_tasks.add(self._tasks.pop(task).job)
        return Ended(key, problem=problem)

    def _check_head(self) -> None:
        """Raises EnvironmentCannot once the head no longer answers."""
        if time.monotonic() - self._probed < PROBE_SECONDS:
            return
        self._probed = time.monotonic()
        self._unanswered = 0 if answers(self._gcs) else self._unanswered + 1
        if self._unanswered >= MOST_UNANSWERED:
            raise _lost(self._head())

    def _head(self) -> str:
        return f"the head of the Ray cluster at {self._gcs}"

    def cancel(self) -> dict[str, str]:
        """See `Place.cancel`."""
        import ray

        self._cancelled += 1
        for task in self._tasks:
            ray.cancel(task, force=self._cancelled > 1)
        return {}

    def states(self) -> dict[str, JobState]:
        """See `Place.states`; a task runs once its stage has an owner in the store."""
        return {
            task.stage.key: JobState(
                task.job, "running" if (by := self.store.held_by(task.stage.key)) else "pending", by or ""
            )
            for task in self._tasks.values()
        }

    def close(self) -> None:
        """Leave the cluster, unless this process had joined it earlier."""
        import ray

        if self._connected_here:
            ray.shutdown()


def work(ticket: str) -> str:
    """Run one ticket, given as JSON, on a node, and return its end note. `ray.cancel` interrupts the main thread, which asks the
    stage to stop gracefully."""
    stop, parsed = Stop(), Ticket.model_validate_json(ticket)
    import ray

    task = ray.get_runtime_context().get_task_id()
    assert task is not None, "a worker has a task"
    os.environ[JOB_VARIABLE] = job_name(task)
    with ThreadPoolExecutor(1, thread_name_prefix="ticket") as thread:
        ending = thread.submit(lambda: list(run_tickets([parsed], stop)))
        while True:
            try:
                return ending.result(CANCEL_WAIT_SECONDS)[0].model_dump_json()
            except TimeoutError:
                if ending.done():
                    raise
            except KeyboardInterrupt:
                stop.ask()


def probe_nodes(probe: Probe, seconds: float) -> dict[str, tuple[Check, ...]]:
    """The checks of each node of the joined cluster that is alive, by its address and the start of its id; waits up to
    `seconds` for all. Once any node declares a dataset, only nodes that do are checked for it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode

    alive = {n["NodeID"]: n for n in ray.nodes() if n["Alive"]}
    nodes = {number: f"{n['NodeManagerAddress']} ({number[:6]})" for number, n in alive.items()}
    declared = {name for n in alive.values() for name in n["Resources"]}

    def text(node: str) -> str:
        held = alive[node]["Resources"]
        data = {n: p for n, p in probe.data.items() if DATA_PREFIX + n in held or DATA_PREFIX + n not in declared}
        return probe.model_copy(update={"data": data}).model_dump_json()

    ask = ray.remote(num_cpus=0, max_retries=0)(check_node)
    tasks = {ask.options(scheduling_strategy=OnNode(node, soft=False)).remote(text(node)): node for node in nodes}
    done, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=seconds)
    silent = (Check(what="answer", state="missing", detail=f"none in {seconds:.0f} s"),)
    return {nodes[node]: _checks_from(task) if task in done else silent for task, node in tasks.items()}


def _checks_from(task: Any) -> tuple[Check, ...]:
    import ray

    try:
        return Answer.model_validate_json(ray.get(task)).checks
    except ray.exceptions.RayTaskError as error:
        detail = f"cannot run stages: {_last_line(error)}; install the same environment, this package included"
        return (Check(what="environment", state="broken", detail=detail),)
    except ray.exceptions.RayError as error:
        why = f"the check ended without an answer ({type(error).__name__}): killed, out of memory, or the node was lost"
        return (Check(what="answer", state="broken", detail=why),)


def check_node(probe: str) -> str:
    """Compare the node that runs this with a probe, given as JSON, and return the answer as JSON."""
    return Answer(checks=tuple(checks_of_node(Probe.model_validate_json(probe)))).model_dump_json()


def connect(address: str | None) -> bool:
    """Join a running Ray cluster; False if this process has already joined. Raises as `RayCluster`."""
    try:
        import ray
    except ImportError:
        raise EnvironmentCannot("--on ray: Ray is not installed; install the extra: pip install '.[ray]'") from None
    if ray.is_initialized():
        return False
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    if "://" in wanted:
        raise WrongUse(
            f"--address {wanted}: Ray Client is not supported; run the command on a node of the cluster (--address HOST:PORT of "
            "its head, or none), or as a job: ray job submit -- bench run --on ray ..."
        )
    if wanted != "auto" and not answers(wanted):
        raise EnvironmentCannot(
            f"--address {wanted}: no Ray head answers; expected HOST:PORT as `ray start --head` prints it"
        )
    try:
        with _kept_handlers():
            ray.init(address=wanted, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        if "Could not find any running Ray" in str(error):
            raise EnvironmentCannot(
                "--on ray: no Ray cluster runs on this machine; start one with `ray start --head`, or name another's head with "
                "--address HOST:PORT"
            ) from None
        raise EnvironmentCannot(
            f"--on ray: the cluster at {wanted} does not let this process in; Ray asks for a token by default: set "
            f"RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH): {_last_line(error)}"
        ) from None
    except (ray.exceptions.RayError, RuntimeError, ValueError) as error:
        raise EnvironmentCannot(f"--on ray: the cluster at {wanted} cannot be joined: {_last_line(error)}") from None
    return True


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Join a running Ray cluster, and leave it again unless this process had joined before. Raises as `RayCluster`."""
    own = connect(address)
    try:
        yield
    finally:
        if own:
            import ray

            ray.shutdown()


def gives_gpus(address: str | None) -> bool:
    """Whether a node of the cluster has a GPU. Raises as `RayCluster`."""
    connect(address)
    import ray

    return bool(ray.cluster_resources().get("GPU", 0))


def job_name(task: str) -> str:
    """A task's name in owner files: `ray:HEAD/SESSION/DRIVER/TASK`."""
    import ray

    context = ray.get_runtime_context()
    return f"ray:{context.gcs_address}/{context.get_session_name()}/{context.get_job_id()}/{task}"


def task_has_ended(job: str) -> bool:
    """Whether a task has ended according to Ray: this driver saw its end, or its driver or cluster is gone. False if Ray is not
    installed or does not know."""
    if job in _ended_tasks:
        return True
    gcs, session, driver, _ = job.removeprefix("ray:").split("/")
    try:
        import ray
        from ray._private import state
    except ImportError:
        return False
    if not _answered_lately(gcs, int(time.monotonic() / PROBE_SECONDS)):
        return True
    if not ray.is_initialized() or (context := ray.get_runtime_context()).gcs_address != gcs:
        return False
    if context.get_session_name() != session:
        return True
    return any(known["JobID"] == driver and known["IsDead"] for known in state.jobs())


def answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


@functools.lru_cache(maxsize=16)
def _answered_lately(address: str, period: int) -> bool:
    return answers(address)


@contextlib.contextmanager
def _kept_handlers() -> Iterator[None]:
    """Restore the signal handlers that Ray replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            with contextlib.suppress(ValueError, TypeError):  # not in the main thread; or set by C
                signal.signal(number, handler)


def _lost(what: str) -> EnvironmentCannot:
    return EnvironmentCannot(
        f"{what} is lost, and so are the running stages; restart the cluster and rerun the same command: finished stages are "
        "kept, and the others resume from their last checkpoints"
    )


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
