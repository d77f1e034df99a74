from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.loading import load_spec
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.recipes import stage_recipe
from tests.conftest import REPOSITORY
from tests.methods.stages import recipe_in

BUDGET = """
name: mine
version: 1
pretrain: {currency: optimizer_steps, optimizer_steps: 10}
finetune: {currency: optimizer_steps, optimizer_steps: %s}
"""


@pytest.mark.parametrize("kind", [Budget, Dataset, Method, Profile, Task])
def test_everything_that_ships_loads(kind) -> None:
    names = available(kind)
    assert names
    for name in names:
        assert find(kind, name).name == name


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BUDGET % "-1", "finetune.optimizer_steps: Input should be greater than 0 (got -1)"),
        (BUDGET % "10, steps: 3", "finetune.steps: unknown key, did you mean 'optimizer_steps'?"),
        (BUDGET % "10, wall_minutes: 3", "did you mean 'wall_seconds'?"),
        (BUDGET % "10, samples_seen: 3", "exactly the field 'optimizer_steps' must be set"),
        (BUDGET % "ten", "finetune.optimizer_steps: Input should be a valid integer"),
        ("name: mine\nversion: 1\n", "pretrain: missing"),
        ("- a list\n", "expected a mapping"),
        ("name: [\n", "line 2: not valid YAML"),
        ("extends: missing\n", "extends: no file missing.yaml in "),
        ("extends: smoke.yaml\n", "extends: smoke.yaml: write the name without its suffix"),
        ("extends: mine\n", "forms a cycle"),
        (f"extends: {'a' * 300}\n", "extends: expected the name of a file without its suffix, found 'aaaaaaaa"),
        ("extends: {a: b}\n", "extends: expected the name of a file without its suffix"),
        ('extends: "a\\0b"\n', "extends: expected the name of a file without its suffix"),
    ],
)
def test_a_wrong_budget_is_named_by_file_and_field(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(WrongUse) as error:
        load_spec(path, Budget)
    assert said in str(error.value)
    assert "mine.yaml" in str(error.value)


def test_unknown_key_in_a_nested_mapping_lists_what_is_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, "extends: smoke\nname: mine\ntasks: {s3dis-sem: {voxel_cm: 5}}\n")
    with pytest.raises(
        WrongUse, match=r"tasks\.s3dis-sem\.voxel_cm: unknown key, did you mean 'voxel_metres'.*batch, clip"
    ):
        find(Profile, str(path))


def test_a_users_file_may_extend_what_ships(tmp_path: Path) -> None:
    path = write(tmp_path, "extends: smoke\nname: mine\nmethods: {ours: {points: {voxel_metres: 0.07}}}\n")
    ours, mine = find(Method, "ours"), find(Profile, str(path))
    assert mine.lineage == ("headline", "smoke", "mine")
    recipe, shipped = stage_recipe(ours, ours.stages[1], mine), recipe_in("smoke", "ours", "points")
    assert recipe == shipped.model_copy(update={"voxel_metres": 0.07})
    wrong = write(tmp_path, "extends: smoke\nname: mine\nmethods: {ours: {points: {voxel_cm: 7}}}\n")
    with pytest.raises(WrongUse, match=r"methods\.ours\.points: voxel_cm: unknown key, did you mean 'voxel_metres'"):
        stage_recipe(ours, ours.stages[1], find(Profile, str(wrong)))


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(
        WrongUse,
        match=r"unknown method 'our'\. Did you mean 'ours'\? There are: csc, depthcontrast, imported, msc, ours, pointcontrast, scratch, supervised",
    ):
        find(Method, "our")


def test_batches_accumulate_evenly() -> None:
    profile = find(Profile, "headline")
    recipe = profile.tasks["s3dis-sem"]
    with pytest.raises(ValueError, match="multiple of micro_batch"):
        type(recipe).model_validate({**recipe.model_dump(), "micro_batch": 7})


def resolved(name: str) -> dict[str, str]:
    """All fields of a profile and of its methods' recipes, by path, with their values formatted as in the docs."""
    profile = find(Profile, name)
    nested = profile.model_dump(mode="json", exclude={"name", "version", "description", "bases", "methods"})
    for method in available(Method):
        for stage in find(Method, method).stages:
            if (recipe := recipe_in(name, method, stage.name)) is not None:
                nested[f"{method}.{stage.name}"] = recipe.model_dump(mode="json")

    def leaves(value: object, path: str) -> dict[str, str]:
        if not isinstance(value, dict):
            return {path: str(value)}
        return {
            k: v for key, inner in value.items() for k, v in leaves(inner, f"{path}.{key}" if path else key).items()
        }

    return leaves(nested, "")


@pytest.mark.parametrize("profile", ["paper-literal", "author-code"])
def test_the_docs_list_exactly_where_a_profile_differs_from_headline(profile: str) -> None:
    one, two = resolved("headline"), resolved(profile)
    differing = {path for path in one.keys() | two.keys() if one.get(path) != two.get(path)}
    page = (REPOSITORY / "docs/methods.md").read_text()
    section = page.partition(f"\n## {profile}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.-]+)` \| `([^`]+)` \| `([^`]+)` \|", section, flags=re.MULTILINE)
    assert {row[0] for row in rows} == differing and len(rows) == len(differing)
    for path, headline, literal in rows:
        assert (one.get(path, "none"), two.get(path, "none")) == (headline, literal), path
    if profile != "paper-literal":
        return
    readme = (REPOSITORY / "docs/budgets.md").read_text().partition("`paper-literal` differs from `headline` in")[2]
    assert set(re.findall(r"`([\w.-]+)`", readme.partition(";")[0])) == {path for path in differing}


@pytest.mark.parametrize(
    ("text", "percent"), [("5%", 5.0), ("100", 100.0), (" 12.5 % ", 12.5), ("0.05", 5.0), ("0.2", 20.0)]
)
def test_label_ratio(text: str, percent: float) -> None:
    assert LabelRatio.parse(text).percent == percent


@pytest.mark.parametrize("text", ["1.0", "0.005", "0%", "101%", "all", "-5%", ""])
def test_label_ratio_refuses(text: str) -> None:
    with pytest.raises(WrongUse, match="from 1% to 100%"):
        LabelRatio.parse(text)


def test_specs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        find(Budget, "smoke").version = 2


def test_procedural_datasets_have_the_sizes_of_the_profiles() -> None:
    for name in available(Dataset):
        dataset = find(Dataset, name)
        assert bool(dataset.worlds) == dataset.synthetic
        if dataset.synthetic:
            small, large = dataset.sized("smoke").world, dataset.sized("tiny").world
            assert small and large and sum(large.values()) > sum(small.values())
            with pytest.raises(WrongUse, match="has no size 'huge'; it has nano, smoke, tiny"):
                dataset.sized("huge")
    for name in available(Profile):
        assert find(Profile, name).world in ("smoke", "tiny", "study")


def test_a_profile_that_changes_a_rate_keeps_the_rest_of_the_optimiser(tmp_path: Path) -> None:
    shipped = find(Profile, "headline")
    methods = [find(Method, name) for name in available(Method)]
    sections = [(m, s) for m in methods for s in m.stages if s.recipe and not s.recipe.startswith("tasks.")]
    assert len(sections) == 6
    changed = {
        m.name: {s.name: {"optimiser": {"learning_rate": 0.5}} for n, s in sections if n is m} for m, _ in sections
    }
    tasks = {task: {"optimiser": {"learning_rate": 0.5}} for task in shipped.tasks}
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump({"extends": "headline", "name": "mine", "version": 1, "methods": changed, "tasks": tasks})
    )
    mine = find(Profile, str(path))
    for before, after in [
        *((stage_recipe(m, s, shipped), stage_recipe(m, s, mine)) for m, s in sections),
        *((shipped.tasks[t], mine.tasks[t]) for t in shipped.tasks),
    ]:
        assert after.optimiser == before.optimiser.model_copy(update={"learning_rate": 0.5})


def test_official_gives_a_voxel_the_instance_of_its_first_point() -> None:
    for name, rule in (("headline", "common"), ("official", "first")):
        tasks = find(Profile, name).tasks
        assert {tasks[task].instance_of_voxel for task in ("s3dis-inst", "scannet-inst")} == {rule}


@pytest.mark.parametrize(
    ("deviation", "field", "headline", "option"),
    [
        ("Both views of stage 1", "ours.images.norm_over", "both_views", "`author-code`: `norm_over: each_view`"),
        ("The images of stage 2", "ours.points.antialias", "True", "`author-code`: `antialias: false`"),
        ("Instances of a voxel", "tasks.s3dis-inst.instance_of_voxel", "common", "`instance_of_voxel: first` (profile `official`)"),
        ("Detection draws at most N points", "tasks.scannet-det.points", "40000", "There is no option"),
        (
            "DepthContrast's learning rate", "depthcontrast.scans.optimiser.learning_rate", "0.12",
            "`methods: {depthcontrast: {scans: {optimiser: {learning_rate: 0.00375}}}}`",
        ),
    ],
)  # fmt: skip
def test_the_docs_list_each_deviation_from_upstream_with_its_option(
    deviation: str, field: str, headline: str, option: str
) -> None:
    bullets = [" ".join(b.split()) for b in (REPOSITORY / "docs/methods.md").read_text().split("\n* ")]
    (bullet,) = [b for b in bullets if b.startswith(f"**{deviation}")]
    assert option in bullet and resolved("headline")[field] == headline


def test_detection_passes_hold_the_batch_that_upstream_normalises_over() -> None:
    tasks = find(Profile, "headline").tasks
    assert [(t.batch, t.micro_batch) for t in (tasks["scannet-det"], tasks["sunrgbd-det"])] == [(32, 32), (64, 64)]
    for name in available(Profile):
        for task, recipe in find(Profile, name).tasks.items():
            assert recipe.batch % recipe.micro_batch == 0, (name, task)
