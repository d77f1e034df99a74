"""Runs work on blocks of rows in torch's number of threads, each of which computes single-threaded.

Torch's own threads split each small product and synchronise after it; threads that process whole blocks synchronise once. The
number of threads fixes how blocks are grouped, and so the bits of a result; which thread runs which group does not matter.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")

SHARED_MULTIPLY_ADDS = 20_000_000
"""Multiply-adds from which waking other threads pays off: about a millisecond of one core."""

GROUPS_PER_THREAD = 2
"""More groups than threads, so that the others take over work from a delayed thread."""

_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def groups_for(multiply_adds: int) -> int:
    """The number of groups for work of this size: 1 if it is too small to share."""
    threads = torch.get_num_threads()
    return GROUPS_PER_THREAD * threads if threads > 1 and multiply_adds >= SHARED_MULTIPLY_ADDS else 1


def grouped(items: list[Item], groups: int) -> list[list[Item]]:
    """The items in order, in at most `groups` consecutive lists of nearly equal length."""
    groups = max(1, min(groups, len(items)))
    edges = [round(i * len(items) / groups) for i in range(groups + 1)]
    return [items[a:b] for a, b in itertools.pairwise(edges)]


def share(work: Callable[[int], None], groups: int) -> None:
    """Call work(0) ... work(groups - 1) in torch's number of threads, each of which computes single-threaded.

    The calls must write to disjoint memory, and run without autograd. If a call raises, the error is raised here after all
    threads have finished.
    """
    allowed = torch.get_num_threads()
    threads = min(allowed, groups)
    todo = iter(range(groups))
    if threads == 1:
        return _take(work, todo)
    pool = _pools.get(threads)
    if pool is None:
        # OpenMP's number of threads is per thread; MKL's is per process, so it is restored below.
        pool = _pools[threads] = ThreadPoolExecutor(threads - 1, "sparse", torch.set_num_threads, (1,))
    torch.set_num_threads(1)
    try:
        others = [pool.submit(_take, work, todo) for _ in range(threads - 1)]
        try:
            _take(work, todo)
        finally:
            wait(others)
        for other in others:
            other.result()
    finally:
        torch.set_num_threads(allowed)


def _take(work: Callable[[int], None], todo: Iterator[int]) -> None:
    with torch.no_grad():
        for group in todo:
            work(group)
