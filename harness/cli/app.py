"""`bench`: the commands and the entry point. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

import pretrain_bench as pb
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, reason_of
from pretrain_bench.harness.cli import (
    audit,
    catalog,
    clean,
    completion,
    data,
    doctor,
    features,
    images,
    methods,
    plan,
    power,
    report,
    run,
    show,
    status,
    unpack,
)
from pretrain_bench.harness.cli.completion_parsing import Command, Group
from pretrain_bench.harness.cli.matrix import repeated
from pretrain_bench.harness.cli.streams import secure_streams

NAME, DEBUG_FLAG = "bench", "--debug"
app = typer.Typer(
    name=NAME,
    cls=Group,
    help="Does pre-training help a 3D network, by how much, and how sure are we? Equal budgets, recorded runs, honest numbers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"{DEBUG_FLAG}, anywhere on the line, shows the traceback behind an error.",
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"bench {pb.__version__}")
        raise typer.Exit


@app.callback()
def bench(
    context: typer.Context,
    asked: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """Options of `bench` itself; the help text is the app's. Settings in `bench.yaml` become the defaults of each command."""
    from pretrain_bench.api.configuration import VARIABLES, configuration

    held = configuration()
    defaults = {name: str(value) for name in ("runs", "executor") if (value := getattr(held, name)) is not None}
    groups = {name: dict.fromkeys((c for of, c, _ in _COMMANDS if of is group), defaults) for group, name in _GROUPS}
    context.default_map = {**{name: defaults for of, name, _ in _COMMANDS if of is app}, **groups}
    if held.cache is not None:
        os.environ.setdefault(VARIABLES["cache"], str(held.cache))


class Interrupted(BenchError):
    """Ctrl-C outside of a running stage."""


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Turn Ctrl-C into an `Interrupted` error; Typer would print its own text and exit code."""

    @functools.wraps(command)
    def run_command(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; finished work is kept, rerun the same command to resume") from None

    run_command.__doc__ = one_line_each(command.__doc__ or "")
    return run_command


def one_line_each(text: str) -> str:
    """A docstring with each paragraph joined into one line: Typer keeps line breaks, so the terminal could not wrap it."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


_COMMANDS: tuple[tuple[typer.Typer, str, Callable[..., None]], ...] = (
    (app, "run", run.run),
    (app, "plan", plan.plan),
    (app, "power", power.power),
    (app, "status", status.status),
    (app, "report", report.report),
    (app, "show", show.show),
    (app, "features", features.features),
    (app, "audit", audit.audit),
    (app, "unpack", unpack.unpack),
    (app, "clean", clean.clean),
    (app, "doctor", doctor.doctor),
    (data.app, "ls", data.ls),
    (data.app, "show", catalog.show_command("data", completion.DATASETS)),
    (data.app, "info", data.info),
    (data.app, "init", data.init),
    (data.app, "prepare", data.prepare),
    (data.app, "verify", data.verify),
    (data.app, "subset", data.subset),
    (data.app, "synth", data.synth),
    (data.app, "preview", data.preview),
    (images.app, "build", images.build),
    (images.app, "ls", images.ls),
    (images.app, "check", images.check),
    (images.app, "lock", images.lock),
    (images.app, "prune", images.prune),
    (catalog.tasks, "ls", catalog.list_tasks),
    (catalog.tasks, "show", catalog.show_command("tasks", completion.TASKS)),
    (catalog.budgets, "ls", catalog.list_budgets),
    (catalog.budgets, "show", catalog.show_command("budgets", completion.BUDGETS)),
    (catalog.profiles, "ls", catalog.list_profiles),
    (catalog.profiles, "show", catalog.show_command("profiles", completion.PROFILES)),
    (catalog.suites, "ls", catalog.list_suites),
    (catalog.suites, "show", catalog.show_command("suites", completion.SUITES)),
    (methods.app, "ls", methods.ls),
    (methods.app, "show", catalog.show_command("methods", completion.METHODS)),
    (methods.app, "check", methods.check),
    (methods.app, "import-checkpoint", methods.import_checkpoint),
    (methods.app, "export", methods.export),
)
for _app, _name, _command in _COMMANDS:
    _app.command(_name, cls=Command)(_interruptible(_command))
_GROUPS = (
    (data.app, "data"), (images.app, "images"), (methods.app, "methods"),
    (catalog.tasks, "tasks"), (catalog.budgets, "budgets"), (catalog.profiles, "profiles"), (catalog.suites, "suites"),
)  # fmt: skip
for _app, _name in _GROUPS:
    app.add_typer(_app, name=_name, cls=Group)


def collect_seldom() -> None:
    """Plans and reports hold tens of thousands of live records; collections took a sixth of the time."""
    gc.set_threshold(100_000)


def main() -> None:
    """Entry point. Errors end in one line and the exit code of their kind; --debug shows the traceback."""
    secure_streams()
    collect_seldom()
    # --debug is allowed anywhere on the line, so it is taken out before the commands see it.
    debug = DEBUG_FLAG in sys.argv
    sys.argv = [sys.argv[0], *repeated([_expanded(a) for a in sys.argv[1:] if a != DEBUG_FLAG])]
    # Treat SIGTERM like SIGINT; shells start background jobs with SIGINT ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(prog_name=NAME)
    except BenchError as error:
        if debug:
            raise
        _print_error(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of the output has closed its end: nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        if cause := _cause_outside(error):
            _print_error(cause)
            sys.exit(EnvironmentCannot.exit_code)
        what = f"{type(error).__name__}: {error}"
        _print_error(f"{what} (a fault of bench itself; --debug shows where, please report it)")
        sys.exit(1)


def _expanded(argument: str) -> str:
    """An argument with ~ expanded to the user's home; shells do not expand it in --option=~/x and in variables."""
    option, equals, value = argument.partition("=")
    if argument.startswith("--") and equals:
        return f"{option}={_expanded(value)}"
    return os.path.expanduser(argument) if argument.startswith("~") else argument


def _cause_outside(error: Exception) -> str | None:
    """What this machine refused, for errors that it and not bench is the cause of; None for all others."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{reason_of(error)} (the machine refused; --debug shows where)"
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs, or give this one more, and run the command again"
    if isinstance(error, ImportError):
        return f"the installation is incomplete or damaged: {error}; `bench doctor` checks it"
    return None


def _print_error(message: str) -> None:
    from pretrain_bench.api.display import STDERR, printable

    print(f"error: {printable(' '.join(message.split()))}", file=STDERR)


if __name__ == "__main__":
    main()
