"""Shared fixtures. Random seeds are fixed in the tests that draw numbers."""

from __future__ import annotations

import os

# Set before torch is imported, so that test processes that share cores do not starve each other.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# The same executor on every machine; tests of sandboxes and engines name theirs.
os.environ.setdefault("BENCH_EXECUTOR", "local")

import contextlib
import gc
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

# A shell starts background jobs with SIGINT ignored; commands that tests interrupt would inherit this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"
NANO = [
    "--budget",
    str(REPOSITORY / "tests/specs/nano-budget.yaml"),
    "--profile",
    str(REPOSITORY / "tests/specs/nano-profile.yaml"),
]

Bench = Callable[..., subprocess.CompletedProcess[str]]

LONG_FIRST = (
    "test_in_docker.py", "test_in_podman.py", "test_in_bubblewrap.py", "test_end_to_end.py", "test_stopped_runs.py",
    "test_features.py", "test_two_nodes.py", "test_image_build.py",
    "test_reruns_and_bundles.py", "test_tasks.py", "test_ci.py", "test_learning.py", "test_faults.py", "test_implicit_gemm.py",
    "test_bad_input.py",
)  # fmt: skip
"""Files that take minutes. Started last, one of them would keep one worker busy while the others have nothing left to do."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need an engine or a browser, by their fixtures, and put the slowest files first."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for fixture, mark in (("engine", pytest.mark.docker), ("browser", pytest.mark.browser)):
            if fixture in fixtures:
                item.add_marker(mark)
    place = {name: number for number, name in enumerate(LONG_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cpu-times", type=Path, help="append each test's processor seconds, with its children, to a file"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure CPU time from the first fixture to the last, including children that were waited for."""
    before = sum(os.times()[:4])
    result = yield
    target = item.config.getoption("cpu_times")
    if target is not None:
        with target.open("a") as file:
            file.write(f"{sum(os.times()[:4]) - before:.2f}\t{item.nodeid}\n")
    return result


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data cache for all workers of a session, so that procedural data are written once."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(autouse=True)
def _use_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(cache))


@pytest.fixture(scope="module")
def module_cache(cache: Path) -> Iterator[None]:
    """The data cache for fixtures of a whole module that run commands in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(cache))
        yield


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Runs the command line in an empty folder; `code` is the expected exit code.

    It runs in this process, which saves starting hundreds of interpreters; stages still run in processes of their own. Tests of
    signals, streams and the entry point start a process with `bench_command`.
    """

    def run(*arguments: str, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = run_here(arguments, cwd or tmp_path)
        assert done.returncode == code, f"exit {done.returncode}\nstdout: {done.stdout}\nstderr: {done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


def run_here(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `bench` in this process with these arguments and working folder, and restore the process state that `main` changes."""
    from pretrain_bench.harness.cli.app import main

    out, error, code = io.StringIO(), io.StringIO(), 0
    argv, threshold, handler = sys.argv, gc.get_threshold(), signal.getsignal(signal.SIGTERM)
    sys.argv = ["bench", *map(str, arguments)]
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = argv
        gc.set_threshold(*threshold)
        signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not look at figures: their data are written, and an empty file stands in place of each picture."""
    leave_pictures_empty(monkeypatch)


def leave_pictures_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports write an empty file in place of each picture, until `monkeypatch` is undone."""
    from pretrain_bench.reports import build
    from pretrain_bench.reports.figures.pool import Drawing, FigurePool

    def leave_empty(drawing: Drawing) -> None:
        for suffix in (".png", ".svg", ".pdf"):
            drawing.stem.with_suffix(suffix).write_bytes(b"")

    monkeypatch.setattr(build, "figure_pool", lambda: contextlib.nullcontext(FigurePool(leave_empty, lambda: None)))


def unboxed(text: str) -> str:
    """A message in Typer's box as one line."""
    return " ".join(text.replace("│", "").split())


def bench_command(*arguments: str) -> list[str]:
    """The command line of `bench` with this interpreter."""
    return [sys.executable, "-m", "pretrain_bench", *arguments]


def run_records(runs: Path) -> list[dict]:
    """All records of a store, as parsed JSON."""
    return [json.loads(p.read_text()) for p in sorted(runs.glob("*/*/record.json"))]


@pytest.fixture(scope="session")
def s3dis_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven small rooms in the official S3DIS layout: six for training, one for testing."""
    root = tmp_path_factory.mktemp("s3dis")
    rng = np.random.default_rng(7)
    for area, room in [("Area_1", f"office_{i}") for i in range(6)] + [("Area_5", "office_1")]:
        write_room(root / area / room / "Annotations", rng)
    return root


def write_room(folder: Path, rng: np.random.Generator, points: int = 900) -> None:
    """Write a floor, a wall and a chair that differ clearly in colour and position."""
    folder.mkdir(parents=True)
    plane = rng.uniform(0, 3, (points, 2))
    zeros = np.zeros(points)
    parts = {
        "floor_1": (np.stack([plane[:, 0], plane[:, 1], zeros], 1), (200, 30, 30)),
        "wall_1": (np.stack([plane[:, 0], zeros, plane[:, 1]], 1), (30, 200, 30)),
        "chair_1": (np.stack([1 + plane[:, 0] / 6, 1 + plane[:, 1] / 6, zeros + 0.5], 1), (30, 30, 200)),
    }
    for name, (xyz, colour) in parts.items():
        rgb = np.clip(np.array(colour) + rng.integers(-20, 20, (points, 3)), 0, 255)
        np.savetxt(folder / f"{name}.txt", np.concatenate([xyz, rgb], 1), fmt="%.3f %.3f %.3f %d %d %d")


@pytest.fixture(scope="session")
def rgbd_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small recordings in the ScanNet export layout, ray-cast from procedural rooms."""
    from pretrain_bench.benchmarks.procedural.write import write_recording
    from pretrain_bench.benchmarks.specs.dataset import Dataset
    from pretrain_bench.harness.planning.catalog import find

    shipped = find(Dataset, "rgbd-folder")
    small = shipped.model_copy(
        update={"world": {"seed": 5, "rooms": 2, "frames_per_room": 3, "width": 120, "height": 90}}
    )
    root = tmp_path_factory.mktemp("rgbd")
    for index in range(2):
        write_recording(small, index, f"room{index:04d}_00", root)
    return root


@pytest.fixture(scope="module")
def roots(s3dis_root: Path, rgbd_root: Path) -> list[str]:
    """Options of `bench run` that name the rooms and the recordings."""
    return ["--data", f"s3dis={s3dis_root}", "--pretrain-data", f"rgbd-folder={rgbd_root}"]


@pytest.fixture(scope="session")
def golden_shared() -> Path:
    """The full golden vectors, if they are beside the checkout; they contain real data and are not in the repository."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("needs the golden vectors on real data (../shared/golden), which the project may not carry")
    return folder
