"""`bench data`: what the datasets are, getting them ready, and looking at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_bench.harness.cli.options import Json, Strict

if TYPE_CHECKING:
    from pretrain_bench.harness.cli.console import Console
    from pretrain_bench.harness.planning.prepared_data import PreparedDataset

app = typer.Typer(help="Datasets: what there is, where it comes from, preparing and checking it.", no_args_is_help=True)

Target = Annotated[
    str, typer.Argument(metavar="NAME|DIR", help="A dataset's name, or a folder that is prepared already.")
]
Root = Annotated[
    Path | None, typer.Option("--root", help="Its folder, in the official layout; procedural ones need none.")
]
World = Annotated[str, typer.Option("--world", help="Size of a procedural dataset: smoke, tiny or full.")]
Stride = Annotated[int, typer.Option("--frame-stride", min=1, help="Every n-th frame of a recording.")]


def ls(json: Json = False) -> None:
    """List the datasets."""
    from pretrain_bench.benchmarks.specs.dataset import Dataset
    from pretrain_bench.harness.cli.console import print_json, table
    from pretrain_bench.harness.planning.catalog import available, find

    datasets = [find(Dataset, name) for name in available(Dataset)]
    if json:
        print_json([d.model_dump(mode="json") for d in datasets])
        return
    print(table(("name", "title", "provides"), [(d.name, d.title, ", ".join(d.provides)) for d in datasets]))


def info(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    root: Root = None,
    frame_stride: Stride = 50,
    world: World = "smoke",
    counts: Annotated[bool, typer.Option("--counts", help="Prepare it, and count scenes, points and classes.")] = False,
    json: Json = False,
) -> None:
    """Say where a dataset comes from and under which terms; with --counts also what it holds."""
    from pretrain_bench.benchmarks.datasets.check import class_counts
    from pretrain_bench.benchmarks.specs.dataset import Dataset
    from pretrain_bench.harness.cli.console import Console, print_json, table
    from pretrain_bench.harness.planning.catalog import find

    dataset = find(Dataset, name)
    prepared = _ready(name, root, frame_stride, False, Console(quiet=json), world) if counts or root else None
    held = {}
    if prepared is not None:
        scenes = prepared.manifest.scenes
        found, ignored = class_counts(prepared.folder, prepared.manifest, len(dataset.classes))
        held = {
            "scenes": len(scenes),
            **{k: sum(getattr(s, k) for s in scenes) for k in ("points", "frames", "pairs", "boxes")},
            "classes": dict(zip(dataset.classes, found.tolist(), strict=True)),
            "without_class": ignored,
            "problems": len(prepared.manifest.problems),
        }
    if json:
        print_json({**dataset.model_dump(mode="json"), **({"counts": held} if held else {})})
        return
    print(f"{dataset.title}\nsource:   {dataset.source}\nlicence:  {dataset.licence}")
    print(f"provides: {', '.join(dataset.provides)}")
    if dataset.classes and not held:
        print(f"classes:  {', '.join(dataset.classes)}")
    if held:
        total = sum(held["classes"].values()) or 1
        numbers = ", ".join(f"{held[k]:,} {k}" for k in ("scenes", "points", "frames", "pairs", "boxes") if held[k])
        print(f"holds:    {numbers}; {held['without_class']:,} points without a class; {held['problems']} problems")
        print(
            table(
                ("class", "count", "share"),
                [(c, f"{n:,}", f"{100 * n / total:.1f} %") for c, n in held["classes"].items()],
            )
        )


def prepare(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    root: Root = None,
    frame_stride: Stride = 50,
    world: World = "smoke",
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Convert a dataset to the prepared form, once; prints where it is. `bench run` does the same by itself."""
    from pretrain_bench.harness.cli.console import Console, print_json

    prepared = _ready(name, root, frame_stride, strict, Console(quiet=json), world)
    scenes = prepared.manifest.scenes
    if json:
        print_json({"folder": str(prepared.folder), "manifest": prepared.manifest.model_dump(mode="json")})
        return
    points, frames = sum(s.points for s in scenes), sum(s.frames for s in scenes)
    print(
        f"{prepared.folder}\n{len(scenes)} scenes, {points:,} points, {frames:,} frames, "
        f"{len(prepared.manifest.problems)} problems"
    )


def verify(
    target: Target, root: Root = None, frame_stride: Stride = 50, world: World = "smoke", json: Json = False
) -> None:
    """Compare every file of a prepared dataset with its manifest; a single flipped bit is found. Exit 1 where one differs."""
    from pretrain_bench.benchmarks.datasets.check import verify as check
    from pretrain_bench.harness.cli.console import Console, print_json

    console = Console(quiet=json)
    prepared = _prepared(target, root, frame_stride, console, world)
    problems = check(prepared.folder, prepared.manifest, console.progress(f"verify {prepared.dataset.name}"))
    if json:
        print_json({"folder": str(prepared.folder), "files": len(prepared.manifest.files), "problems": problems})
    else:
        for problem in problems:
            print(problem)
        print(f"{prepared.folder}: {len(prepared.manifest.files)} files, {len(problems)} differ from the manifest")
    if problems:
        raise typer.Exit(1)


def subset(
    target: Target,
    out: Annotated[Path, typer.Option("--out", help="The folder to write; it becomes a --data root.")],
    scenes: Annotated[int, typer.Option("--scenes", min=1, help="How many scenes, a quarter of them for testing.")] = 4,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="At most so many frames of each.")] = None,
    root: Root = None,
    frame_stride: Stride = 50,
    world: World = "smoke",
    json: Json = False,
) -> None:
    """Cut a tiny real subset, for CI: a prepared folder with a few scenes, usable wherever the whole is."""
    from pretrain_bench.benchmarks.datasets.subset import write_subset
    from pretrain_bench.harness.cli.console import Console, print_json, writing

    prepared = _prepared(target, root, frame_stride, Console(quiet=json), world)
    with writing(out, "subset (--out names another folder)"):
        cut = write_subset(prepared.dataset, prepared.folder, prepared.manifest, out, scenes, frames)
    if json:
        print_json({"folder": str(out), "scenes": [s.name for s in cut.scenes]})
        return
    size = sum(f.bytes for f in cut.files.values())
    print(
        f"{out}: {', '.join(s.name for s in cut.scenes)} ({size / 1e6:.1f} MB)\nuse it: --data {prepared.dataset.name}={out}"
    )


def synth(
    name: Annotated[str, typer.Argument(help="A procedural dataset's name.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write, in the official layout.")],
    world: World = "smoke",
) -> None:
    """Write a procedural dataset in the official layout, for other programs to read."""
    import shutil

    from pretrain_bench.benchmarks.procedural.write import generate
    from pretrain_bench.benchmarks.specs.dataset import Dataset
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.benchmarks.support.files import cache_folder
    from pretrain_bench.harness.cli.console import Console, writing
    from pretrain_bench.harness.planning.catalog import available, find

    dataset = find(Dataset, name)
    if not dataset.synthetic:
        names = ", ".join(n for n in available(Dataset) if find(Dataset, n).synthetic)
        raise WrongUse(f"{name}: not a procedural dataset. There are: {names}")
    with writing(out, "data (--out names another folder)"):
        if out.exists() and any(out.iterdir()):
            raise WrongUse(f"{out}: not empty; give a folder that does not exist yet")
        out.mkdir(parents=True, exist_ok=True)  # tried before minutes are spent on generating
    written = generate(dataset.sized(world), cache_folder(), Console().progress(f"generate {name}"))
    with writing(out, "data (--out names another folder)"):
        shutil.copytree(written, out, dirs_exist_ok=True)
    print(f"{out}: {dataset.title}")


def preview(
    target: Target,
    out: Annotated[Path | None, typer.Option("--out", help="The PNG to write. [default: NAME.png]")] = None,
    scenes: Annotated[int, typer.Option("--scenes", min=1, help="How many scenes.")] = 4,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Clouds by label too.")] = True,
    root: Root = None,
    frame_stride: Stride = 50,
    world: World = "smoke",
) -> None:
    """Draw a contact sheet: pictures, depth, clouds by colour and by label."""
    from pretrain_bench.benchmarks.datasets.preview import contact_sheet
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.cli.console import Console, writing

    if out is not None and out.suffix.lower() != ".png":
        raise WrongUse(f"--out {out}: expected a name that ends in .png")
    prepared = _prepared(target, root, frame_stride, Console(), world)
    path = out or Path(f"{prepared.dataset.name}.png")
    sheet = contact_sheet(prepared.dataset, prepared.folder, prepared.manifest, scenes, labels)
    with writing(path, "picture (--out names another file)"):
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    print(path)


def _ready(
    name: str, root: Path | None, frame_stride: int, strict: bool, console: Console, world: str
) -> PreparedDataset:
    from pretrain_bench.benchmarks.specs.dataset import Dataset
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.planning.catalog import find
    from pretrain_bench.harness.planning.prepared_data import ready

    dataset = find(Dataset, name)
    if root is None and not dataset.synthetic:
        raise WrongUse(f"{name}: give --root DIR, the folder that holds its official layout ({dataset.source})")
    return ready(name, {name: root} if root else {}, frame_stride, strict, console.progress, console.say, world)


def _prepared(target: str, root: Path | None, frame_stride: int, console: Console, world: str) -> PreparedDataset:
    """A dataset by name, or a folder that has a manifest."""
    from pretrain_bench.benchmarks.datasets.layout import MANIFEST, read_manifest
    from pretrain_bench.benchmarks.specs.dataset import Dataset
    from pretrain_bench.harness.planning.catalog import find
    from pretrain_bench.harness.planning.prepared_data import PreparedDataset

    folder = Path(target)
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        return PreparedDataset(find(Dataset, manifest.dataset), folder, manifest)
    return _ready(target, root, frame_stride, False, console, world)
