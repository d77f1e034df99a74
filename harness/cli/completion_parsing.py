"""Commands that complete without converting values: for that Typer loads pydantic, which takes as long as all the rest."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As ever; for a completion without values, which decide nothing there."""
        if not ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        ctx.args = _without_values(self, ctx, args)
        return ctx.args


class Group(TyperGroup):
    """A command with commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As ever; for a completion without values, up to the command in it."""
        if not ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        rest = _without_values(self, ctx, args)
        ctx._protected_args, ctx.args = rest[:1], rest[1:]
        return ctx.args


def _without_values(command: TyperCommand | TyperGroup, ctx: Any, args: list[str]) -> list[str]:
    """The arguments after the options; every parameter counts as not given, so that each can be completed. Only the folder of
    --runs stays, whose keys are completed."""
    parser = command.make_parser(ctx)
    options, rest, _ = parser.parse_args(args=args)
    ctx._opt_prefixes.update(parser._opt_prefixes)
    ctx.params = {param.name: options.get("runs") if param.name == "runs" else None for param in command.params}
    return rest
