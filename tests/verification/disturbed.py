"""Suites of sleeping stages that are disturbed at random moments, on any cluster: each stage must complete exactly once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from pretrain_bench.harness.contract.events import EVENTS_FILE, Start, parse_event
from pretrain_bench.harness.store.store import Store
from tests.faults.injection import NothingToKill, check_whole

STAGES_A_SEED = 10
"""Stages of the suite of sleeping stages: two pre-trainings and eight fine-tunings."""
SEEDS_DISTURBED = 4
"""Seeds of a suite that is disturbed: 40 stages."""
SLEEP_DISTURBED = "2"
"""BENCH_TEST_SLEEP of its stages."""
READ_ONLY_SECONDS = 60
DRIVER_SECONDS = 3000

Driver = subprocess.Popen[str]


class Cluster(Protocol):
    """A cluster on this machine that can be disturbed."""

    def workers(self, runs: Path) -> list[psutil.Process]:
        """The processes that run stages of a store."""

    def kill(self, whom: str, driver: Driver, again: Callable[[], Driver], runs: Path) -> Driver:
        """Kill a process or several, and start again what the cluster needs; returns the driver that is left. Raises NothingToKill
        if the suite ended before."""


def refuse_writes(runs: Path) -> None:
    """Make a store refuse every write for a while, also to open files."""
    subprocess.run(["chattr", "-Rf", "+i", runs])  # fails on links
    try:
        with pytest.raises(PermissionError):
            (runs / "a file").touch()
        time.sleep(READ_ONLY_SECONDS)
    finally:
        subprocess.run(["chattr", "-Rf", "-i", runs])
    time.sleep(5)


class Disturbed:
    """Suites that are disturbed at random moments, one after the other: each must complete, with one counted attempt per stage.

    `start_suite` starts a driver of the suite with this number on a store, and resumes what is there.
    """

    def __init__(self, cluster: Cluster, start_suite: Callable[[Path, int], Driver], runs: Path, seed: int) -> None:
        self.cluster, self.start_suite, self.runs, self.chance = cluster, start_suite, runs, random.Random(seed)
        self.done, self.attempts = Counter[str](), Counter[int]()
        self.suites = self.drivers = self.errors = self.resumed = 0

    def start(self) -> Driver:
        """Start a driver of the present suite."""
        self.drivers += 1
        return self.start_suite(self._present(), self.suites)

    def disturb(self, victims: list[str]) -> None:
        """Hit the victims, in order, while suites run; then let the last suite complete."""
        left = list(victims)
        while left:
            self.suites += 1
            runs, driver = self._present(), self.start()
            while left:
                self._wait_for_a_worker(runs, driver)
                time.sleep(8 * self.chance.random())
                self._wait_for_a_worker(runs, driver)
                if driver.poll() is not None:
                    break
                try:
                    driver = self._hit(left[0], runs, driver)
                except NothingToKill:
                    break
                del left[0]
            while (
                driver.wait(DRIVER_SECONDS) != 0
            ):  # it gives up on a stage that is interrupted three times without progress
                self.errors += 1
                print(
                    f"the driver ended: {driver.communicate()[1].strip().splitlines()[-1:]}",
                    file=sys.stderr,
                    flush=True,
                )
                driver = self.start()
            driver.communicate()
            check_whole(runs, SEEDS_DISTURBED * STAGES_A_SEED)
            self._count(Store(runs))

    def _count(self, store: Store) -> None:
        for record in store.records():
            self.attempts[record.attempt] += 1
            lines = (store.folder(record.kind, record.key) / EVENTS_FILE).read_bytes().splitlines(keepends=True)
            self.resumed += sum(isinstance(parse_event(line), Start) for line in lines) > 1

    def _present(self) -> Path:
        return self.runs.with_name(f"{self.runs.name}{self.suites}")

    def _wait_for_a_worker(self, runs: Path, driver: Driver) -> None:
        while driver.poll() is None and not self.cluster.workers(runs):
            time.sleep(0.1)

    def _hit(self, whom: str, runs: Path, driver: Driver) -> Driver:
        if whom == "store":
            refuse_writes(runs)
        else:
            driver = self.cluster.kill(whom, driver, self.start, runs)
        self.done[whom] += 1
        print(f"{self.done[whom]}: {whom}", file=sys.stderr, flush=True)
        return driver


def results_of(disturbed: Sequence[Disturbed]) -> dict[str, Any]:
    """Faults by victim, suites, their stages by counted attempts, stages that a fault interrupted, drivers, and drivers that
    ended with an error although no fault explains it."""
    attempts = sum((one.attempts for one in disturbed), Counter[int]())
    return {
        "faults": dict(sorted(sum((one.done for one in disturbed), Counter[str]()).items())),
        "suites": sum(one.suites for one in disturbed),
        "stages_by_attempts": {str(n): c for n, c in sorted(attempts.items())},
        "interrupted_stages": sum(one.resumed for one in disturbed),
        "drivers": sum(one.drivers for one in disturbed),
        "drivers_with_an_error": sum(one.errors for one in disturbed),
    }
