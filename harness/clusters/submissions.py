"""Submissions of stages to a cluster, as folders of the store, from which any driver can read the stages in progress.

<runs>/.partial/.jobs/<name>/   intent.json  job.json  <key>.ticket.json  <key>.end.json  submitit/

The intent is written durably before the submission, and the job's number after it. In between the job is found by its name,
which is also its name on the cluster.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.files import remove_tree
from pretrain_bench.benchmarks.support.foreign_files import read_plain
from pretrain_bench.harness.clusters.ticket import Ticket
from pretrain_bench.harness.clusters.worker import NOTE, TICKET, EndNote
from pretrain_bench.harness.store.store import Store, write_json

FOLDER, INTENT, JOB, OWN_FILES = ".jobs", "intent.json", "job.json", "submitit"


class Intent(Spec):
    """A planned submission: the cluster, its name, and the keys of each job of the array."""

    cluster: str
    name: str
    jobs: tuple[tuple[str, ...], ...]
    titles: dict[str, str] = {}
    """Titles of the stages, by key."""
    began: float


class JobNumber(Spec):
    """The cluster's number of a submission; each job of an array is `NUMBER_INDEX`."""

    number: str


class Submission(NamedTuple):
    """One submission, with its number once the cluster has assigned one."""

    folder: Path
    intent: Intent
    number: str | None

    def job_of(self, key: str) -> str | None:
        """The cluster's name of a stage's job; None if it has none yet."""
        index = next(i for i, keys in enumerate(self.intent.jobs) if key in keys)
        if self.number is None:
            return None
        return f"{self.number}_{index}" if len(self.intent.jobs) > 1 else self.number

    @property
    def keys(self) -> list[str]:
        """Keys of all its stages."""
        return [key for keys in self.intent.jobs for key in keys]

    def ended(self) -> set[str]:
        """Keys of the stages that have an end note; all keys if another driver has removed the folder, since all have ended."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return set(self.keys)
        return {name.removesuffix(NOTE) for name in names if name.endswith(NOTE)}

    def note(self, key: str) -> EndNote | None:
        """The end note of a stage; None if it is incomplete or damaged. If the folder was removed, the stage has a record."""
        if not self.folder.exists():
            return EndNote(key=key)
        try:
            return EndNote.model_validate_json(read_plain(self.folder / f"{key}{NOTE}"))
        except (OSError, ValidationError):
            return None

    def with_number(self, number: str) -> Submission:
        """Store the number, and return the submission with it."""
        write_json(self.folder / JOB, JobNumber(number=number).model_dump(mode="json"), durable=True)
        return self._replace(number=number)

    def drop(self) -> None:
        """Remove its folder."""
        remove_tree(self.folder)


def announce(store: Store, cluster: str, jobs: Sequence[Sequence[Ticket]]) -> Submission:
    """Write a submission durably before it is submitted. Raises OSError."""
    name = f"bench-{time.strftime('%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    folder = store.root / ".partial" / FOLDER / name
    for ticket in (ticket for tickets in jobs for ticket in tickets):
        write_json(folder / f"{ticket.key}{TICKET}", ticket.model_dump(mode="json"))
    keys = tuple(tuple(ticket.key for ticket in tickets) for tickets in jobs)
    titles = {ticket.key: ticket.stage.title for tickets in jobs for ticket in tickets}
    intent = Intent(cluster=cluster, name=name, jobs=keys, titles=titles, began=time.time())
    write_json(folder / INTENT, intent.model_dump(mode="json"), durable=True)
    return Submission(folder, intent, None)


def submissions(store: Store, cluster: str | None = None) -> Iterator[Submission]:
    """The stored submissions, of one cluster or all."""
    parent = store.root / ".partial" / FOLDER
    for name in sorted(os.listdir(parent)) if parent.is_dir() else []:
        try:
            intent = Intent.model_validate_json(read_plain(parent / name / INTENT))
        except (OSError, ValidationError):
            continue
        try:
            number = JobNumber.model_validate_json(read_plain(parent / name / JOB)).number
        except (OSError, ValidationError):
            number = None
        if cluster in (None, intent.cluster):
            yield Submission(parent / name, intent, number)
