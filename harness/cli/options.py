"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.choices import UpChoice

if TYPE_CHECKING:
    from pretrain_bench.api.display import Display

Runs = Annotated[
    Path,
    typer.Option(
        "--runs",
        envvar="BENCH_RUNS",
        help="Folder of runs; reading commands take a bundle too.",
        show_default=True,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="NAME=DIR",
        help="Root of a dataset, in any supported layout; NAME may be your own YAML file; repeat --data for each dataset.",
        autocompletion=completion.roots,
    ),
]
PretrainData = Annotated[
    list[str] | None,
    typer.Option(
        "--pretrain-data",
        metavar="NAME=DIR",
        help="Pre-train on this dataset instead of ScanNet.",
        autocompletion=completion.roots,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Bad lines and frames in the data are errors, not warnings.")]
Up = Annotated[
    UpChoice, typer.Option("--up", help="Up axis of recordings in rgbd-folder; auto: from cameras and floor.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="FIELD=PATTERN", help="Select cells of a suite: method=ours,csc or task=*-sem."),
]
ImagenetWeights = Annotated[
    Path | None,
    typer.Option("--imagenet-weights", help="ResNet weights (torchvision's names) for the 2D encoder of ours."),
]
PretrainedOn = Annotated[
    list[str] | None,
    typer.Option(
        "--pretrained-on",
        metavar="[NAME=]FILE",
        help="File with the scenes that an imported checkpoint was pre-trained on, one per line. (default: unknown)",
    ),
]
LabelSplits = Annotated[
    list[str] | None,
    typer.Option(
        "--label-split",
        metavar="NAME=FILE",
        help="The file of an official label list that does not ship, such as la20=points20; may be given several times.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads per stage. (default: all that bench may use, at most 8)"),
]
Backend = Annotated[
    Literal["torch", "triton", "minkowski"],
    typer.Option(
        "--backend",
        envvar="BENCH_SPARSE_BACKEND",
        help="Sparse engine of the 3D network; triton: torch with fused convolutions on a GPU, not yet measured.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto: the GPU if the machine has one.")
]
ExecutorName = Annotated[
    Literal["auto", "bubblewrap", "local", "docker", "podman"],
    typer.Option(
        "--executor",
        envvar="BENCH_EXECUTOR",
        help="bubblewrap: isolated processes; local: plain processes; docker, podman: containers; auto: bubblewrap if it works.",
    ),
]
Register = Annotated[
    Path | None,
    typer.Option(
        "--register",
        metavar="FILE",
        help="Write the cells and their keys to FILE, before any runs; bench audit --registered FILE compares.",
    ),
]
Sign = Annotated[
    Path | None, typer.Option("--sign", metavar="KEY", help="With --register: sign the file with this SSH key.")
]
OnPlace = Annotated[
    Literal["local", "slurm", "ray"],
    typer.Option("--on", help="Where stages run: this machine, jobs of a Slurm cluster, or tasks of a Ray cluster."),
]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm",
        metavar="NAME=VALUE,...",
        help="Options of sbatch for --on slurm: partition=gpu,gres=gpu:1,time=24:00:00; bench.yaml holds them under slurm:.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="With --on ray: its head. (default: this machine's cluster)"),
]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Allow Python from your own method folders; planning runs it without isolation."),
]
DEFAULT_RUNS = completion.DEFAULT_RUNS


def display(json: bool) -> Display:
    """Progress on stderr as bars or lines; none with --json."""
    from pretrain_bench.api.display import Silent, default_display

    return Silent() if json else default_display()


def on_command_line(context: typer.Context, name: str) -> bool:
    """Whether the user typed an option or argument, instead of a default, a variable or `bench.yaml` giving its value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def data_roots(given: list[str] | None, pretrain: list[str] | None = None) -> list[str]:
    """The NAME=DIR options, after the roots of `bench.yaml` of the datasets that neither they nor those of `--pretrain-data`
    name."""
    from pretrain_bench.api.configuration import data_in_file

    return _with_file(data_in_file(), given, pretrain)


def label_splits(given: list[str] | None) -> list[str]:
    """The NAME=FILE options, after the label lists of `bench.yaml` that they do not name."""
    from pretrain_bench.api.configuration import configuration

    return _with_file(configuration().label_splits, given)


def _with_file(in_file: dict[str, Path], given: list[str] | None, others: list[str] | None = None) -> list[str]:
    named = {_whole_path(option.partition("=")[0]) for option in [*(given or ()), *(others or ())]}
    return [*(f"{name}={path}" for name, path in in_file.items() if name not in named), *(given or ())]


def _whole_path(name: str) -> str:
    """A dataset by name; by absolute path if its file names it, as `bench.yaml` does."""
    return str(Path(name).expanduser().resolve()) if name.endswith((".yaml", ".yml")) else name


def root_in_file(dataset: str) -> Path | None:
    """The root of a dataset in `bench.yaml`, if it names one."""
    from pretrain_bench.api.configuration import data_in_file

    return data_in_file().get(_whole_path(dataset))
