"""The workflows in the repository and `.ci/run`: their commands exist and run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, bench_command

WORKFLOW = REPOSITORY / ".github/workflows/smoke.yml"
TESTS = REPOSITORY / ".github/workflows/tests.yml"


def commands(job: str) -> list[list[str]]:
    """Every `bench` command of a job."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"][job]["steps"]
    lines = [line for s in steps for line in s.get("run", "").splitlines() if line.startswith("bench ")]
    return [shlex.split(line) for line in lines]


def test_the_workflow_parses_and_installs_from_the_locks() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert set(workflow["jobs"]) == {"local", "docker"}
    for job in workflow["jobs"].values():
        install = next(s["run"] for s in job["steps"] if s.get("name") == "install")
        named = re.findall(r"-r (\S+)", install)
        assert named and all((REPOSITORY / name).is_file() for name in named)
        assert job["timeout-minutes"] <= 60


def test_a_push_runs_the_fast_tests_and_a_night_runs_all() -> None:
    workflow = yaml.safe_load(TESTS.read_text())
    jobs = {name: [s["run"] for s in job["steps"] if "run" in s] for name, job in workflow["jobs"].items()}
    assert jobs["push"] == ["make lint", "make test", "make smoke"]
    assert {"make lint", "make test-all", "make smoke"} <= set(jobs["nightly"])
    triggers = workflow[True]  # YAML parses the key `on` as a boolean
    assert {"push", "pull_request"} <= set(triggers) and triggers["schedule"][0]["cron"].split()[2:] == ["*", "*", "*"]
    assert workflow["jobs"]["push"]["if"] == "github.event_name != 'schedule'"
    assert "github.event_name == 'schedule'" in workflow["jobs"]["nightly"]["if"]
    for target in re.findall(r"make ([a-z-]+)", " ".join([*jobs["push"], *jobs["nightly"]])):
        assert target in made(), target


def made() -> dict[str, str]:
    """The targets that `make help` lists, with their descriptions."""
    lines = make("help").splitlines()
    return {line.split()[1]: line for line in lines}


def make(*arguments: str) -> str:
    """The output of make in the checkout."""
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_help_lists_all_targets() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.M)
    assert phony is not None and set(made()) == set(phony[1].split())


def test_marks_separate_the_sets_of_tests_and_ci_runs_each() -> None:
    chosen = {}
    for target in ("test", "test-slow", "test-all"):
        (line,) = [line for line in make("-n", target, "WORKERS=3").splitlines() if " -m pytest " in line]
        words = shlex.split(line)
        assert "--durations=20" in words and words[words.index("-n") + 1] == "3"
        assert ("--cov-fail-under=90" in words) == (target == "test-all"), target
        chosen[target] = [words[i + 1] for i, w in enumerate(words) if w == "-m"][1:]
    assert chosen == {"test": [], "test-slow": ["slow or docker or browser"], "test-all": [""]}
    options = (REPOSITORY / "pyproject.toml").read_text()
    assert "-m 'not (slow or docker or browser)'" in options, "what plain pytest runs"
    lines = [line for line in (REPOSITORY / ".ci/run").read_text().splitlines() if line.startswith("make ")]
    assert lines == ["make lint", "make docs", "make smoke", "make test", "make test-slow"]


@pytest.mark.parametrize("job", ["local", "docker"])
def test_every_command_and_option_of_the_workflow_exists(job: str, bench) -> None:
    found = commands(job)
    assert [c[1] for c in found][-1] == "audit"
    for command in found:
        words = [w for w in command[1:] if not w.startswith("-")]
        help_of = words[:2] if words[0] in ("images", "data", "methods") else words[:1]
        text = bench(*help_of, "--help").stdout
        for option in (w for w in command if w.startswith("--") and " " not in w):
            assert option in text, f"{option} of {' '.join(command)}"


@pytest.mark.slow
def test_the_local_job_runs(cache: Path, tmp_path: Path) -> None:
    """Runs two methods only, to limit the duration of the test."""
    for command in commands("local"):
        more = ["--only", "method=scratch,supervised"] if command[1] in ("plan", "run") else []
        done = subprocess.run(
            bench_command(*command[1:], *more), cwd=tmp_path, env={**os.environ, "BENCH_CACHE": str(cache)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (tmp_path / "report/index.html").is_file() and (tmp_path / "report/audit.html").is_file()
    assert len(list((tmp_path / "runs/finetune").glob("*/record.json"))) == 4


def test_what_the_documentation_shows_runs(tmp_path: Path, bench) -> None:
    text = (REPOSITORY / "docs/ci.md").read_text()
    suite = re.search(r"```yaml\n(.*?)```", text, re.S)
    assert suite is not None
    (tmp_path / "mine.yaml").write_text(suite.group(1))
    assert "3 cells" in bench("plan", "mine.yaml").stdout
    for line in re.search(r"```sh\n(.*?)```", text, re.S).group(1).splitlines():  # type: ignore[union-attr]
        assert bench(line.split()[1], "--help").returncode == 0


@pytest.mark.slow  # tests/methods/test_stages.py trains each method in the fast set
def test_every_arm_of_the_suite_is_given_and_uses_the_same(cache: Path, tmp_path: Path) -> None:
    """The records confirm the budget rule (docs/architecture.md#budgets): one currency, the same total for every method."""
    import json

    from tests.conftest import NANO

    suite = {
        "name": "arms", "version": 1, "budget": NANO[1], "profile": NANO[3], "tasks": ["s3dis-sem"],
        "methods": ["supervised", "pointcontrast", "csc", "depthcontrast", "msc", "ours"],
    }  # fmt: skip
    (tmp_path / "arms.yaml").write_text(json.dumps(suite))
    done = subprocess.run(
        bench_command("run", "--suite", "arms.yaml", "--json", "--threads", "1"), cwd=tmp_path,
        env={**os.environ, "BENCH_CACHE": str(cache)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    used: dict[str, dict[str, int]] = {}
    for report in json.loads(done.stdout):
        record = report["record"]
        arm = used.setdefault(record["method"], {"pretrain": 0, "finetune": 0})
        arm[record["kind"]] += record["ledger"]["optimizer_steps"]
    assert len(used) == 6 and {tuple(arm.items()) for arm in used.values()} == {(("pretrain", 8), ("finetune", 4))}, (
        used
    )
