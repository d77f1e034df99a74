"""The committed reports have the verdict ok and name the code that they cover; and parts of the GPU verification run on a CPU."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.harness.planning.catalog import available, find
from tests.verification import gpu, report, status
from tests.verification.code_of import CODE, module_hashes
from tests.verification.report import FOLDER, ROOT
from tests.verification.settings import LEARNING_METHODS, PROBED

TARGETS = re.findall(r"^verify-([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_make_verify_runs_every_verification() -> None:
    line = re.search(r"^verify:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line and sorted(line[1].split()) == sorted(f"verify-{name}" for name in CODE)
    assert sorted(TARGETS) == sorted([*CODE, "status"])
    assert sorted(p.stem for p in FOLDER.glob("*.json")) == sorted(CODE)


@pytest.mark.parametrize("name", CODE)
def test_a_report_is_ok(name: str) -> None:
    """A stale report is only a warning of `make verify-status`; one that is not ok fails here."""
    found = json.loads((FOLDER / f"{name}.json").read_bytes())
    (row,) = (line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith(f"| {name} |"))
    expected = "not run" if "**never run**" in row else "ok"
    assert found["verdict"] == expected, f"{name}.json: {found['verdict']}; repair it, run `make verify-{name}` again"
    assert module_hashes(name), "every module that it covers exists"


def test_a_report_is_stale_by_its_own_modules_alone() -> None:
    (head,) = re.findall(r"^[0-9a-f]{40}", report.commit())
    fresh = {"commit": head, "modules": module_hashes("faults")}
    assert status.state("faults", fresh, []) == (True, "")
    assert "methods.training.loop" not in fresh["modules"], "the stage runner does not even import it"
    old = {**fresh, "modules": {**fresh["modules"], "harness.store.chain": "0" * 64}}
    assert status.state("faults", old, []) == (False, f"changed since {head[:7]}: harness.store.chain")
    first = status.Declaration(["faults"], head, "Names changed. More words.", {"harness.store.chain": "1" * 64})
    assert status.state("faults", old, [first]) == (False, f"changed since {head[:7]}: harness.store.chain")
    second = first._replace(modules={"harness.store.chain": fresh["modules"]["harness.store.chain"]})
    assert status.state("faults", old, [first, second]) == (False, "declared: Names changed")
    assert status.state("faults", old, [second._replace(reports=["gpu"])]).reason.startswith("changed since")


def test_settings_make_the_report_on_learning_stale() -> None:
    fresh = {"commit": "0" * 40, "modules": module_hashes("learning"), "settings": status.settings_hashes("learning")}
    assert status.state("learning", fresh, []).fresh
    assert set(fresh["settings"]) == {"ours", "pointcontrast", "csc", "depthcontrast", "msc", PROBED}
    before_depthcontrast_was_probed = {k: v for k, v in fresh["settings"].items() if k != PROBED}
    for settings in ({**fresh["settings"], "csc": "0" * 64}, before_depthcontrast_was_probed):
        other = {**fresh, "settings": settings}
        assert status.state("learning", other, []) == (False, "recipes, budget, world or probed methods changed")


def test_every_method_that_learns_from_its_own_recipe_is_verified_to_learn() -> None:
    own = {
        name
        for name in available(Method)
        if any(s.recipe and not s.recipe.startswith("tasks.") for s in find(Method, name).stages)
    }
    assert own == set(LEARNING_METHODS)
    for name in own:
        listed = {m for m in CODE["learning"] if m.startswith(f"methods.{name}.")}
        assert {f"methods.{name}.{s.name}" for s in find(Method, name).stages} <= listed, name


def test_declarations_are_append_only(tmp_path: Path) -> None:
    committed = status.read_declarations()
    assert len(committed) >= 4 and all(len(d.why) > 20 and set(d.reports) <= set(CODE) for d in committed)
    path = tmp_path / "declared.yaml"
    shutil.copy(status.DECLARED, path)
    status.declare(["statistics"], "A variable was renamed. Nothing else.", path)
    *before, last = status.read_declarations(path)
    assert before == committed and last.modules == module_hashes("statistics")
    assert status.state("statistics", {"commit": "0" * 40}, [last]) == (False, "declared: A variable was renamed")
    entries = yaml.safe_load(path.read_text())
    for tampered in ([{**entries[0], "why": "Another reason, in hindsight."}, *entries[1:]], entries[1:]):
        path.write_text(yaml.safe_dump(tampered))
        with pytest.raises(ValueError, match="entry 1 was edited"):
            status.read_declarations(path)


def test_status_prints_a_line_for_each_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["status"])
    assert status.main() == 0, "stale reports fail nothing"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CODE)
    assert all(re.match(r"[\w-]+ +(ok|not run) +(fresh|stale)  [0-9a-f]{7}  \S", line) for line in lines)
    gone = {name: {**found, "verdict": "failed"} for name, found in status.read_reports().items()}
    monkeypatch.setattr(status, "read_reports", lambda: gone)
    assert status.main() == 1


def test_a_machine_that_cannot_run_a_verification_leaves_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    path = report.write_report("gpu", "the engine", "ok", numbers=[1])
    written = json.loads(path.read_bytes())
    assert written["modules"] == module_hashes("gpu") and written["numbers"] == [1]
    report.write_report("gpu", "the engine", "not run", why="no CUDA device was at hand")
    assert json.loads(path.read_bytes()) == written
    report.write_report("gpu", "the engine", "failed")
    assert json.loads(path.read_bytes())["verdict"] == "failed"


def test_gpu_parity_holds_on_the_cpu() -> None:
    torch.manual_seed(0)
    assert gpu.operation_parity("cpu") <= gpu.BOUNDS["operations"]
    assert gpu.network_parity("cpu") <= gpu.BOUNDS["network"]


@pytest.mark.slow
def test_bf16_and_fp32_learn_alike() -> None:
    one, two = gpu.curve("cpu", "fp32", 1500, 20), gpu.curve("cpu", "bf16", 1500, 20)
    assert one[-1] < 0.8 * one[0]
    assert one != two
    assert gpu.curve_difference(one, two) <= 0.05


@pytest.mark.slow
def test_the_curves_of_bf16_agree_with_those_of_fp32_within_the_spread_over_seeds() -> None:
    """The losses of the last ten steps, for the profile headline-bf16 (docs/methods.md)."""
    ends = {kind: [gpu.curve("cpu", kind, 1500, 40, seed=s)[-10:] for s in range(4)] for kind in ("fp32", "bf16")}
    single, half = (np.array(ends[kind]).mean(1) for kind in ("fp32", "bf16"))
    assert not np.array_equal(single, half)
    assert np.abs(half - single).max() < single.std(ddof=1)


@pytest.mark.slow
def test_gpu_verification_needs_torch_and_numpy_only(tmp_path: Path) -> None:
    absent = {"pydantic", "pydantic_core", "yaml", "typer", "tqdm", "scipy", "pandas", "PIL", "psutil", "plyfile", "safetensors",
              "rich", "pytest", "matplotlib", "seaborn"}  # fmt: skip
    for entry in Path(torch.__file__).parent.parent.iterdir():
        if entry.name.removesuffix(".py") not in absent and not entry.name.endswith((".pth", ".dist-info")):
            (tmp_path / entry.name).symlink_to(entry)
    code = "from tests.verification import gpu; print(gpu.curve('cpu', 'fp32', 300, 1), gpu.operation_parity('cpu'))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-S", "-c", "import pydantic"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode, "the trial is a trial"


def test_printed_numbers_of_clusters_are_those_of_the_reports() -> None:
    slurm, ray = (
        json.loads((ROOT / f"docs/verification/{name}.json").read_text())["results"] for name in ("cluster", "ray")
    )
    short = slurm["short_stages"]
    each, packed = (short[name]["stages_a_minute"] for name in ("one_job_each", "packed"))
    disturbed = (
        f"{sum(r['random_faults']['stages_by_attempts'].values()):,} stages in {r['random_faults']['suites']} suites"
        for r in (slurm, ray)
    )
    text = (ROOT / "docs/cluster.md").read_text()
    for printed in (
        f"| {slurm['overhead_packed']['overhead_ms_a_stage']} ms, packed | {ray['overhead_ms_a_stage']} ms |",
        f"| stages per minute, {short['stages']} short ones | {each:.0f} as one job each, {packed:.0f} packed |",
        f"| {slurm['second_node']['speed_up']} times as fast (stages of 0.8 to 8 s) | {ray['second_node']['speed_up']} times "
        f"({ray['second_node']['stages']} stages of 0.6 to 6 s) |",
        f"| 100 faults, 20 of each kind | {' | '.join(disturbed)} |",
        f"{ray['random_faults']['interrupted_stages']} stages were interrupted",
    ):
        assert printed in text, printed
    faults = slurm["random_faults"]["faults"]
    assert sum(number for name, number in faults.items() if name.startswith("slurmd")) == 20
    assert {number for name, number in faults.items() if not name.startswith("slurmd")} == {20}
    assert ray["random_faults"]["faults"] == dict.fromkeys(("driver", "head", "node", "raylet", "worker"), 20)
    assert {attempts for r in (slurm, ray) for attempts in r["random_faults"]["stages_by_attempts"]} == {"1"}
    assert "Each stage completed once, with one counted attempt" in " ".join(text.split())
