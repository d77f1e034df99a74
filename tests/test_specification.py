"""Every reference to docs/specification/ and to a section of the docs, in code, YAML and docs, resolves to an anchor."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

from tests.conftest import REPOSITORY

SPECIFICATION = REPOSITORY / "docs/specification"
ITEM = r"(?:I-\d+|[A-K](?:\.\d+[a-d]?)?|\d\.\d+|\d)(?![\w-])"
"""A section (`C.2`, `E.6c`, `2.5`, `D`) or a trap (`I-14`)."""
LIST = re.compile(rf"\bspec(?: |\n\s*)({ITEM}(?:(?:, | to | and |, spec )(?:{ITEM}))*)")
DECISION = re.compile(r"\bJ-\d+\b")
ANCHOR = re.compile(r'<a id="([^"]+)"></a>')
PAGE = re.compile(r"\bdocs/([\w/-]+\.md)(?:#([\w.-]+))?")


def texts() -> dict[Path, str]:
    """All tracked texts that may cite the specification, except this test."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.yaml", "*.md", "*.json"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\0")  # fmt: skip
    paths = [REPOSITORY / name for name in names if name and name != "tests/test_specification.py"]
    return {path: path.read_text() for path in paths if path.is_file()}


def references(text: str) -> list[str]:
    """Yield the anchors that a text cites: `spec C.3 to C.5` cites two sections, `J-17` one decision."""
    sections = [f"spec-{item}" for match in LIST.finditer(text) for item in re.findall(ITEM, match[1])]
    return sections + DECISION.findall(text)


def anchors() -> Counter[str]:
    return Counter(a for page in SPECIFICATION.glob("*.md") for a in ANCHOR.findall(page.read_text()))


def headings(page: Path) -> set[str]:
    """The anchors of a Markdown page: its headings and explicit ids."""
    text = page.read_text()
    titles = re.findall(r"^#+ (.+)$", text, flags=re.M)
    slugs = {re.sub(r"[^\w\- ]", "", t.replace("`", "").lower()).strip().replace(" ", "-") for t in titles}
    return slugs | set(ANCHOR.findall(text))


def test_every_reference_resolves() -> None:
    known = anchors()
    assert [a for a, times in known.items() if times > 1] == [], "an anchor exists once"
    cited = {path: references(text) for path, text in texts().items()}
    missing = {
        path.relative_to(REPOSITORY).as_posix(): sorted(set(found) - set(known)) for path, found in cited.items()
    }
    assert {name: items for name, items in missing.items() if items} == {}
    outside = [item for path, found in cited.items() if SPECIFICATION not in path.parents for item in found]
    assert len(outside) > 200, "the pattern finds the references"


def test_every_decision_has_its_row() -> None:
    rows = re.findall(
        r'^\| <a id="(J-\d+)"></a>(J-\d+) \| ([^|]+) \|', (SPECIFICATION / "decisions.md").read_text(), flags=re.M
    )
    assert [number for _, number, _ in rows] == [f"J-{i}" for i in range(1, len(rows) + 1)]
    assert all(anchor == number for anchor, number, _ in rows)


def test_a_reference_to_a_page_names_a_page_and_a_section() -> None:
    count = 0
    for path, text in texts().items():
        for page, section in PAGE.findall(text):
            count += 1
            target = REPOSITORY / "docs" / page
            assert target.is_file(), f"{path}: docs/{page}"
            assert not section or section in headings(target), f"{path}: docs/{page}#{section}"
    assert count > 20
    for path, text in texts().items():
        for stale in ("design section", "further spec", "methods-spec"):
            assert stale not in text, f"{path} cites {stale}, which is not in this repository"


def test_planted_references_are_found() -> None:
    assert references("(spec Z.1) spec C.3 to C.5, spec F.3, F.4; spec I-28, J-99 and spec 1.3, 1.4, 1.6") == [
        "spec-C.3", "spec-C.5", "spec-F.3", "spec-F.4", "spec-I-28", "spec-1.3", "spec-1.4", "spec-1.6", "J-99",
    ]  # fmt: skip
    assert references("(spec D)") == ["spec-D"] and references("the spec A says") == ["spec-A"]
