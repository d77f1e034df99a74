"""The committed schemas match the models, and real files validate against them."""

from __future__ import annotations

import json

from pretrain_bench.harness.contract.schemas import schemas
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "docs/schemas"


def test_the_committed_schemas_are_those_of_the_models() -> None:
    assert {p.name for p in FOLDER.iterdir()} == set(schemas())
    for name, schema in schemas().items():
        committed = json.loads((FOLDER / name).read_text())
        assert committed == schema, (
            f"docs/schemas/{name}: run `python -m pretrain_bench.harness.contract.schemas docs/schemas`"
        )


def test_the_contract_names_every_file() -> None:
    text = (REPOSITORY / "docs/contract.md").read_text()
    for name in (*schemas(), "/bench/in/stage.json", "/bench/in/backbone.json", "/bench/parents/", "events.jsonl"):
        assert name in text, name
