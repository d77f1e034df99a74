"""Prefetches batches: worker processes prepare step n + 1 while step n trains; the budget sets their number.

A batch depends only on its step number, so the number of workers does not affect results. Batches are sent through pipes instead
of shared memory: containers have little of it (64 MiB by default), and a worker blocks forever if it is full.
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
"""Batches that each worker may prepare ahead, which limits memory."""
MAX_WAIT_SECONDS = 1800.0
"""The longest wait for one batch; a worker that needs longer is considered hung."""


class LoaderFailed(BenchError):
    """A loader worker was killed, or hangs."""


class _Packed(NamedTuple):
    """A pickled batch, or the BenchError raised while it was prepared."""

    content: bytes

    def unpack(self) -> Any:
        return pickle.loads(self.content)

    def pin_memory(self, device: str | None = None) -> Any:
        """The unpickled batch with its tensors in pinned memory; torch's pinning thread calls this if a GPU is used."""
        return pin_memory(self.unpack(), device)


class _Steps(Dataset):
    """Packed batches by step number. A BenchError is passed on as it is, without the traceback of a worker."""

    def __init__(self, make_batch: Callable[[int], Any]) -> None:
        self.make_batch = make_batch

    def __getitem__(self, step: int) -> _Packed:
        try:
            return _pack(self.make_batch(step))
        except BenchError as error:
            return _pack(error)


class _Pickler(pickle.Pickler):
    """Pickles dense, contiguous CPU tensors as numpy arrays, which copies their bytes only once; other tensors as torch does."""

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
    """Yield the batch of each step in order. With workers and a GPU, its tensors are in pinned memory.

    If worker processes cannot be started, calls `warn` and prepares batches in this process. Raises LoaderFailed if a worker is
    killed or takes more than MAX_WAIT_SECONDS for a batch, and any error of `make_batch`.
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
                if not str(error).startswith("DataLoader"):  # raised by `make_batch`
                    raise
                _kill(set(multiprocessing.active_children()) - others)
                raise LoaderFailed(_explain(str(error), step)) from error
            batch = batch.unpack() if isinstance(batch, _Packed) else batch
            if isinstance(batch, BenchError):
                raise batch
            yield batch
    finally:
        # Ends the workers now: the garbage collector (an error's traceback keeps this frame) would take five seconds for each.
        del loaded


def _start(
    make_batch: Callable[[int], Any], steps: range, workers: int, device: torch.device, warn: Callable[[str], None]
) -> Iterator[Any] | None:
    """Start the workers; None if none are wanted or none can be started."""
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
        multiprocessing.Lock()  # raises OSError without /dev/shm
        return iter(loader)
    except OSError as error:
        warn(f"loader workers cannot be started ({error.strerror or error}): each step waits for its batch")
        return None


def _kill(workers: Iterable[BaseProcess]) -> None:
    """Kill workers: one that hangs would keep this process from exiting."""
    for worker in workers:
        with contextlib.suppress(RuntimeError):  # raised by the loader's handler of SIGCHLD, once
            worker.kill()
            worker.join()


def _explain(problem: str, step: int) -> str:
    """The error message for a problem reported by the loader, with advice."""
    if "timed out" in problem:
        return (
            f"step {step + 1}: no batch for {MAX_WAIT_SECONDS:,.0f} s: a loader worker hangs; check that the disk or network "
            "with the data responds, or set loader_workers: 0 in the budget to prepare batches without workers"
        )
    return (
        f"step {step + 1}: a loader worker was killed, perhaps for lack of memory: {problem} (reduce loader_workers in the "
        "budget to use less)"
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _alone(worker: int) -> None:
    torch.set_num_threads(1)
    # Signals go to the whole process group, but only the training loop may end its workers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
