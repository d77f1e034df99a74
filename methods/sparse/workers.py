"""Work on blocks of rows by as many threads as torch may use, each of which then computes alone.

Torch's own threads split every small product and wait for each other after it; threads that take whole blocks meet only once.
How the blocks are grouped is fixed by the number of threads, and so are the bits of a result; who does which group is not.
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
"""Multiply-adds from which it pays to wake another thread (a quarter of a millisecond on one core)."""

GROUPS_PER_THREAD = 2
"""More groups than threads, so that one who is held up leaves work to the others."""

_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # a child process has none of its parent's threads


def groups_for(multiply_adds: int) -> int:
    """Into how many groups a work is cut: 1 where it is too small to be shared."""
    threads = torch.get_num_threads()
    return GROUPS_PER_THREAD * threads if threads > 1 and multiply_adds >= SHARED_MULTIPLY_ADDS else 1


def grouped(items: list[Item], groups: int) -> list[list[Item]]:
    """The items in order, in at most `groups` consecutive lists of nearly equal length."""
    groups = max(1, min(groups, len(items)))
    edges = [round(i * len(items) / groups) for i in range(groups + 1)]
    return [items[a:b] for a, b in itertools.pairwise(edges)]


def share(work: Callable[[int], None], groups: int) -> None:
    """Call work(0) ... work(groups - 1) from as many threads as torch may use, each of which computes without helpers.

    What the calls write must not overlap. Nothing in them is recorded for differentiation. The first error is raised, after
    all threads have ended.
    """
    allowed = torch.get_num_threads()
    threads = min(allowed, groups)
    todo = iter(range(groups))
    if threads == 1:
        return _take(work, todo)
    pool = _pools.get(threads)
    if pool is None:
        # OpenMP's number of threads is each thread's own; MKL's is everybody's, so it is set again below.
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
