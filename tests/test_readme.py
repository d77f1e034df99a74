"""Commands, options and files in the README and docs exist, and their tables are true."""

from __future__ import annotations

import inspect
import itertools
import re
import shlex

import pytest

import pretrain_bench as pb
from pretrain_bench.benchmarks.metrics.names import TITLES
from pretrain_bench.benchmarks.metrics.predictions import LAYOUTS
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.harness.contract.run_length import UNITS
from pretrain_bench.harness.planning.catalog import available, find
from tests.conftest import REPOSITORY, Bench

README = (REPOSITORY / "README.md").read_text()
PAGES = {p: p.read_text() for p in sorted((REPOSITORY / "docs").rglob("*.md"))}
DOCS = {p.relative_to(REPOSITORY / "docs").as_posix(): text for p, text in PAGES.items()}
DATA, METHODS = DOCS["data.md"], DOCS["methods.md"]
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", README + "".join(DOCS.values()), flags=re.S)).replace("\\\n", " ")
COMMANDS = sorted({line.split("#")[0].strip() for line in BLOCKS.splitlines() if line.startswith("bench ")})


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 6


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_and_name_exists(command: str, bench: Bench) -> None:
    words = shlex.split(command)[1:]
    names = [w for w in words if not w.startswith("-")][: 2 if words[0] in ("data", "methods") else 1]
    help_text = bench(*names, "--help").stdout
    for word in words:
        if word.startswith("--"):
            assert word in help_text, f"{word} is not an option of bench {' '.join(names)}"
    for flag, value in itertools.pairwise(words):
        if flag == "--budget":
            assert value in available(Budget)


def test_the_budget_table_is_true() -> None:
    amount = r"(exactly|at most) ([\de,]+)"
    rows = re.findall(rf"^\| `([\w-]+)`.*?\| {amount} (\w+) \| {amount} \| `(\S+)` \|", DOCS["budgets.md"], flags=re.M)
    assert {r[0] for r in rows} == set(available(Budget))
    for name, uniform, pretrain, unit, tuned, finetune, profile in rows:
        budget = find(Budget, name)
        halves = ((budget.pretrain, uniform, pretrain, unit), (budget.finetune, tuned, finetune, "steps"))
        for half, how, number, of in halves:
            assert half.amount == float(number.replace(",", "")) and UNITS[half.currency] == of
            assert half.uniformity == how.replace(" ", "_")
        assert budget.default_profile == profile and profile in available(Profile)
    default = next(p.default for p in inspect.signature(pb.cells).parameters.values() if p.name == "budget")
    assert f"`{default}` (default)" in DOCS["budgets.md"]


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", BLOCKS, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_pictures_and_files_exist() -> None:
    for folder, text in ((REPOSITORY, README), *((page.parent, text) for page, text in PAGES.items())):
        for path in re.findall(r"\]\(((?!http)[^)#]+)(?:#[^)]*)?\)", text):
            assert (folder / path).exists(), path


def test_the_tables_of_methods_are_true() -> None:
    methods = {name: find(Method, name) for name in available(Method)}
    groups = re.findall(r"^\| `(\w+)` \|.*\| ([a-z-]+) \|$", README, flags=re.M)
    assert dict(groups) == {name: m.group for name, m in methods.items()}
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \| ([^|]*) \|$", METHODS.partition("\n## ")[0], flags=re.M)
    assert {name for name, _, _ in rows} == set(methods)
    for name, _, stages in rows:
        assert re.findall(r"`(\w+)`", stages) == [s.name for s in methods[name].stages]


def test_the_table_of_datasets_is_true() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (?:`([\w-]+)`|none) \|$", DATA, flags=re.M)
    real = {n: find(Dataset, n) for n in available(Dataset) if not find(Dataset, n).synthetic}
    assert dict(rows) == {n: d.stand_in or "" for n, d in real.items()}


def test_the_table_of_tasks_is_true() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]*) \| (\w+) \| ([^|,]*)", DOCS["tasks.md"], flags=re.M)
    assert {r[0] for r in rows} == set(available(Task))
    for name, dataset, kind, judged in rows:
        task = find(Task, name)
        assert task.kind == kind and TITLES[task.headline_metric].startswith(judged.strip())
        assert dataset.replace(" ", "").replace("-", "").lower() == task.dataset


def test_predictions_hold_what_the_table_says() -> None:
    for kind, layout in LAYOUTS.items():
        row = re.search(rf"^\| {kind} \| (`.*)\|$", DOCS["tasks.md"], flags=re.M)
        assert row, kind
        assert re.findall(r"`([a-z_]+)` ?\(?", row[1]) == list(layout)
