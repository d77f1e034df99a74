"""`make verify-power-cut`: shut down the file system of a store at random moments, as in a power failure. Needs root.

An ext4 file system on a loop device is shut down without flushing its journal (ioctl FS_IOC_GOINGDOWN): immediately, nothing more
reaches its device, and data only in memory are lost. It is mounted again, which replays the journal, and must contain every run
that was reported as finished. A disk that acknowledges a flush but loses the data is not simulated.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pretrain_bench.benchmarks.support import ownership
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.store.store import Store
from tests.harness.store.test_store import spec
from tests.verification.publishing import Done, problems, publish
from tests.verification.report import ROOT, write_report

CUTS, SEED, IMAGE_MIB = 60, 28, 64
GOING_DOWN, WITHOUT_LOG_FLUSH = 0x8004587D, 2
"""FS_IOC_GOINGDOWN of Linux, and its flag for not writing the journal."""
CONTROLS, WITHOUT_SYNC = 3, "--without-sync"
STAGES, MOST_MILLISECONDS = 40, 400


class CannotRun(Exception):
    """This machine cannot mount a file system and shut it down; the message gives the reason."""


@contextlib.contextmanager
def cuttable(folder: Path) -> Iterator[Path]:
    """An ext4 file system on a loop device, unmounted at the end. Raises CannotRun."""
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    image.touch()
    os.truncate(image, IMAGE_MIB << 20)
    _run("mkfs.ext4", "-q", "-F", str(image))
    _run("mount", "-o", "loop", str(image), str(mount))
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=False)


def cut(mount: Path) -> None:
    """Shut the file system down immediately, without writing its journal."""
    descriptor = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, GOING_DOWN, struct.pack("I", WITHOUT_LOG_FLUSH))
    except OSError as error:
        raise CannotRun(f"the file system cannot be shut down: {error}") from None
    finally:
        os.close(descriptor)


def mount_again(mount: Path) -> None:
    """Unmount the file system, which drops data only in memory, and mount it again."""
    _run("umount", str(mount))
    _run("mount", "-o", "loop", str(mount.parent / "image"), str(mount))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"{' '.join(command[:2])}: {done.stderr.strip()}")


def publish_all(root: Path, report: Callable[[Done], None] = lambda done: None) -> None:
    """Publish runs, each after a failed attempt that it replaces, and report each once it is finished."""
    ownership.OLD_SECONDS = -1.0  # as if minutes had passed: a cut may leave owner files empty
    store = Store(root)
    for seed in range(STAGES):
        for outcome in (Outcome.crashed, Outcome.ok):
            report(publish(store, spec(seed), outcome))


def one_cut(mount: Path, chance: random.Random, *options: str) -> tuple[list[Done], bool]:
    """Start publishing, cut at a random moment, mount again. Returns the runs reported as finished, and whether work was in progress."""
    command = [sys.executable, "-m", "tests.verification.power_cut", str(mount / "runs"), *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()  # its imports are done from here
    time.sleep(chance.uniform(0, MOST_MILLISECONDS) / 1000)
    under_way = process.poll() is None
    cut(mount)
    rest, _ = process.communicate(timeout=120)
    lines = [line.split() for line in (first + rest).splitlines()]
    mount_again(mount)
    return [(words[0], int(words[1]), words[2]) for words in lines if len(words) == 3], under_way


def power_cuts(folder: Path, cuts: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Cut the power `cuts` times, in stores that resume until all their runs are finished. Returns counts and problems."""
    counts, wrong, chance = {"cuts": 0, "under_way": 0, "stores": 0, "runs": 0}, list[str](), random.Random(seed)
    while counts["cuts"] < cuts:
        counts["stores"] += 1
        place = folder / str(counts["stores"])
        place.mkdir()
        with cuttable(place) as mount:
            promised, under_way = list[Done](), True
            while under_way and counts["cuts"] < cuts:
                done, under_way = one_cut(mount, chance)
                promised += done
                counts["cuts"] += 1
                counts["under_way"] += under_way
                where = f"cut {counts['cuts']}"
                wrong += [f"{where}: {p}" for p in problems(Store(mount / "runs"), promised, ended=False)]
            publish_all(mount / "runs")
            found = problems(Store(mount / "runs"), promised, ended=True)
            wrong += [f"store {counts['stores']}, at the end: {p}" for p in found]
            counts["runs"] += sum(1 for _ in Store(mount / "runs").records())
    return counts, wrong


def losses_without_sync(folder: Path, cuts: int, seed: int) -> int:
    """The number of cuts that lose runs if nothing is flushed to disk, as a control."""
    lossy, chance = 0, random.Random(seed)
    for number in range(cuts):
        place = folder / f"control{number}"
        place.mkdir()
        with cuttable(place) as mount:
            promised, _ = one_cut(mount, chance, WITHOUT_SYNC)
            lossy += any(True for _ in problems(Store(mount / "runs"), promised, ended=False))
    return lossy


def main() -> None:
    """Make all cuts, then write docs/verification/power-cut.json. With a path as argument: publish runs there."""
    if len(sys.argv) > 1:
        if WITHOUT_SYNC in sys.argv:
            os.fsync = lambda descriptor: None
        publish_all(Path(sys.argv[1]), lambda done: print(*done, flush=True))
        return
    what = "ext4 on a loop device cut off at random moments: every finished run survives, and the store stays usable"
    with tempfile.TemporaryDirectory() as folder:
        try:
            counts, wrong = power_cuts(Path(folder), int(os.environ.get("CUTS", CUTS)), SEED)
            counts["control_cuts"], counts["control_losses"] = (
                CONTROLS,
                losses_without_sync(Path(folder), CONTROLS, SEED),
            )
            wrong += [] if counts["control_losses"] else ["the control, which flushes nothing, loses nothing either"]
        except (CannotRun, FileNotFoundError) as error:
            write_report("power-cut", what, "not run", why=str(error))
            return
    write_report("power-cut", what, "failed" if wrong else "ok", seed=SEED, results=counts, problems=wrong[:20])
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
