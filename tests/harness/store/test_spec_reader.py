"""Specs of many runs: those that differ only in seed and parents are validated once, but each key is checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.stage import key_of
from pretrain_bench.harness.store import spec_reader
from pretrain_bench.harness.store.spec_reader import SpecReader
from pretrain_bench.harness.store.store import read_spec, write_json
from tests.reports.stores import stage


def written(root: Path, plain: dict[str, object]) -> Path:
    folder = root / key_of(plain)
    write_json(folder / "spec.json", plain)
    return folder


def test_each_variant_is_validated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [
        stage("finetune", method, seed, parents={"points": f"{seed}" * 20})
        for method in ("csc", "ours")
        for seed in range(5)
    ]
    folders = [written(tmp_path, spec.model_dump(mode="json")) for spec in specs]
    validated = list[Path]()
    monkeypatch.setattr(spec_reader, "read_spec", lambda folder: [validated.append(folder), read_spec(folder)][1])
    reader = SpecReader()
    read = [reader.read(folder) for folder in folders]
    assert [one.spec for one in read] == specs and [one.spec.key for one in read] == [f.name for f in folders]
    assert len(validated) == 2 and len({one.shared for one in read}) == 2


@pytest.mark.parametrize("change", [{"seed": 2**64}, {"seed": -1}, {"parents": {"x": 1}}, {"parents": None}])
def test_a_seed_or_parent_that_cannot_be_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    plain, reader = stage("pretrain", "csc", 0).model_dump(mode="json"), SpecReader()
    reader.read(written(tmp_path, plain))
    with pytest.raises(WrongUse, match=r"spec\.json"):
        reader.read(written(tmp_path, {**plain, **change}))


def test_a_spec_under_another_key_is_refused(tmp_path: Path) -> None:
    plain, reader = stage("pretrain", "csc", 0).model_dump(mode="json"), SpecReader()
    folder = written(tmp_path, plain)
    reader.read(folder)
    (folder / "spec.json").write_text(json.dumps({**plain, "seed": 1}))
    with pytest.raises(WrongUse, match="belongs to key"):
        reader.read(folder)
