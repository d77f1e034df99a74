"""Specs follow YAML 1.2: numbers parse as they look, and duplicate keys are refused."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from pretrain_bench.benchmarks.specs import yaml_core
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.loading import MOST_YAML_BYTES, load_spec, read_yaml
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.support.errors import WrongUse
from tests.conftest import Bench

BUDGET = """name: b
version: 1
description: x
default_profile: smoke
pretrain: {currency: optimizer_steps, optimizer_steps: 8}
finetune: {currency: optimizer_steps, optimizer_steps: STEPS}
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("1:30", "1:30"),
        ("1:30:00.5", "1:30:00.5"),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("no", "no"),
        ("on", "on"),
        ("2020-01-01", "2020-01-01"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("'010'", "010"),
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    loaded = yaml_core.load(f"a: {text}")["a"]
    assert loaded == value and type(loaded) is type(value)


def test_steps_are_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(BUDGET.replace("STEPS", "010"))
    assert load_spec(path, Budget).finetune.amount == 10
    path.write_text(BUDGET.replace("STEPS", "1:30"))
    with pytest.raises(WrongUse, match=r"finetune\.optimizer_steps.*got '1:30'"):
        load_spec(path, Budget)


@pytest.mark.parametrize(
    ("text", "line", "first"),
    [("a: 1\nb: 2\na: 3\n", 3, 1), ("a:\n  b: 1\n  c: 2\n  b: 1\n", 4, 2), ("x: [{a: 1, 'a': 2}]\n", 1, 1)],
)
def test_a_key_given_twice_is_an_error_with_both_lines(text: str, line: int, first: int, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(WrongUse, match=rf"a\.yaml, line {line}: .* given twice, first in line {first}"):
        read_yaml(path)


def test_a_merged_key_may_be_overridden_and_the_loader_stays_safe() -> None:
    assert yaml_core.load("m: &m {a: 1, b: 2}\nn: {<<: *m, a: 3}")["n"] == {"a": 3, "b": 2}
    nested = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b}\nd: {<<: *b, y: 4}"
    loaded = yaml_core.load(nested)
    assert loaded["b"] == loaded["c"] == {"x": 3, "y": 2} and loaded["d"] == {"x": 3, "y": 4}
    several = "a: &a {steps: 1}\nb: &b {steps: 2, rate: 3}\nc: {<<: [*a, *b]}"
    assert yaml_core.load(several)["c"] == {"steps": 1, "rate": 3}
    with pytest.raises(yaml.YAMLError, match="takes a mapping or a list of mappings"):
        yaml_core.load("a: {<<: 3}")
    for text in ("!!python/object/apply:os.getcwd []", "a: " + 5000 * "9"):
        with pytest.raises(yaml.YAMLError):
            yaml_core.load(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a: &a [1]\n" + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefgh")),
            "100,000",
        ),
        ("a: " + "[" * 4000 + "]" * 4000, "nests too deeply"),
        ("a: &a [*a]", "inside its own anchor"),
        ("d: &d {<<: *d, x: 1}", "inside its own anchor"),
        ("a: " + "9" * 6000, "a number with 6000 digits is too long"),
    ],
    ids=["aliases", "depth", "circle", "merged circle", "digits"],
)
def test_a_document_that_grows_without_end_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(WrongUse, match=f"{path}.*not valid YAML: .*{problem}"):
        read_yaml(path)


def test_only_files_of_the_size_of_specs_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(WrongUse, match=r"pipe\.yaml: not a file"):
        read_yaml(tmp_path / "pipe.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"")
    os.truncate(large, MOST_YAML_BYTES + 1)
    with pytest.raises(WrongUse, match=r"large\.yaml: larger than 4 MiB"):
        read_yaml(large)


def test_seeds_have_64_bits(bench: Bench) -> None:
    cell = {"method": "scratch", "pretrain_dataset": "scannet", "task": "s3dis-sem", "budget": "b", "profile": "p"}
    assert Cell(**cell, finetune_seed=2**64 - 1).finetune_seed == 2**64 - 1
    for field, seeds in (("pretrain_seeds", (2**64,)), ("finetune_seeds", (0, 10**30))):
        with pytest.raises(ValueError, match="less than or equal to 18446744073709551615"):
            Suite(name="s", version=1, budget="smoke", methods=("scratch",), tasks=("s3dis-sem",), **{field: seeds})
    command = ("run", "--method", "scratch", "--task", "s3dis-sem", "--finetune-seed", str(2**64))
    assert "less than or equal to 18446744073709551615" in bench(*command, code=2).stderr
