"""`bench`: ties the commands together. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import signal
import sys

import typer

from benchmarks.errors import BenchError
from harness.cli import data, doctor, report, run, show

app = typer.Typer(
    name="bench",
    help="Does pre-training help a 3D network, by how much, and how sure are we? Equal budgets, recorded runs, honest numbers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("report")(report.report)
app.command("show")(show.show)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")

DEBUG_FLAG = "--debug"


def main() -> None:
    """Entry point. Errors end in one line and the exit code of their kind; --debug shows the traceback."""
    # --debug is allowed anywhere on the line, so it is taken out before the commands see it.
    debug = DEBUG_FLAG in sys.argv
    sys.argv = [a for a in sys.argv if a != DEBUG_FLAG]
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        app()
    except BenchError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; what is complete is kept, the same command goes on from there", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has closed; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
