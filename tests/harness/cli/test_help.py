"""Help explains every option with its choices and default, equally for `bench run` and `bench plan`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import typer

from pretrain_bench.api.status import STALLED_BEFORE_STEPS_SECONDS, STALLED_SECONDS
from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.specs.dataset import Dataset, UpChoice
from pretrain_bench.harness.cli import choices, completion
from pretrain_bench.harness.cli.app import app
from pretrain_bench.harness.executors.base import STALL_FACTOR
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.prepared_data import DEFAULT_STRIDE
from pretrain_bench.harness.running.stage_runner import Retry
from pretrain_bench.harness.store.retention import KEEPS
from pretrain_bench.harness.store.store import KINDS as RUN_KINDS
from pretrain_bench.reports.export.loggers import KINDS
from pretrain_bench.reports.figures.style import FigureKind
from tests.conftest import Bench

COMPUTED = ("executor", "runs")
"""Options whose default `bench.yaml` can set; help shows the default without it."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, with its name on the command line."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_is_explained_with_its_default(
    words: tuple[str, ...], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("COLUMNS", "200")
    text = re.sub(r"[\s│]+", " ", bench(*words, "--help").stdout)
    described = COMMANDS[words].help or ""
    assert described and not re.search(r"[^\n]\n[^\n]", described), "the terminal breaks lines, not the source"
    for option in COMMANDS[words].params:
        assert option.opts[0] in text or (option.metavar or option.name) in text, option.name
        assert option.help, f"{' '.join(words)}: {option.name} has no help"
        if option.default not in (None, False, (), [], "") and not option.required:
            default = str(getattr(option.default, "value", option.default))
            shown = option.opts[0].removeprefix("--") if option.default is True else default
            assert f"[default: {shown}]" in text, f"{' '.join(words)}: the default of {option.name}"


def test_status_says_when_a_stage_is_stalled() -> None:
    text = COMMANDS[("status",)].help
    steps = f"for a minute and for {STALL_FACTOR:g} times the duration of a step"
    assert STALLED_SECONDS == 60 and steps in text
    assert (
        f"before its first steps, while it may read data or compile, for {STALLED_BEFORE_STEPS_SECONDS / 60:g}" in text
    )


def test_plan_takes_all_that_run_takes() -> None:
    run, plan = ({o for p in COMMANDS[(name,)].params for o in p.opts} for name in ("run", "plan"))
    where = {"--slurm", "--max-pending", "--detach", "--address"}
    assert run - plan == {"--stop-when-decided", *where}
    assert plan - run == {"--simulate", "--all"}, "--on is the place of a run, and the machine of an estimate"


def test_choices_are_those_of_the_models() -> None:
    assert get_args(choices.UpChoice) == get_args(UpChoice)
    assert get_args(choices.Keep) == KEEPS and get_args(choices.Checkpoint) == CHECKPOINTS
    assert get_args(choices.Figures) == get_args(FigureKind)
    assert [e.value for e in choices.Exporter] == list(KINDS)
    assert choices.FRAME_STRIDE == DEFAULT_STRIDE
    assert completion.RUN_KINDS == RUN_KINDS
    worlds = {w for name in available(Dataset) for w in find(Dataset, name).worlds}
    assert set(get_args(choices.World)) == worlds
    (retry,) = (p for p in COMMANDS["run",].params if p.name == "retry")
    assert str(get_args(Retry)[1]) == retry.default


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        pytest.param("run --task s3dis-", ["s3dis-inst", "s3dis-sem"], marks=pytest.mark.slow),
        ("run --method ours,scr", ["ours,scratch"]),
        pytest.param("run --budget uniform-", ["uniform-flops"], marks=pytest.mark.slow),
        pytest.param("report --suite table1-", ["table1-paper"], marks=pytest.mark.slow),
        pytest.param("plan --on rtx", ["rtx4090"], marks=pytest.mark.slow),
        pytest.param("data info semantic", ["semantickitti"], marks=pytest.mark.slow),
        pytest.param("budgets show ti", ["tiny"], marks=pytest.mark.slow),
        ("run --device c", ["cpu", "cuda"]),
        ("show ab", ["abcd1234", "abfeatures"]),
        ("show --runs other ef", ["efgh5678"]),
    ],
)
def test_values_are_completed(line: str, completed: list[str], tmp_path: Any) -> None:
    for run in ("runs/finetune/abcd1234", "runs/features/abfeatures", "other/finetune/efgh5678"):
        (tmp_path / run).mkdir(parents=True)
    code = "import sys; from pretrain_bench.harness.cli.app import main\ntry: main()\nfinally: print('pydantic' in sys.modules)"
    words = f"bench {line}"
    shell = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['bench']\n{code}"], cwd=tmp_path, env={**os.environ, **shell},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == [*completed, "False"], "nothing slow is loaded for it"


def test_keys_of_the_folder_in_bench_yaml_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RUNS", raising=False)
    (tmp_path / "other/finetune/efgh5678").mkdir(parents=True)
    context = SimpleNamespace(params={})
    (tmp_path / "bench.yaml").write_text("runs: other\n")
    assert completion.keys(context, "") == ["efgh5678"]  # type: ignore[arg-type]
    (tmp_path / "bench.yaml").write_text("runs: [\n")
    assert completion.keys(context, "") == [], "a damaged file completes nothing"  # type: ignore[arg-type]


def test_completion_of_the_module_is_that_of_the_command() -> None:
    line = [sys.executable, "-m", "pretrain_bench", "--show-completion", "bash"]
    script = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert "_BENCH_COMPLETE=complete_bash" in script and script.rstrip().endswith(" bench"), script
