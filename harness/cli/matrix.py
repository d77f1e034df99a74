"""Options of `bench run` and `bench plan`: the cells and the settings. Each option is defined here once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_type_hints

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.options import (
    DEFAULT_RUNS,
    Backend,
    Data,
    Device,
    ExecutorName,
    ImagenetWeights,
    Json,
    LabelSplits,
    Only,
    PretrainData,
    PretrainedOn,
    Runs,
    Strict,
    Threads,
    TrustCode,
    Up,
    data_roots,
    label_splits,
)

if TYPE_CHECKING:
    from pretrain_bench.benchmarks.specs.suite import Suite

SEVERAL = "several after one another, or with commas"
AXES = ("--method", "--task", "--protocol", "--label-ratio", "--pretrain-seed", "--finetune-seed")
"""Options that take several values; `app.main` repeats the option for each."""


class Matrix(NamedTuple):
    """The options as given."""

    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIELD=PATTERN]...",
            help="The same as --only.",
            show_default=False,
            autocompletion=completion.suites,
        ),
    ] = None
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="A pre-training method, the folder of your own method, or your checkpoints, NAME=[ORIGIN:]FILE[,FILE...]; "
            f"{SEVERAL}.",
            autocompletion=completion.methods,
        ),
    ] = None
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help=f"Task to fine-tune and score, by name or YAML file; {SEVERAL}.",
            autocompletion=completion.tasks,
        ),
    ] = None
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="A whole matrix, by name or YAML file, instead of methods and tasks.",
            autocompletion=completion.suites,
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Limits, by name or YAML file. (default: uniform with a GPU and data for the task, else smoke)",
            autocompletion=completion.budgets,
        ),
    ] = None
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="Recipe, by name or YAML file. (default: the one the budget names)",
            autocompletion=completion.profiles,
        ),
    ] = None
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            help="finetune, linear (frozen backbone, linear head) or decoder (frozen encoder); "
            f"{SEVERAL}. (default: finetune)",
        ),
    ] = None
    label_ratio: Annotated[
        list[str] | None,
        typer.Option(
            "--label-ratio",
            help="Labels: 20%, 0.2, 20points or 4boxes a scene, or an official list such as scannet-lr20 or la20; "
            f"{SEVERAL}. (default: 100%)",
        ),
    ] = None
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, metavar="N", help="Pre-training seeds 0 to N-1, as --pretrain-seed 0 1 2 ..."),
    ] = None
    pretrain_seed: Annotated[
        list[str] | None,
        typer.Option(
            "--pretrain-seed",
            metavar="SEED",
            help=f"{SEVERAL.capitalize()}. (default: 0; one for each file of a checkpoint)",
        ),
    ] = None
    finetune_seed: Annotated[
        list[str] | None, typer.Option("--finetune-seed", metavar="SEED", help=f"{SEVERAL.capitalize()}. (default: 0)")
    ] = None
    only: Only = None
    data: Data = None
    pretrain_data: PretrainData = None
    imagenet_weights: ImagenetWeights = None
    pretrained_on: PretrainedOn = None
    label_split: LabelSplits = None
    threads: Threads = None
    backend: Backend = "torch"
    device: Device = "auto"
    executor: ExecutorName = "auto"
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Number of stages in parallel on this machine. (default: as many as fit)"
        ),
    ] = None
    retry: Annotated[
        Literal["none", "infra", "failed"],
        typer.Option(
            "--retry", help="Which runs to retry: none, infra (interrupted by the machine), failed (infra and failed)."
        ),
    ] = "infra"
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild stale images.")] = False
    strict: Strict = False
    synthetic: Annotated[
        bool,
        typer.Option(
            "--synthetic", help="Allow a GPU-sized budget, or pre-training before a real task, on generated data."
        ),
    ] = False
    trust_code: TrustCode = False
    up: Up = "auto"
    runs: Runs = DEFAULT_RUNS
    json: Json = False

    @property
    def filters(self) -> list[str]:
        """Patterns that pick cells of a suite."""
        return [*(self.only or []), *(w for w in self.words or [] if "=" in w)]

    @property
    def names(self) -> list[str]:
        """Words without a `=`."""
        return [word for word in self.words or [] if "=" not in word]

    def settings(self) -> pb.Settings:
        """The settings: everything but the cells."""
        return pb.Settings(
            data_roots(self.data, self.pretrain_data), self.pretrain_data or (), self.imagenet_weights, self.threads,
            self.backend, self.device, self.executor, self.trust_code, self.up, self.pretrained_on or (),
            label_splits(self.label_split),
        )  # fmt: skip

    def cells(
        self, command: str, say: Callable[[str], None], on: str | None = None, settings: pb.Settings | None = None
    ) -> Suite:
        """The suite that is named, or one of the cells that the options name, with a budget that fits where none is named; for
        `settings` in place of those of the options where stages run elsewhere.

        Raises WrongUse with the right command where names stand without their options, or an option is missing.
        """
        single = {
            "--method": self.method, "--task": self.task, "--budget": self.budget, "--profile": self.profile,
            "--protocol": self.protocol, "--label-ratio": self.label_ratio, "--seeds": self.seeds,
            "--pretrain-seed": self.pretrain_seed,
            "--finetune-seed": self.finetune_seed,
        }  # fmt: skip
        given = [flag for flag, value in single.items() if value is not None]
        if self.names:
            raise pb.WrongUse(_right_command(command, self.names))
        if self.suite is not None:
            if given:
                raise pb.WrongUse(f"--suite and {given[0]}: a suite names its own; pick among its cells with --only")
            return pb.suite(self.suite)
        if self.filters:
            raise pb.WrongUse(f"{self.filters[0]!r}: filters pick cells of a --suite")
        for flag in ("--method", "--task"):
            if flag not in given:
                raise pb.WrongUse(f"{flag} is missing; name a method and a task, or a --suite")
        if self.seeds is not None and self.pretrain_seed is not None:
            raise pb.WrongUse("--seeds and --pretrain-seed: both set the pre-training seeds; give one of them")
        methods, tasks, budget = split_values(self.method), split_values(self.task), self.budget
        if budget is None:
            budget, reasons = pb.fitting_budget(methods, tasks, settings or self.settings(), on)
            for reason in reasons:
                say(reason)
        return pb.cells(
            methods,
            tasks,
            budget=budget,
            profile=self.profile,
            protocols=split_values(self.protocol) or ["finetune"],
            label_ratios=split_values(self.label_ratio) or ["100%"],
            pretrain_seeds=range(self.seeds) if self.seeds else _seeds("--pretrain-seed", self.pretrain_seed),
            finetune_seeds=_seeds("--finetune-seed", self.finetune_seed) or [0],
        )


def takes_matrix(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer reads it: with the fields of `Matrix` as its options, which come to it as its first argument."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    hints = get_type_hints(Matrix, include_extras=True)
    keyword, defaults = inspect.Parameter.KEYWORD_ONLY, Matrix._field_defaults
    shared = [inspect.Parameter(n, keyword, default=defaults[n], annotation=hints[n]) for n in Matrix._fields]

    @functools.wraps(command)
    def with_options(**options: Any) -> None:
        matrix = Matrix(**{name: options.pop(name) for name in Matrix._fields})
        command(matrix, **options)

    parameters = [*shared, *(p.replace(kind=keyword) for p in own)]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options


def split_values(values: Iterable[str] | None) -> list[str]:
    """Each value, split at its commas. NAME=FILE,FILE and the path of something that exists stay whole."""
    whole = [[v] if "=" in v or Path(v).exists() else v.split(",") for v in values or ()]
    return [part.strip() for parts in whole for part in parts if part.strip()]


def _seeds(flag: str, values: list[str] | None) -> list[int] | None:
    """The seeds that an option names; None where it is not given."""
    texts = split_values(values)
    for text in texts:
        if not text.isdecimal():
            raise pb.WrongUse(f"{flag} {text!r}: expected whole numbers from 0, such as {flag} 0 1 2")
    return [int(text) for text in texts] or None


def repeated(arguments: list[str]) -> list[str]:
    """`--pretrain-seed 0 1 2` as an option that is given three times: words after an option of `AXES` are values of it, up to the
    next option or FIELD=PATTERN."""
    if not arguments or arguments[0] not in ("run", "plan"):
        return arguments
    expanded: list[str] = []
    flag, values = "", 0
    for argument in arguments:
        if argument.startswith("--") or argument == "-h":
            flag, values = argument if argument in AXES else "", 0
        elif flag:
            values += 1
            if values > 1 and ("=" not in argument or flag == "--method"):
                expanded.append(flag)
        expanded.append(argument)
    return expanded


def _right_command(command: str, words: list[str]) -> str:
    """What to type in place of names without their options."""
    known = {"--method": completion.METHODS, "--task": completion.TASKS, "--suite": completion.SUITES,
             "--budget": completion.BUDGETS}  # fmt: skip
    names = {flag: completion.names(kind) for flag, kind in known.items()}
    flags = [next((flag for flag in known if word in names[flag]), None) for word in words]
    if None in flags:
        stranger = words[flags.index(None)]
        return (
            f"{stranger!r}: not a method, task, suite or budget, and names need their option: "
            f"bench {command} --method ours --task s3dis-sem"
        )
    right = " ".join(f"{flag} {word}" for flag, word in zip(flags, words, strict=True))
    return f"{' '.join(words)}: names need their option; type: bench {command} {right}"
