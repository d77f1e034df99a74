"""`bench tasks|budgets|profiles|suites|methods|data ls` and `show`: the shipped specs, and their fields explained."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.options import Json

if TYPE_CHECKING:
    from pretrain_bench.api.specs import ExplainedField, Kind

tasks = typer.Typer(help="Tasks: dataset, metric and evaluation of a fine-tuning.", no_args_is_help=True)
budgets = typer.Typer(help="Budgets: limits that are the same for every method.", no_args_is_help=True)
profiles = typer.Typer(help="Profiles: recipes of pre-training and fine-tuning.", no_args_is_help=True)
suites = typer.Typer(
    help="Suites: predefined sets of cells (method x task x label ratio x seed).", no_args_is_help=True
)


def list_command(kind: Kind, headers: tuple[str, ...], row: Callable[[Any], tuple[object, ...]]) -> Callable[..., None]:
    """`ls` of one kind; `row` gives the cells of a spec."""

    def ls(json: Json = False) -> None:
        from pretrain_bench.harness.cli.console import print_json, table

        listed = pb.list_specs(kind)
        if json:
            print_json([spec.model_dump(mode="json") for spec in listed])
        else:
            print(table(headers, map(row, listed)))

    ls.__doc__ = f"List the {kind} that ship."
    return ls


def show_command(kind: Kind, pattern: str) -> Callable[..., None]:
    """`show` of one kind; `pattern` finds the files whose names a shell completes."""

    def show(name: str, json: Json = False) -> None:
        from pretrain_bench.harness.cli.console import print_json

        fields = pb.explain(kind, name)
        if json:
            print_json([field._asdict() for field in fields])
        else:
            print("\n".join(map(_explained, fields)))

    completed = typer.Argument(help="A name, or your own file.", autocompletion=lambda: completion.names(pattern))
    show.__annotations__["name"] = Annotated[str, completed]
    show.__doc__ = "Show every field with its value, unit, default and meaning."
    return show


def _explained(field: ExplainedField) -> str:
    """A field's name and value on a line that is never wrapped, to be found and copied, and what it means below."""
    from pretrain_bench.api.display import printable
    from pretrain_bench.harness.cli.console import WIDTH

    unit = "" if field.unit == "-" else f" {field.unit}"
    default = (
        "" if not field.default else " (required)" if field.default == "required" else f" (default {field.default})"
    )
    below = textwrap.fill(f"{field.meaning}{default}", WIDTH, initial_indent="    ", subsequent_indent="    ")
    return printable(f"{field.field}: {field.value}{unit}") + f"\n{printable(below)}"


def _sentence(text: str) -> str:
    """The first sentence of a description."""
    return " ".join(text.split()).partition(". ")[0].rstrip(".")


def list_suites(json: Json = False) -> None:
    """List the suites that ship."""
    from pretrain_bench.harness.cli.console import WIDTH, print_json

    listed = pb.list_suites()
    if json:
        print_json([s.model_dump(mode="json") for s in listed])
        return
    for s in listed:
        print(f"{s.name}: {sum(1 for _ in s.cells('-', '-'))} cells, budget {s.budget}")
        for text in (s.description.strip(), f"tasks: {', '.join(s.tasks)}"):
            print(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))


list_tasks = list_command(
    "tasks", ("name", "title", "kind", "dataset", "judged by"),
    lambda t: (t.name, t.title, t.kind, t.dataset, t.headline_metric),
)  # fmt: skip
list_budgets = list_command(
    "budgets", ("name", "pre-training", "fine-tuning", "profile", "description"),
    lambda b: (b.name, _half(b.pretrain), _half(b.finetune), b.default_profile or "headline", _sentence(b.description)),
)  # fmt: skip
list_profiles = list_command(
    "profiles", ("name", "extends", "width", "description"),
    lambda p: (p.name, ", ".join(p.bases) or "-", f"{p.network.width:g}", _sentence(p.description)),
)  # fmt: skip


def _half(half: Any) -> str:
    return f"{half.uniformity.replace('_', ' ')} {half.amount:,g} {half.currency.value.replace('_', ' ')}"
