"""`ls` and `show` of every kind list all built-in entries, and every field with its meaning and unit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import pretrain_bench as pb
from pretrain_bench.api.specs import MODELS
from pretrain_bench.harness.planning.catalog import available
from tests.conftest import Bench

RECIPE = re.compile(r"methods\.\w+\.\w+\.")
"""Fields of a method's own recipe, whose names are those of its specification."""


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_is_listed_and_explained(kind: str, bench: Bench) -> None:
    names = list(available(MODELS[kind]))
    listed = bench(kind, "ls").stdout
    assert all(name in listed for name in names)
    fields = {name: pb.explain(kind, name) for name in names}  # type: ignore[arg-type]
    unexplained = {f.field for rows in fields.values() for f in rows if f.meaning == "-"}
    unexplained = {field for field in unexplained if not RECIPE.match(field)}
    assert not unexplained, f"give these a description in their model: {sorted(unexplained)}"
    assert json.loads(bench(kind, "show", names[0], "--json").stdout) == [f._asdict() for f in fields[names[0]]]
    assert "There are: " in bench(kind, "show", "nonsense", code=2).stderr


def test_a_profile_shows_the_recipes_of_methods(tmp_path: Path) -> None:
    def recipes(profile: str | Path) -> dict[str, str]:
        return {f.field: f.value for f in pb.explain("profiles", profile) if RECIPE.match(f.field)}

    headline, literal = recipes("headline"), recipes("paper-literal")
    differing = {field for field, value in headline.items() if literal[field] != value}
    assert {f"methods.ours.{f}" for f in ("images.negatives", "images.reduction", "points.negatives")} < differing
    own = tmp_path / "own.yaml"
    text = "extends: headline\nname: own\nversion: 1\nmethods: {depthcontrast: {scans: {scans_per_pass: 8}}}\n"
    own.write_text(text)
    assert {(f, v) for f, v in recipes(own).items() if headline[f] != v} == {
        ("methods.depthcontrast.scans.scans_per_pass", "8")
    }
    own.write_text(text.replace("scans:", "scan:"))
    with pytest.raises(pb.WrongUse, match="unknown stage 'scan'"):
        recipes(own)


def test_a_field_has_value_unit_and_default(bench: Bench) -> None:
    rows = {f.field: f for f in pb.explain("budgets", "smoke")}
    assert rows["pretrain.optimizer_steps"][1:4] == ("60", "steps", "none")
    assert rows["pretrain.grace_seconds"][1:4] == ("60", "s", "60")
    assert rows["finetune.memory_mib"].unit == "MiB" and rows["name"].default == "required"
    assert "tasks.s3dis-sem.voxel_metres" in {f.field for f in pb.explain("profiles", "tiny")}
    assert "between the soft" in bench("budgets", "show", "smoke").stdout
    lines = bench("profiles", "show", "headline").stdout.splitlines()
    assert "tasks.scannet-sem.micro_batch: 6" in lines, "a name to find and to copy"
