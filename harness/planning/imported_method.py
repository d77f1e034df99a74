"""A user's checkpoints as methods: `NAME=[ORIGIN:]FILE[,FILE...]`, files in the order of pre-training seeds 0, 1, ..."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.specs.base import Name, Spec
from pretrain_bench.benchmarks.specs.checkpoint import ORIGINS, CheckpointFile, CheckpointOrigin
from pretrain_bench.benchmarks.specs.loading import parse_spec
from pretrain_bench.benchmarks.specs.method import Method, MethodFile
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import size_and_sha256
from pretrain_bench.benchmarks.support.reading import cannot_read
from pretrain_bench.benchmarks.support.user_files import read_text

FORM = "NAME=[ORIGIN:]FILE[,FILE...]"


class ImportRequest(NamedTuple):
    """The parts of `mine=pointcontrast:a.pth,b.pth`."""

    name: str
    origin: CheckpointOrigin | None
    files: tuple[str, ...]


class _Named(Spec):
    name: Name


def import_request(text: str) -> ImportRequest | None:
    """Parse the text of a method that names checkpoints; None for any other text. Reads no file."""
    name, equals, rest = text.partition("=")
    if not equals or not name or "/" in name:
        return None
    origin, colon, files = rest.partition(":")
    if not colon or origin not in ORIGINS:
        return ImportRequest(name, None, tuple(rest.split(",")))
    return ImportRequest(name, origin, tuple(files.split(",")))


def imported_method(request: ImportRequest, content: MethodFile, folder: Path) -> Method:
    """Make a method of a user's checkpoints. `content` and `folder` are those of the shipped method `imported`.

    Raises WrongUse for a malformed name, an unreadable file, and two files with the same content.
    """
    if "," in request.name:
        *others, last = request.name.split(",")
        raise WrongUse(
            f"--method {request.name}=...: checkpoints need an option of their own: --method {','.join(others)} "
            f"--method {last}=..."
        )
    name = parse_spec({"name": request.name}, _Named, f"--method {request.name}=...").name
    files: list[CheckpointFile] = []
    for text in request.files:
        path = Path(text).expanduser()
        try:
            sha256 = size_and_sha256(path)[1]
        except OSError as error:
            raise _unreadable(request, text, error) from None
        twin = next((f for f in files if f.sha256 == sha256), None)
        if twin is not None:
            raise WrongUse(
                f"--method {name}: {path} has the same content as {twin.path}; each file counts as one pre-training, so a "
                "duplicate would be a false second one"
            )
        files.append(CheckpointFile(path=path.absolute(), sha256=sha256, origin=request.origin))
    update: dict[str, object] = {"name": name, "folder": folder, "origin": "imported", "checkpoints": tuple(files)}
    if all(file.origin == "pointcontrast" for file in files):
        update["input"] = "geometry"  # it was pre-trained on ones
    return Method(**{**dict(content), **update})


def _unreadable(request: ImportRequest, text: str, error: OSError) -> WrongUse:
    before, colon, _ = text.partition(":")
    if colon and request.origin is None and "/" not in before:
        known = ", ".join(ORIGINS)
        return WrongUse(
            f"--method {request.name}: {before!r} is neither a file nor an origin; origins are {known} ({FORM})"
        )
    if not text:
        return WrongUse(f"--method {request.name}: an empty file name; expected {FORM}")
    return cannot_read(text, error)


def with_stated_scenes(methods: Mapping[str, Method], options: Iterable[str]) -> dict[str, Method]:
    """The methods with the pre-training scenes that `--pretrained-on [NAME=]FILE` states for imported ones, one scene per line.

    Raises WrongUse for a name that is not an imported method's, and for an empty or unreadable file.
    """
    stated: dict[str, tuple[str, ...]] = {}
    imported = [m.name for m in methods.values() if m.is_imported]
    for option in options:
        name, equals, file = option.partition("=")
        one = bool(equals) and name in imported
        names, path = ([name], Path(file).expanduser()) if one else (imported, Path(option).expanduser())
        if not names or not path.is_file():
            known = ", ".join(imported) or "none (--method NAME=FILE is one)"
            raise WrongUse(
                f"--pretrained-on {option}: expected [NAME=]FILE with a file of scene names; imported methods: {known}"
            )
        scenes = tuple(dict.fromkeys(line.strip() for line in read_text(path).splitlines() if line.strip()))
        if not scenes:
            raise WrongUse(f"--pretrained-on {option}: {path} names no scene; expected one per line")
        stated |= dict.fromkeys(names, scenes)
    return {
        key: m.model_copy(update={"pretrained_on": stated[m.name]}) if m.name in stated else m
        for key, m in methods.items()
    }


def check_seeds(methods: Iterable[Method], seeds: Iterable[int]) -> list[str]:
    """Notices about imported methods whose files do not match the pre-training seeds of a suite one to one.

    Raises WrongUse if a method has no file for any seed of the suite.
    """
    wanted, lines = set(seeds), []
    for method in methods:
        files = len(method.checkpoints)
        if not method.is_imported:
            continue
        used = [seed for seed in range(files) if seed in wanted]
        if not used:
            raise WrongUse(
                f"method {method.name!r} has {files} file(s), for pre-training seeds 0 to {files - 1}, but the requested seeds "
                f"are {', '.join(map(str, sorted(wanted)))}"
            )
        if len(used) < files:
            unused = ", ".join(str(s) for s in range(files) if s not in used)
            lines.append(f"{method.name}: only {len(used)} of its {files} files are used; add --pretrain-seed {unused}")
        if files == 1 and len(wanted) > 1:
            lines.append(
                f"{method.name}: one file is one pre-training (seed 0), so there is no variance over pre-trainings"
            )
    return lines
