"""`bench data`: list, prepare, verify and preview datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import choices, completion
from pretrain_bench.harness.cli.options import Json, LabelSplits, Strict, Up, display, label_splits, root_in_file

if TYPE_CHECKING:
    from pretrain_bench.benchmarks.datasets.layouts.describe import Description as FolderDescription

app = typer.Typer(help="List, prepare, verify and preview datasets.", no_args_is_help=True)

Target = Annotated[
    str,
    typer.Argument(
        metavar="NAME|DIR",
        help="A dataset's name or file, or a folder with data, prepared or not.",
        autocompletion=completion.datasets,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="Folder of the dataset, in any supported layout (docs/own-data.md); procedural ones need none. "
        "(default: bench.yaml's)",
    ),
]
World = Annotated[choices.World, typer.Option("--world", help="Size of a procedural dataset.")]
Stride = Annotated[
    int | None,
    typer.Option(
        "--frame-stride",
        min=1,
        help=f"Read every n-th frame of a recording. (default: the dataset's stride, else {choices.FRAME_STRIDE})",
    ),
]


def ls(json: Json = False) -> None:
    """List the datasets."""
    from pretrain_bench.harness.cli.console import print_json, table

    datasets = pb.list_datasets()
    if json:
        print_json([d.model_dump(mode="json") for d in datasets])
        return
    print(table(("name", "title", "provides"), [(d.name, d.title, ", ".join(d.provides)) for d in datasets]))


def info(
    name: Target,
    root: Root = None,
    frame_stride: Stride = None,
    world: World = "smoke",
    up: Up = "auto",
    counts: Annotated[
        bool,
        typer.Option("--counts", help="Prepare the data, and count scenes, points and classes; implied by --root."),
    ] = False,
    json: Json = False,
) -> None:
    """Print the source and licence of a dataset, or the layout of a folder.

    --counts or --root DIR also prepares the data, and counts scenes, points and classes.
    """
    from pretrain_bench.harness.cli.console import print_json

    if root is None and pb.holds_originals(name):
        _print_folder(name, frame_stride, counts, up, json)
        return
    dataset, held = pb.dataset(name), None
    if counts or root:
        prepared = pb.prepare_data(
            name, root or root_in_file(name), frame_stride=frame_stride, world=world, up=up, display=display(json)
        )
        held = pb.count_data(prepared)
    if json:
        print_json({**dataset.model_dump(mode="json"), **({"counts": held._asdict()} if held else {})})
        return
    print(f"{dataset.title}\nsource:   {dataset.source}\nlicence:  {dataset.licence}")
    print(f"provides: {', '.join(dataset.provides)}")
    if held:
        _print_counts(held)
    elif dataset.classes:
        print(f"classes:  {', '.join(dataset.classes)}")


def _print_folder(folder: str, frame_stride: int | None, counts: bool, up: str, json: bool) -> None:
    """The layout of a folder of original data; with `counts` also its contents, which prepares it."""
    from pretrain_bench.harness.cli.console import print_json

    described = pb.describe_data(folder)
    held = None
    if counts:
        held = pb.count_data(pb.prepare_data(folder, frame_stride=frame_stride, up=up, display=display(json)))
    if not json:
        _print_layout(described)
        if held is not None:
            _print_counts(held)
        return
    plain = {
        "layout": described.layout,
        "scenes": len(described.scenes),
        "provides": described.card.provides,
        "lacks": described.card.lacks,
        "dataset": described.stands_for,
    }
    print_json(plain | ({} if held is None else {"counts": held._asdict()}))


def _print_layout(described: FolderDescription) -> None:
    card, dataset = described.card, described.stands_for
    print(f"layout:   {card.title} ({described.layout}), {len(described.scenes)} scenes")
    print(f"provides: {', '.join(card.provides)}")
    if card.lacks:
        print(f"note:     {card.lacks}")
    if dataset is not None:
        flag = "--data" if {"labels", "boxes"} & {*card.provides} else "--pretrain-data"
        print(f"use it:   {flag} {dataset}={described.root}")
    print(f"classes of your own: bench data init {described.root}")


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with data in any supported layout.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The YAML file to write. (default: NAME.yaml, named after DIR)")
    ] = None,
    json: Json = False,
) -> None:
    """Write a commented dataset file for a folder, and a task file beside it: layout guessed, classes counted."""
    from pretrain_bench.harness.cli.console import print_json

    described, dataset, task = pb.init_data(folder, out)
    if json:
        print_json({"layout": described.layout, "dataset": str(dataset), "task": None if task is None else str(task)})
        return
    classes = f", {len(described.classes)} classes" if described.classes else ""
    print(f"{dataset}: {described.card.title}, {len(described.scenes)} scenes{classes}")
    if described.card.lacks:
        print(f"note: {described.card.lacks}")
    if task is None:
        print(f"next: bench run --method ours --task s3dis-sem --pretrain-data {dataset}={folder}")
        return
    print(f"{task}: a semantic task on it")
    print(f"next: check both, then bench run --method scratch --task {task} --data {dataset}={folder} --budget smoke")


def _print_counts(held: pb.DataCounts) -> None:
    from pretrain_bench.harness.cli.console import table

    total = sum(held.classes.values()) or 1
    sizes = {
        "scenes": held.scenes,
        "points": held.points,
        "frames": held.frames,
        "pairs": held.pairs,
        "boxes": held.boxes,
    }
    numbers = ", ".join(f"{number:,} {name}" for name, number in sizes.items() if number)
    print(f"holds:    {numbers}; {held.without_class:,} points without a class; {held.problems} problems")
    rows = [(name, f"{number:,}", f"{100 * number / total:.1f} %") for name, number in held.classes.items()]
    print(table(("class", "count", "share"), rows))


def prepare(
    name: Annotated[str, typer.Argument(help="A dataset's name.", autocompletion=completion.datasets)],
    root: Root = None,
    frame_stride: Stride = None,
    world: World = "smoke",
    up: Up = "auto",
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Convert a dataset to the prepared form, once, and print its folder. `bench run` does this automatically."""
    from pretrain_bench.harness.cli.console import print_json

    folder, manifest = pb.prepare_data(
        name,
        root or root_in_file(name),
        frame_stride=frame_stride,
        world=world,
        up=up,
        strict=strict,
        display=display(json),
    )[1:]
    if json:
        print_json({"folder": str(folder), "manifest": manifest.model_dump(mode="json")})
        return
    scenes = manifest.scenes
    points, frames = sum(s.points for s in scenes), sum(s.frames for s in scenes)
    problems = len(manifest.problems)
    print(f"{folder}\n{len(scenes)} scenes, {points:,} points, {frames:,} frames, {problems} problems")
    for line in sorted({line for s in scenes for line in s.assumed}):
        print(f"assumed {line}")
    if unposed := sum(s.up is not None for s in scenes):
        print(f"{unposed} recordings without poses: their frames are turned to z up by the camera's axes")
    turned = [s for s in scenes if s.world_up is not None]
    if turned:
        up_was = ", ".join(
            f"({x:g}, {y:g}, {z:g})" for x, y, z in sorted({s.world_up for s in turned if s.world_up})[:3]
        )
        count = "1 recording is" if len(turned) == 1 else f"{len(turned)} recordings are"
        print(f"{count} turned to have z up: up was {up_was} as recorded; --up names another axis")


def verify(
    target: Target,
    root: Root = None,
    source: Annotated[
        bool,
        typer.Option("--source", help="Also compare with the originals (--root); as slow as preparing."),
    ] = False,
    frame_stride: Stride = None,
    world: World = "smoke",
    up: Up = "auto",
    json: Json = False,
) -> None:
    """Compare every file of a prepared dataset with its manifest, bit by bit. Exit code 1 if one differs."""
    from pretrain_bench.api.display import printable
    from pretrain_bench.harness.cli.console import print_json

    shown = display(json)
    prepared = pb.prepare_data(
        target, root or root_in_file(target), frame_stride=frame_stride, world=world, up=up, display=shown
    )
    problems = pb.verify_data(prepared, display=shown)
    folder, files = prepared.folder, len(prepared.manifest.files)
    changed = []
    if source:
        changed = pb.verify_source(
            prepared, root or root_in_file(target), frame_stride=frame_stride, world=world, up=up, display=shown
        )
    if json:
        print_json(
            {"folder": str(folder), "files": files, "problems": problems, **({"source": changed} if source else {})}
        )
    else:
        for problem in [*problems, *changed]:
            print(printable(problem))
        print(f"{folder}: {files} files, {len(problems)} differ from the manifest")
        if changed:
            print(f"the originals differ in {len(changed)}; delete {folder} and prepare again")
        elif source:
            print("the originals give the same")
    if problems or changed:
        raise typer.Exit(1)


def subset(
    target: Target,
    out: Annotated[Path, typer.Option("--out", help="The folder to write; it becomes a --data root.")],
    scenes: Annotated[
        int, typer.Option("--scenes", min=1, help="Number of scenes, a quarter of them for testing.")
    ] = 4,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="Maximum number of frames per scene.")] = None,
    root: Root = None,
    frame_stride: Stride = None,
    world: World = "smoke",
    up: Up = "auto",
    json: Json = False,
) -> None:
    """Cut a small subset of real data, for CI: a prepared folder with a few scenes, usable in place of the dataset."""
    from pretrain_bench.harness.cli.console import print_json

    prepared = pb.prepare_data(
        target, root or root_in_file(target), frame_stride=frame_stride, world=world, up=up, display=display(json)
    )
    cut = pb.subset_data(prepared, out, scenes=scenes, frames=frames)
    names = [s.name for s in cut.scenes]
    if json:
        print_json({"folder": str(out), "scenes": names})
        return
    size = sum(f.bytes for f in cut.files.values())
    print(f"{out}: {', '.join(names)} ({size / 1e6:.1f} MB)\nuse it: --data {prepared.dataset.name}={out}")


def synth(
    name: Annotated[str, typer.Argument(help="A procedural dataset's name.", autocompletion=completion.datasets)],
    out: Annotated[Path, typer.Option("--out", help="The folder to write, in the official layout.")],
    world: World = "smoke",
) -> None:
    """Write a procedural dataset in the official layout, for other programs to read."""
    written = pb.write_synthetic(name, out, world=world)
    print(f"{out}: {written.title}")


def preview(
    target: Target,
    out: Annotated[Path | None, typer.Option("--out", help="The PNG to write. (default: NAME.png)")] = None,
    scenes: Annotated[int, typer.Option("--scenes", min=1, help="How many scenes.")] = 4,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Also draw clouds by label.")] = True,
    label_ratio: Annotated[
        str | None,
        typer.Option("--label-ratio", help="Show training scenes of this label ratio, and the labels that it allows."),
    ] = None,
    label_split: LabelSplits = None,
    root: Root = None,
    frame_stride: Stride = None,
    world: World = "smoke",
    up: Up = "auto",
) -> None:
    """Draw a contact sheet: pictures, depth, clouds by colour and by label."""
    if out is not None and out.suffix.lower() != ".png":  # before minutes are spent on preparing
        raise pb.WrongUse(f"--out {out}: expected a name that ends in .png")
    prepared = pb.prepare_data(target, root or root_in_file(target), frame_stride=frame_stride, world=world, up=up)
    print(
        pb.preview_data(
            prepared, out, scenes=scenes, labels=labels, label_ratio=label_ratio, label_splits=label_splits(label_split)
        )
    )
