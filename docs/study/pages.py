"""`make study-pages`: rewrite the tables and pictures of the study pages from their bundles.

A page names the file of `bench report` behind each of them. Wildcards are allowed; exactly one file must match:

    <!-- tiny: tables/synthetic-ratios1.md -->                 the table up to `<!-- end -->`
    <!-- tiny: groups/*-finetune-20-*/curves.png -->           the picture on the next line

Everything else on a page is written by hand; tests compare its numbers with the records.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pretrain_bench as pb

FOLDER = Path(__file__).parent
MARK = re.compile(r"<!--\s*[\w-]+:.*?-->")
TABLE = re.compile(r"(<!-- ([\w-]+): (\S+\.md) -->\n)(?:(?!<!-- ).)*(<!-- end -->)", re.DOTALL)
PICTURE = re.compile(r"<!-- ([\w-]+): (\S+\.png) -->\n!\[[^\]]*\]\(([^)]+)\)")

FileOf = Callable[[str, str], Path]
"""Finds the file of a study's report: the name of the study, then a pattern."""


def with_tables(page: str, file_of: FileOf) -> str:
    """The text of a page with its tables replaced by those of the reports. Exits for a mark without a table or a picture."""
    if len(MARK.findall(page)) != len(TABLE.findall(page)) + len(PICTURE.findall(page)):
        raise SystemExit(
            "a mark `<!-- STUDY: FILE -->` has no table up to `<!-- end -->`, or no picture on the next line"
        )

    def table(found: re.Match[str]) -> str:
        before, study, pattern, after = found.groups()
        rows = [line for line in file_of(study, pattern).read_text().splitlines() if line.startswith("|")]
        return "\n".join([before, *rows, "", after])

    return TABLE.sub(table, page)


def pictures(page: str, file_of: FileOf) -> dict[str, Path]:
    """The pictures of a page by file name, each with its file in a report."""
    return {name: file_of(study, pattern) for study, pattern, name in PICTURE.findall(page)}


def reports_in(folder: Path) -> FileOf:
    """Reports of the studies, each built in the folder when a page first asks for it."""

    @cache
    def report(study: str) -> Path:
        print(f"report of {study}", file=sys.stderr)
        pb.report(FOLDER / f"{study}.bundle.tar.zst", folder / study, page=False)
        return folder / study

    def file_of(study: str, pattern: str) -> Path:
        found = list(report(study).glob(pattern))
        if len(found) != 1:
            raise SystemExit(f"{study}: {len(found)} files of its report match {pattern!r}; expected one")
        return found[0]

    return file_of


def main() -> None:
    """Rewrite every page."""
    with tempfile.TemporaryDirectory() as folder:
        file_of = reports_in(Path(folder))
        for page in sorted(FOLDER.glob("*.md")):
            text = page.read_text()
            page.write_text(with_tables(text, file_of))
            for name, file in pictures(text, file_of).items():
                shutil.copyfile(file, FOLDER / name)


if __name__ == "__main__":
    main()
