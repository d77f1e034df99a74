"""Hooks of `make docs`: reference pages generated from the code, and links to files outside of docs/ as plain names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
SHOWN = {
    "budgets": "uniform", "profiles": "headline", "tasks": "s3dis-sem", "data": "scannet", "methods": "ours", "suites": "tiny",
}  # fmt: skip
"""For each kind of spec, the one whose values stand beside the fields."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    pages = {
        "reference/cli.md": command_line(),
        "reference/fields.md": yaml_fields(),
        "reference/python.md": python_functions(),
        "reference/changelog.md": (ROOT / "CHANGELOG.md").read_text().replace("](docs/", "](../"),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/ into names of files of the repository. Raises FileNotFoundError for one that does not exist."""
    folder = Path(config.docs_dir) / Path(page.file.src_uri).parent

    def name(match: re.Match[str]) -> str:
        target = (folder / match[2].partition("#")[0]).resolve()
        if target.is_relative_to(config.docs_dir):
            return match[0]
        if not target.exists():
            raise FileNotFoundError(f"{page.file.src_uri}: {match[2]}")
        return f"{match[1]} (`{target.relative_to(ROOT)}`)"

    return re.sub(r"\[([^\]]+)\]\((\.\.?/[^)]+)\)", name, markdown)


def command_line() -> str:
    """Every command of the app with its arguments and options."""
    import typer

    from pretrain_bench.harness.cli.app import app

    return "# Command line\n\n" + "\n".join(_command(typer.main.get_command(app), "bench"))


def _command(command: Any, path: str) -> Iterator[str]:
    yield f"## `{path}`\n\n{_escaped(command.help or '')}\n"
    rows = [_parameter(p) for p in command.params if not getattr(p, "hidden", False)]
    if rows:
        yield "| argument or option | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    for name, child in getattr(command, "commands", {}).items():
        yield from _command(child, f"{path} {name}")


def _parameter(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    words = (*parameter.opts, *parameter.secondary_opts) if is_option else (parameter.metavar or parameter.name,)
    names = ", ".join(f"`{_in_table(word)}`" for word in words)
    default = parameter.default
    is_shown = default not in (None, False, "", (), []) and not callable(default)
    shown = "required" if parameter.required else f"`{default}`" if is_shown else ""
    return f"| {names} | {_escaped(shown)} | {_escaped(getattr(parameter, 'help', None) or '')} |"


def _in_table(text: str) -> str:
    return text.replace("|", "\\|")


def _escaped(text: str) -> str:
    return _in_table(text).replace("<", "&lt;").replace("[", "\\[").replace("\f", "")


def yaml_fields() -> str:
    """Every field of each kind of YAML file: unit, default and meaning, beside the values of one that ships."""
    import pretrain_bench as pb

    parts = ["# YAML fields\n\nThe same as `bench KIND show NAME`, for one file of each kind.\n"]
    for kind, name in SHOWN.items():
        parts.append(f"## {kind.capitalize()}\n\nThe values are those of `{name}`.\n")
        parts.append("| field | value | unit | default | meaning |\n|---|---|---|---|---|")
        fields = pb.explain(kind, name)  # type: ignore[arg-type]
        parts += [
            f"| `{f.field}` | {' | '.join(map(_escaped, (f.value, f.unit, f.default, f.meaning)))} |" for f in fields
        ]
        parts.append("")
    return "\n".join(parts)


def python_functions() -> str:
    """The public names of `pretrain_bench`, documented from their docstrings."""
    import pretrain_bench as pb

    public = [name for name in sorted(pb._HOMES, key=str.lower) if not name.startswith("__")]
    entries = "\n\n".join(f"::: {pb._HOMES[name]}.{name}" for name in public)
    return f"# Python functions\n\nThe public names of `pretrain_bench`; [the guide](../api.md) shows them in use.\n\n{entries}\n"
