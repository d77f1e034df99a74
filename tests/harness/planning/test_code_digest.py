"""Stage keys: equal for equal work, different where something that decides the result differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning import code_digest
from pretrain_bench.harness.planning import stage_specs as graph
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.planner import stages_of
from pretrain_bench.harness.planning.prepared_data import DataSources, PreparedDataset
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine
from pretrain_bench.methods.stage import module_of
from tests.conftest import REPOSITORY

MACHINE = Machine(2, "torch", "cpu")


@pytest.fixture(scope="module")
def prepared(s3dis_root: Path, rgbd_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedDataset]:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("keys")))
    roots = {"s3dis": s3dis_root, "rgbd-folder": rgbd_root}
    found = {n: DataSources(roots).prepare(n) for n in roots}
    monkeypatch.undo()
    return found


def cell(**changes: object) -> Cell:
    plain = {
        "method": "ours", "pretrain_dataset": "rgbd-folder", "task": "s3dis-sem", "budget": "smoke", "profile": "smoke",
    }  # fmt: skip
    return Cell.model_validate({**plain, **changes})


def chain(
    prepared: dict[str, PreparedDataset], machine: Machine = MACHINE, profile: Profile | None = None, **changes: object
) -> list[StageSpec]:
    where = cell(**changes)
    return [p.spec for p in stages_of(where, specs(where, profile), prepared, machine)]


def specs(where: Cell, profile: Profile | None = None, **changes: object) -> CellSpecs:
    return CellSpecs(
        find(Method, where.method),
        find(Task, "s3dis-sem"),
        find(Budget, where.budget),
        profile or find(Profile, where.profile),
    )._replace(**changes)


def test_the_chain_is_linked_by_keys(prepared) -> None:
    images, points, finetune = chain(prepared)
    assert images.threads == 1 and chain(prepared, budget="tiny")[0].threads == 2
    assert (images.stage, points.stage, finetune.kind) == ("images", "points", "finetune")
    assert points.parents == {"images": images.key} and finetune.parents == {"points": points.key}
    assert images.limits.amount == points.limits.amount == 30
    assert images.data is not None and images.data.view == "unlabelled" and images.data.classes == ()
    assert finetune.data is not None and finetune.data.view == "labelled"


def test_equal_cells_have_equal_keys_and_every_choice_changes_them(prepared) -> None:
    plain = chain(prepared)
    assert [s.key for s in chain(prepared)] == [s.key for s in plain]

    def changed(**kwargs: object) -> list[bool]:
        return [a.key != b.key for a, b in zip(plain, chain(prepared, **kwargs), strict=True)]

    assert changed(label_ratio=LabelRatio(percent=50)) == [False, False, True]
    assert changed(finetune_seed=1) == [False, False, True]
    assert changed(pretrain_seed=1) == [True, True, True]
    assert changed(budget="tiny") == [True, True, True]
    assert changed(machine=MACHINE._replace(threads=1)) == [False, False, False], "the smoke budget allows one CPU"
    assert chain(prepared, MACHINE._replace(threads=1), budget="tiny")[0].key != chain(prepared, budget="tiny")[0].key
    assert changed(machine=MACHINE._replace(sparse_backend="minkowski")) == [True, True, True]
    smoke = find(Profile, "smoke")
    other = smoke.model_copy(update={"methods": {"ours": {"points": {"voxel_metres": 0.2}}}})
    assert changed(profile=other) == [False, True, True]


def test_two_tasks_share_one_pretraining(prepared, tmp_path: Path) -> None:
    """A second task: a user's own file, with a recipe in the user's own profile."""
    task = tmp_path / "walls.yaml"
    text = (REPOSITORY / "benchmarks/configs/tasks/s3dis-sem.yaml").read_text()
    task.write_text(text.replace("name: s3dis-sem", "name: walls"))
    smoke = find(Profile, "smoke")
    both = smoke.model_copy(update={"tasks": {**smoke.tasks, "walls": smoke.tasks["s3dis-sem"]}})
    one = stages_of(cell(), specs(cell(), both), prepared, MACHINE)
    two = stages_of(cell(task="walls"), specs(cell(), both, task=find(Task, str(task))), prepared, MACHINE)
    assert [s.spec.key for s in one[:2]] == [s.spec.key for s in two[:2]]
    assert one[2].spec.key != two[2].spec.key


def test_scratch_is_the_same_for_every_pretraining_dataset(prepared) -> None:
    init, finetune = chain(prepared, method="scratch", pretrain_dataset="none")
    assert init.data is None and init.limits.amount == 0 and finetune.parents == {"init": init.key}


def test_how_a_budget_is_uniform_reaches_the_spec_and_the_key(prepared) -> None:
    smoke = find(Budget, "smoke")
    halves = {
        kind: {
            uniformity: getattr(smoke, kind).model_copy(update={"uniformity": uniformity})
            for uniformity in ("exactly", "at_most")
        }
        for kind in ("pretrain", "finetune")
    }

    def stages(pretrain: str, finetune: str) -> list[StageSpec]:
        budget = smoke.model_copy(
            update={"pretrain": halves["pretrain"][pretrain], "finetune": halves["finetune"][finetune]}
        )
        return [p.spec for p in stages_of(cell(), specs(cell(), budget=budget), prepared, MACHINE)]

    mixed, capped = stages("exactly", "at_most"), stages("at_most", "at_most")
    assert [s.limits.uniformity for s in mixed] == ["exactly", "exactly", "at_most"]
    assert [a.key != b.key for a, b in zip(mixed, capped, strict=True)] == [True, True, True]


def test_impossible_cells_are_refused(prepared) -> None:
    smoke = find(Profile, "smoke")
    with pytest.raises(WrongUse, match="has no recipe for task 's3dis-sem'"):
        chain(prepared, profile=smoke.model_copy(update={"tasks": {}}))
    with pytest.raises(
        WrongUse, match=r"method 'ours' needs frames, images, poses, which dataset 's3dis' does not have"
    ):
        graph.check_needs(find(Method, "ours"), find(Dataset, "s3dis"))


def test_a_currency_that_cannot_be_honoured_is_refused(prepared) -> None:
    smoke = find(Budget, "smoke")
    half = smoke.pretrain.model_validate({"currency": "flops", "flops": 1e12})
    budget = smoke.model_copy(update={"pretrain": half})
    with pytest.raises(WrongUse, match="budget 'smoke', pretrain: currency 'flops' is not supported"):
        stages_of(cell(), specs(cell(), budget=budget), prepared, MACHINE)


def test_a_method_without_code_is_refused() -> None:
    with pytest.raises(WrongUse, match=r"its stage 'train' has no module pretrain_bench\.methods\.mine\.train"):
        code_digest.code_sha256("pretrain", "mine", "train")


def test_the_digest_covers_what_a_stage_can_import_and_nothing_else() -> None:
    images = code_digest.reachable_modules(("pretrain_bench.methods.stage", "pretrain_bench.methods.ours.images"))
    assert {
        "pretrain_bench.methods.training.contrast",
        "pretrain_bench.methods.networks.resunet2d",
        "pretrain_bench.benchmarks.datasets.views",
        "pretrain_bench.harness.contract.events",
    } <= images
    finetune = code_digest.reachable_modules(
        ("pretrain_bench.methods.stage", "pretrain_bench.methods.finetune.semantic")
    )
    assert {
        "pretrain_bench.methods.sparse.conv",
        "pretrain_bench.benchmarks.metrics.scorer",
        "pretrain_bench.benchmarks.input.transforms",
    } <= finetune
    for module in (
        "pretrain_bench.methods.ours",
        "reports",
        "pretrain_bench.harness.cli",
        "pretrain_bench.harness.store.store",
        "pretrain_bench.harness.running.stage_runner",
        "pretrain_bench.benchmarks.procedural",
    ):
        assert not any(m == module or m.startswith(module + ".") for m in finetune), module
    assert "pretrain_bench.methods.finetune.semantic" not in images


def test_the_digest_covers_the_lock_and_what_the_image_is_built_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(REPOSITORY / "docker", tmp_path / "docker"))
    monkeypatch.setattr(code_digest, "docker_folder", lambda: folder)

    def digests() -> tuple[str, str]:
        code_digest.code_sha256.cache_clear()
        code_digest.build_hashes.cache_clear()
        return code_digest.code_sha256("pretrain", "csc", "pairs"), code_digest.code_sha256(
            "finetune", "csc", "semantic"
        )

    def changed(name: str) -> list[bool]:
        before = digests()
        with (folder / name).open("a") as file:
            file.write("# a change\n")
        return [a != b for a, b in zip(before, digests(), strict=True)]

    for name in ("requirements.lock", "torch-cuda.lock", "base.Dockerfile", "minkowski/edits.tsv"):
        assert changed(name) == [True, True], name
    assert changed("method.Dockerfile") == [True, False] and changed("task.Dockerfile") == [False, True]
    assert changed("requirements.in") == changed("images.lock") == [False, False]
    assert code_digest.code_hashes("pretrain", "csc", "pairs").keys() >= {
        "docker/requirements.lock",
        "pretrain_bench.methods.csc.pairs",
    }
    monkeypatch.undo()
    digests()


def test_imports_for_type_checkers_do_not_count() -> None:
    assert "pretrain_bench.benchmarks.specs" not in code_digest.imports_of("pretrain_bench.methods.networks.res16unet")
    assert "pretrain_bench.benchmarks.specs.backbone_shapes" in code_digest.imports_of(
        "pretrain_bench.methods.networks.res16unet"
    )


def test_the_digest_follows_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("benchmarks", "harness", "methods", "docker"):
        shutil.copytree(REPOSITORY / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "package_folder", lambda: tmp_path)

    def digests() -> tuple[str, str, str]:
        code_digest.imports_of.cache_clear()
        code_digest.code_sha256.cache_clear()
        return tuple(
            code_digest.code_sha256(*s)
            for s in (("pretrain", "ours", "images"), ("pretrain", "ours", "points"), ("finetune", "ours", "semantic"))
        )

    before = digests()
    (tmp_path / "harness/store/store.py").write_text("# something else\n")
    assert digests() == before
    with (tmp_path / "methods/sparse/conv.py").open("a") as file:
        file.write("# a change\n")
    after = digests()
    assert [a != b for a, b in zip(before, after, strict=True)] == [False, True, True]
    with (tmp_path / "methods/finetune/semantic.py").open("a") as file:
        file.write("# a change\n")
    assert [a != b for a, b in zip(after, digests(), strict=True)] == [False, False, True]
    code_digest.imports_of.cache_clear()
    code_digest.code_sha256.cache_clear()


def test_harness_and_stage_agree_on_the_module(prepared) -> None:
    for spec in (*chain(prepared), *chain(prepared, method="scratch", pretrain_dataset="none")):
        assert code_digest.entry_module(spec.kind, spec.method, spec.part) == module_of(spec)
        assert code_digest.file_of(module_of(spec)) is not None


def test_paper_literal_leaves_sequence_00_out(prepared, tmp_path: Path) -> None:
    """J-22: the text says "sequences 1-7 and 9-10"; headline keeps the standard split."""
    from pretrain_bench.benchmarks.datasets.layout import Manifest, SceneEntry
    from pretrain_bench.benchmarks.datasets.splits import split_scenes

    names = tuple(f"{s:02d}__{i:06d}" for s in (0, 1, 2, 8) for i in range(10))
    manifest = Manifest(
        dataset="semantickitti", synthetic=False, scenes=tuple(SceneEntry(name=n) for n in names), files={}
    )
    source = PreparedDataset(find(Dataset, "semantickitti"), tmp_path, manifest)
    for profile, sequences in (("headline", {"00", "01", "02"}), ("paper-literal", {"01", "02"})):
        used = graph.used_scenes(source, find(Profile, profile))
        split = split_scenes(used, source.dataset, LabelRatio())
        assert {s[:2] for s in (*split.train, *split.selection)} == sequences and len(split.test) == 10
        assert {s[:2] for s in graph._pretrain_scenes(source, find(Profile, profile))} == sequences


def test_relative_imports_count(tmp_path: Path) -> None:
    path = tmp_path / "stage.py"
    path.write_text("from .recipe import R\nfrom . import pairs\nfrom ..training import loop\n")
    found = code_digest._imports_in(path, "pretrain_bench.methods.csc")
    assert {f"pretrain_bench.methods.{m}" for m in ("csc.recipe", "csc.pairs", "training.loop")} <= set(found)


def test_an_edit_is_noticed_in_the_same_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("benchmarks", "harness", "methods", "docker"):
        shutil.copytree(REPOSITORY / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "package_folder", lambda: tmp_path)
    code_digest.forget_changed_code()
    before = code_digest.code_sha256("pretrain", "csc", "pairs")
    code_digest.forget_changed_code()
    assert code_digest.code_sha256("pretrain", "csc", "pairs") == before
    with (tmp_path / "methods/csc/pairs.py").open("a") as file:
        file.write("# a change\n")
    code_digest.forget_changed_code()
    assert code_digest.code_sha256("pretrain", "csc", "pairs") != before
    monkeypatch.undo()
    code_digest.forget_changed_code()
