"""The table in docs/security.md shows how each hostile stage ends in each sandbox, as the tests expect."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY
from tests.hostile.cases import CASES, SANDBOXES
from tests.hostile.sandboxes import expected

HEADER = "| stage | which | docker | podman | bubblewrap |"


def test_the_table_of_the_documentation_is_what_the_tests_expect() -> None:
    lines = (REPOSITORY / "docs/security.md").read_text().split(HEADER)[1].splitlines()[2:]
    rows = [line.split("|")[1:-1] for line in lines[: lines.index("")]]
    table = {case: row[2:] for row in rows for case in re.findall(r"`(\w+)`", row[0])}
    assert sum(len(re.findall(r"`(\w+)`", row[0])) for row in rows) == len(table) and set(table) == set(CASES)
    columns = [c.strip() for c in HEADER.split("|")[3:-1]]
    assert set(SANDBOXES) == set(columns)
    for case, cells in table.items():
        for sandbox, cell in zip(columns, cells, strict=True):
            is_run = expected(sandbox, case, CASES)
            assert cell.strip() == ("-" if is_run is None else f"`{is_run[0]}`"), (sandbox, case)
