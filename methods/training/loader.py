"""Batches ahead of time: worker processes prepare step n + 1 while step n trains, as many as the budget says.

A batch depends on its step number alone, so the number of workers changes no result.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from pretrain_bench.benchmarks.support.errors import BenchError

Batch = TypeVar("Batch")
BATCHES_AHEAD = 2
"""Batches that each worker may have ready: bounds the memory."""


class _Steps(Dataset):
    """Batches by step number. An error of ours is handed over as it is, not wrapped in a worker's traceback."""

    def __init__(self, make_batch: Callable[[int], Any]) -> None:
        self.make_batch = make_batch

    def __getitem__(self, step: int) -> Any:
        try:
            return self.make_batch(step)
        except BenchError as error:
            return error


def batches(make_batch: Callable[[int], Batch], steps: range, workers: int, device: torch.device) -> Iterator[Batch]:
    """The batch of every step in order. With a GPU, tensors in them lie in pinned memory."""
    if not workers or not len(steps) or "fork" not in multiprocessing.get_all_start_methods():
        yield from (make_batch(step) for step in steps)
        return
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
    )
    for batch in loader:
        if isinstance(batch, BenchError):
            raise batch
        yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


def _alone(worker: int) -> None:
    torch.set_num_threads(1)
    # A soft stop goes to the whole process group; the loop is the one that ends the workers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
