"""Batches ahead of time: worker processes prepare step n + 1 while step n trains, as many as the budget says.

A batch depends on its step number alone, so the number of workers changes no result. Batches travel through pipes as bytes, not
through shared memory: containers have little of that (64 MiB by default), and a worker that finds it full waits for ever.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.pin_memory import pin_memory

from pretrain_bench.benchmarks.support.errors import BenchError

Batch = TypeVar("Batch")
BATCHES_AHEAD = 2
"""Batches that each worker may have ready: bounds the memory."""
MAX_WAIT_SECONDS = 1800.0
"""The longest wait for one batch; a worker that needs longer hangs."""


class LoaderFailed(BenchError):
    """A worker process of the loader was killed, or hangs."""


class _Packed(NamedTuple):
    """A batch, or the error of ours that it ended in, as bytes."""

    content: bytes

    def unpack(self) -> Any:
        return pickle.loads(self.content)

    def pin_memory(self, device: str | None = None) -> Any:
        """Called by the loader's own thread where a GPU is used: the batch with its tensors in pinned memory."""
        return pin_memory(self.unpack(), device)


class _Steps(Dataset):
    """Packed batches by step number. An error of ours is handed over as it is, not wrapped in a worker's traceback."""

    def __init__(self, make_batch: Callable[[int], Any]) -> None:
        self.make_batch = make_batch

    def __getitem__(self, step: int) -> _Packed:
        try:
            return _pack(self.make_batch(step))
        except BenchError as error:
            return _pack(error)


class _Pickler(pickle.Pickler):
    """Pickles dense, contiguous tensors of the CPU as arrays, whose bytes are copied once; others as torch does."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not torch.Tensor or value.layout != torch.strided or value.device.type != "cpu":
            return NotImplemented
        if value.dtype == torch.bfloat16 or value.requires_grad or not value.is_contiguous():
            return NotImplemented
        return torch.from_numpy, (value.numpy(),)


def _pack(batch: Any) -> _Packed:
    file = io.BytesIO()
    _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(batch)
    return _Packed(file.getvalue())


def batches(
    make_batch: Callable[[int], Batch],
    steps: range,
    workers: int,
    device: torch.device,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Batch]:
    """The batch of every step in order. With a GPU, tensors in them lie in pinned memory.

    Where this system cannot start worker processes, `warn` is called and this process prepares the batches. Raises LoaderFailed
    where a worker is killed or takes more than MAX_WAIT_SECONDS for a batch; what `make_batch` raises is raised.
    """
    others = set(multiprocessing.active_children())
    loaded = _start(make_batch, steps, workers, device, warn)
    if loaded is None:
        yield from (make_batch(step) for step in steps)
        return
    try:
        for step in steps:
            try:
                batch = next(loaded)
            except RuntimeError as error:
                if not str(error).startswith("DataLoader"):  # what `make_batch` raised
                    raise
                _kill(set(multiprocessing.active_children()) - others)
                raise LoaderFailed(_explain(str(error), step)) from error
            batch = batch.unpack() if isinstance(batch, _Packed) else batch
            if isinstance(batch, BenchError):
                raise batch
            yield batch
    finally:
        # Ends the workers now. Left to the garbage collector (an error's traceback holds this frame), each takes five seconds.
        del loaded


def _start(
    make_batch: Callable[[int], Any], steps: range, workers: int, device: torch.device, warn: Callable[[str], None]
) -> Iterator[Any] | None:
    """Start the workers; None where there are to be none, or can be none."""
    if not workers or not len(steps) or "fork" not in multiprocessing.get_all_start_methods():
        return None
    loader = DataLoader(
        _Steps(make_batch),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        prefetch_factor=BATCHES_AHEAD,
        persistent_workers=True,
        multiprocessing_context="fork",
        worker_init_fn=_alone,
        timeout=MAX_WAIT_SECONDS,
    )
    try:
        multiprocessing.Lock()  # none without /dev/shm
        return iter(loader)
    except OSError as error:
        warn(f"loader workers cannot be started ({error.strerror or error}), so each step waits for its batch")
        return None


def _kill(workers: Iterable[BaseProcess]) -> None:
    """End workers at once: one that hangs would keep this process from ending."""
    for worker in workers:
        with contextlib.suppress(RuntimeError):  # raised by the loader's handler of SIGCHLD, once
            worker.kill()
            worker.join()


def _explain(problem: str, step: int) -> str:
    """What a person can do about a problem that the loader reports."""
    if "timed out" in problem:
        return (
            f"step {step + 1}: no batch for {MAX_WAIT_SECONDS:,.0f} s: a loader worker hangs; do its data lie on a disk or "
            "network that does not answer? loader_workers: 0 in the budget prepares batches without workers"
        )
    return (
        f"step {step + 1}: a loader worker was killed, perhaps for lack of memory: {problem} (fewer loader_workers in the budget "
        "take less)"
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _alone(worker: int) -> None:
    torch.set_num_threads(1)
    # A soft stop goes to the whole process group; the loop is the one that ends the workers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
