"""`bench status`: the stages that are running in a store, from another shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pretrain_bench as pb
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs

if TYPE_CHECKING:
    from pretrain_bench.api.status import StageUnderWay


def status(runs: Runs = DEFAULT_RUNS, json: Json = False) -> None:
    """Show running stages: progress, steps per second, time left; progress of each `bench run`; runs by outcome.

    A stage is stalled if it has sent no event for a minute and for 20 times the duration of a step; before its first steps, while
    it may read data or compile, for 10 minutes.
    """
    from pretrain_bench.api.display import about
    from pretrain_bench.harness.cli.console import print_json, table

    current = pb.status(runs)
    if json:
        under_way, commands = ([one._asdict() for one in rows] for rows in (current.under_way, current.commands))
        print_json({"under_way": under_way, "commands": commands, "outcomes": current.outcomes})
        return
    rows = [
        (s.key[:8], s.stage, s.seeds, _state(s), f"{s.step}/{s.steps}", _rate(s), _left(s), _by(s))
        for s in current.under_way
    ]
    headers = ("run", "stage", "seeds", "state", "step", "steps/s", "left", "by")
    print(table(headers, rows) if rows else "nothing runs")
    for command in current.commands:
        done, left = f"{command.ended} of {command.stages} stages ended", about(command.seconds_left)
        print(f"bench run ({command.by}): {done}, {left} left")
    print(", ".join(f"{n} {name}" for name, n in sorted(current.outcomes.items())) or "no run has ended yet")


def _state(stage: StageUnderWay) -> str:
    from pretrain_bench.api.display import duration

    if stage.state != "stalled" or stage.silent_seconds is None:
        return stage.state
    return f"stalled for {duration(stage.silent_seconds)}"


def _by(stage: StageUnderWay) -> str:
    """The process that runs it; of a job that has not begun its name and node."""
    return stage.by or " on ".join(filter(None, (stage.job, stage.host))) or "-"


def _rate(stage: StageUnderWay) -> str:
    return "-" if stage.steps_per_second is None else f"{stage.steps_per_second:.2f}"


def _left(stage: StageUnderWay) -> str:
    from pretrain_bench.api.display import duration

    return "-" if stage.seconds_left is None else duration(stage.seconds_left)
