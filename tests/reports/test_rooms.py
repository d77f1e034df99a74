"""The rooms of reports import in one direction: analysis, then figures and tables, then the page, then the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.test_layout import imported

ALLOWED = {
    "analysis": {"analysis"},
    "tables": {"analysis", "tables"},
    "figures": {"analysis", "figures"},
    "page": {"analysis", "tables", "figures", "page"},
    "export": {"export"},
}
FOLDER = REPOSITORY / "reports"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/*.py")), ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_a_room_imports_only_the_rooms_before_it(path: Path) -> None:
    for name in imported(path):
        room, *inner = name.split(".")
        if room == "reports":
            assert inner[0] in ALLOWED[path.parent.name], f"{path.name} imports {name}"


def test_only_method_cards_knows_single_methods() -> None:
    """A method's colour, order or group in any other module would need a change for every new method."""
    names = ("pointcontrast", "csc", "depthcontrast", "ours", "supervised")
    for path in sorted(FOLDER.rglob("*.py")):
        if path.name not in ("method_cards.py", "published.py"):
            text = path.read_text()
            assert not [n for n in names if f'"{n}"' in text], path
