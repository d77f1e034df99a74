"""The committed schemas match the models, and real files validate against them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

import pretrain_bench as pb
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


@pytest.mark.slow
def test_the_contract_lists_the_files_of_scenes() -> None:
    """Every file of every kind of dataset, with its shape and type; only one kind of recording has `world_up.npy`."""
    table = (REPOSITORY / "docs/contract.md").read_text().split("## Files of a scene")[1]
    rows = re.findall(r"^\| `([\w/.]+)`[^|]*\| (?:\((.*?)\) )?(\w+) \|", table, flags=re.M)
    listed = {name: (shape, kind) for name, shape, kind in rows}
    found = set()
    for name in ("synth-s3dis", "synth-scannet", "synth-kitti", "synth-sunrgbd"):
        prepared = pb.prepare_data(name, world="nano", display=pb.Silent())
        for file in prepared.manifest.files:
            view, _, rest = file.split("/", 2)
            rest = re.sub(r"\d{6}\.", "NNNNNN.", rest)
            found.add(rest := rest if rest in listed else rest.replace(".png", ".jpg"))
            shape, kind = listed[rest]
            assert (view == "labelled") == ("`labelled/`" in table.split(f"| `{rest}`")[1].split("\n")[0]), file
            if kind == "image":
                continue
            array = (
                np.load(prepared.folder / file)
                if rest.endswith(".npy")
                else np.asarray(Image.open(prepared.folder / file))
            )
            assert kind == array.dtype.name and (not shape or len(re.findall(r"\w+", shape)) == array.ndim), file
    assert found == listed.keys() - {"world_up.npy"}


def test_the_contract_names_every_file() -> None:
    text = (REPOSITORY / "docs/contract.md").read_text()
    for name in (*schemas(), "/bench/in/stage.json", "/bench/in/backbone.json", "/bench/parents/", "events.jsonl"):
        assert name in text, name
