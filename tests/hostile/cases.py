"""The hostile stages with their expected ends, and the checks after each."""

from __future__ import annotations

import errno
import time
from pathlib import Path

from pretrain_bench.benchmarks.specs.budget import BudgetHalf
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.store.store import LOG, Store, is_done
from tests.hostile.sandboxes import InEngine, Sandbox, expected

SANDBOXES = ("docker", "podman", "bubblewrap")
CAPS = BudgetHalf(
    currency="optimizer_steps",
    optimizer_steps=8,
    wall_seconds=12,
    grace_seconds=2,
    memory_mib=600,
    disk_mib=200,
    cpus=1,
)

# Case: outcome, words that the message or log must contain, words that they must not contain.
CASES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "honest": ("ok", (), ()),
    "network": ("ok", ("not reached", "interfaces: ['lo']"), ("reached (",)),
    "writes_outside": ("ok", ("refused", "0000000000000000"), ("wrote", "user 0")),
    "reads_another_run": ("ok", ("found []", "socket False"), ("secret.txt'",)),
    "looks_for_labels": ("ok", ("labels []",), ()),
    "forks": ("ok", ("forks",), ("forks 100000",)),
    "memory": ("oom_host", ("memory",), ()),
    "memory_itself": ("oom_host", ("memory",), ()),
    "disk": ("over_budget", ("disk",), ()),
    "ignores_sigterm": ("timeout", ("wall",), ()),
    "much_log": ("ok", ("what follows was not kept",), ()),
    "floods_events": ("ok", (), ()),
    "long_and_nested_lines": ("ok", (), ()),
    "nan_checkpoint": ("invalid_output", ("non-finite",), ()),
    "truncated_checkpoint": ("invalid_output", ("not a safetensors file",), ()),
    "wrong_shape": ("invalid_output", ("has shape",), ()),
    "pickled_checkpoint": ("invalid_output", ("not a safetensors file",), ("pwned",)),
    "pickled_array": ("invalid_output", ("features.npy", "files only"), ("pwned",)),
    "bomb": ("invalid_output", ("predictions.npz", "files only"), ()),
    "symlink": ("invalid_output", ("a link or special file",), ("root:",)),
    "symlinked_artifacts": ("invalid_output", ("not a folder",), ("root:",)),
    "hard_link": ("invalid_output", ("a link or special file",), ()),
    "pipe": ("invalid_output", ("a link or special file",), ()),
    "device": ("ok", ("refused",), ()),
    "events_are_a_link": ("invalid_output", ("without an end event",), ("root:",)),
    "events_are_a_pipe": ("invalid_output", ("without an end event",), ()),
    "strange_names": ("invalid_output", ("a name with control characters",), ()),
    "events_are_a_folder": ("invalid_output", ("without an end event",), ()),
    "deep_folders": ("invalid_output", ("nested folders",), ()),
    "refuses_late": ("crashed", ("I do not like this",), ()),
    "cancels_itself": ("crashed", ("unasked",), ()),
    "claims_a_full_disk": ("crashed", ("No space left",), ()),
    "sparse_file": ("over_budget", ("disk",), ()),
    "many_words": ("ok", (), ()),
    "nested_pickle": ("invalid_output", ("not a safetensors file",), ("pwned",)),
    "escapes_and_markup": ("crashed", ("<script>",), ()),
    "forged_end": ("crashed", ("exit code 3",), ()),
    "fewer_steps": ("invalid_output", ("ledger says 1 steps, its events go to step 7",), ()),
    "more_steps": ("over_budget", ("5,000 steps", "allows 8"), ()),
    "nothing": ("invalid_output", ("without an end event",), ()),
    "exits_137": ("crashed", ("exit code 137",), ()),
    "hangs": ("timeout", (), ()),
    "zombie": ("ok", (), ()),
}


def cases_in(name: str) -> list[str]:
    """The cases that run in a sandbox."""
    return [case for case in CASES if expected(name, case, CASES)]


def check_case(sandbox: Sandbox, name: str, case: str, planned: PlannedStage, tmp_path: Path) -> None:
    """Run a hostile stage: it ends within its limits with the right outcome, and host and store are intact."""
    store = Store(tmp_path / "runs")
    (tmp_path / "secret.txt").write_text("another run")
    began = time.monotonic()
    record = sandbox.run(case, planned, store)
    outcome, words, never = expected(name, case, CASES) or ("", (), ())
    folder = store.folder("pretrain", planned.spec.key)
    log = (folder / LOG).read_text(errors="replace")
    text = record.message + log
    assert record.outcome == outcome, (record.outcome, record.message, log[-2000:])
    assert all(w in text for w in words), text[-2000:]
    assert not any(w in text for w in never), text[-2000:]
    assert time.monotonic() - began < CAPS.wall_seconds + CAPS.grace_seconds + 30
    assert "\x1b" not in record.message and (folder / LOG).stat().st_size < 18 << 20
    assert (folder / "record.json").stat().st_size < 1 << 20, "a record stays small, whatever a stage says"
    assert "\x1b" not in (folder / "record.json").read_text() and "\\u001b" not in (folder / "record.json").read_text()
    assert record.executor == name and record.label_isolation == "mounts"
    sandbox.check_nothing_is_left(record)
    assert not Path("oom").exists(), "left in the working folder by conmon"
    assert [r.key for r in store.records()] == [planned.spec.key], "the store is whole"
    assert not any(p.is_symlink() for p in folder.rglob("*"))
    if not is_done(record):
        # The next run succeeds, whatever the hostile one left.
        assert sandbox.run("honest", planned, store).outcome == "ok"


def check_system_calls(sandbox: InEngine, planned: PlannedStage, tmp_path: Path) -> None:
    """The profile refuses them with EPERM or ENOSYS; without it, io_uring_setup fails with EFAULT and keyctl with EOPNOTSUPP."""
    store = Store(tmp_path / "runs")
    record = sandbox.run("system_calls", planned, store)
    log = (store.folder("pretrain", planned.spec.key) / LOG).read_text()
    assert record.outcome == "ok", log[-2000:]
    errors = {line.split()[1]: int(line.split()[2]) for line in log.splitlines() if line.startswith("call ")}
    assert len(errors) == 13 and errors.pop("clone3") == errno.ENOSYS
    assert set(errors.values()) == {errno.EPERM}, errors
