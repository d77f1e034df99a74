"""Stage keys: equal for equal work, different if anything that decides the result differs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.budget import Budget, BudgetHalf
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.probes import DecoderProbe, Probes
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract import stage as contract_stage
from pretrain_bench.harness.contract.stage import Keys, StageSpec
from pretrain_bench.harness.planning import code_digest
from pretrain_bench.harness.planning import planner as planner_module
from pretrain_bench.harness.planning import stage_specs as graph
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.estimate import History
from pretrain_bench.harness.planning.planner import Planner, SuiteSpecs, stages_of
from pretrain_bench.harness.planning.prepared_data import DataSources, PreparedDataset
from pretrain_bench.harness.planning.stage_data import pretrain_scenes, used_scenes
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, pretrain_stages
from pretrain_bench.methods.stage import module_of
from pretrain_bench.reports.analysis.digests import digest_of
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
    assert images.threads == 1 and chain(prepared, budget="uniform")[0].threads == 2
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
    assert (
        chain(prepared, MACHINE._replace(threads=1), budget="uniform")[0].key
        != chain(prepared, budget="uniform")[0].key
    )
    assert changed(machine=MACHINE._replace(sparse_backend="minkowski")) == [True, True, True]
    smoke = find(Profile, "smoke")
    other = smoke.model_copy(update={"methods": {"ours": {"points": {"voxel_metres": 0.2}}}})
    assert changed(profile=other) == [False, True, True]


def test_two_tasks_share_one_pretraining(prepared, tmp_path: Path) -> None:
    """The second task is a user's own file, with a recipe in the user's own profile."""
    task = tmp_path / "walls.yaml"
    text = (REPOSITORY / "benchmarks/configs/tasks/s3dis-sem.yaml").read_text()
    task.write_text(text.replace("name: s3dis-sem", "name: walls"))
    smoke = find(Profile, "smoke")
    both = smoke.model_copy(update={"tasks": {**smoke.tasks, "walls": smoke.tasks["s3dis-sem"]}})
    one = stages_of(cell(), specs(cell(), both), prepared, MACHINE)
    two = stages_of(cell(task="walls"), specs(cell(), both, task=find(Task, str(task))), prepared, MACHINE)
    assert [s.spec.key for s in one[:2]] == [s.spec.key for s in two[:2]]
    assert one[2].spec.key != two[2].spec.key


def labelled_elsewhere(prepared: dict[str, PreparedDataset]) -> PreparedDataset:
    """A labelled dataset on which no task fine-tunes."""
    return prepared["s3dis"]._replace(dataset=find(Dataset, "s3dis").model_copy(update={"name": "elsewhere"}))


def test_supervised_pretraining_has_the_voxels_of_its_task(prepared) -> None:
    """5 cm for S3DIS, as in the author's run; tasks of equal voxel size share the pre-training; a profile may set one size for all."""
    headline = find(Profile, "headline")

    def keys(profile: Profile, method: str = "supervised") -> dict[str, tuple[object, str]]:
        source = labelled_elsewhere(prepared) if method == "supervised" else prepared["rgbd-folder"]
        where = {task: cell(method=method, task=task, profile=profile.name) for task in profile.tasks}
        stages = {
            t: pretrain_stages(specs(c, profile, task=find(Task, t)), source, 0, MACHINE)[-1] for t, c in where.items()
        }
        return {t: ((s.spec.recipe or {})["voxel_metres"], s.spec.key) for t, s in stages.items()}

    found = keys(headline)
    assert {task: found[task][0] for task in ("s3dis-sem", "s3dis-inst", "kitti-sem")} == dict.fromkeys(
        ("s3dis-sem", "s3dis-inst", "kitti-sem"), 0.05
    )
    assert {task: voxels for task, (voxels, _) in found.items()} == {
        task: recipe.voxel_metres for task, recipe in headline.tasks.items()
    }
    assert found["sunrgbd-det"][0] == 0.025, "detection too has the voxels that it runs at"
    assert len({key for _, key in found.values()}) == len({voxels for voxels, _ in found.values()}) == 3
    fixed = headline.model_copy(update={"methods": {"supervised": {"semantic": {"voxel_metres": 0.02}}}})
    assert {voxels for voxels, _ in keys(fixed).values()} == {0.02} and len(set(keys(fixed).values())) == 1
    assert len(set(keys(headline, "csc").values())) == 1, "no other method depends on the task"


def test_a_planner_makes_one_supervised_pretraining_a_voxel_size(prepared) -> None:
    tasks = {"s3dis-sem": 0.05, "s3dis-inst": 0.05, "coarse": 0.1}
    smoke = find(Profile, "smoke")
    sizes = {t: smoke.tasks["s3dis-sem"].model_copy(update={"voxel_metres": size}) for t, size in tasks.items()}
    sizes["s3dis-inst"] = smoke.tasks["s3dis-inst"].model_copy(update={"voxel_metres": 0.05})
    profile = smoke.model_copy(update={"tasks": {**smoke.tasks, **sizes}})
    known = {t: find(Task, t) for t in ("s3dis-sem", "s3dis-inst")}
    known["coarse"] = known["s3dis-sem"].model_copy(update={"name": "coarse"})
    suite = SuiteSpecs({"supervised": find(Method, "supervised")}, known, find(Budget, "smoke"), profile)
    data = {"s3dis": prepared["s3dis"], "elsewhere": labelled_elsewhere(prepared)}
    planner = Planner(suite, {name: name for name in data}, data, MACHINE)
    cells = [cell(method="supervised", pretrain_dataset="elsewhere", task=task) for task in tasks]
    first = {c.task: planner.plan_cell(c).stages[0] for c in cells}
    assert first["s3dis-sem"] is first["s3dis-inst"] and first["coarse"].spec.key != first["s3dis-sem"].spec.key
    assert {t: s.long_title for t, s in first.items()} == {
        t: f"supervised/semantic, voxel_metres {v}" for t, v in tasks.items()
    }
    assert all(s.spec.from_task == ("voxel_metres",) for s in first.values())
    assert digest_of([first["coarse"].spec]) == digest_of([first["s3dis-sem"].spec]), "one row of a report"
    changed = first["coarse"].spec.model_copy(update={"recipe": {**(first["coarse"].spec.recipe or {}), "batch": 4}})
    assert digest_of([changed]) != digest_of([first["coarse"].spec])


def test_seeds_are_planned_as_copies_of_one_stage_of_their_purpose(prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of 200,000 seeds validates each purpose once; every spec and key is that of a cell planned alone."""
    task, smoke = find(Task, "s3dis-sem"), find(Profile, "smoke")
    suite = SuiteSpecs({"csc": find(Method, "csc")}, {task.name: task}, find(Budget, "smoke"), smoke)
    cells = [
        cell(method="csc", protocol=protocol, pretrain_seed=one, finetune_seed=two)
        for protocol in ("finetune", "linear")
        for one in range(3)
        for two in range(2)
    ]
    alone = [[s.spec for s in stages_of(c, suite.of(c), prepared, MACHINE)] for c in cells]
    made: list[str] = []
    for name in ("pretrain_stages", "features_stage", "finetune_stage"):
        counted = getattr(planner_module, name)
        monkeypatch.setattr(planner_module, name, lambda *a, n=name, f=counted: [made.append(n), f(*a)][1])
    texts: list[StageSpec] = []
    counted_texts = contract_stage._texts_around
    monkeypatch.setattr(contract_stage, "_texts_around", lambda spec: [texts.append(spec), counted_texts(spec)][1])
    planner = Planner(suite, {name: name for name in prepared}, prepared, MACHINE)
    planned = [planner.plan_cell(c) for c in cells]
    assert [[s.spec for s in p.stages] for p in planned] == alone
    keys = Keys()
    assert all(keys.of(s.spec) == s.spec.key for p in planned for s in p.stages)
    assert made == ["pretrain_stages", "finetune_stage", "features_stage", "finetune_stage"]
    assert len(texts) == len(planner._keys._texts) + 4, "one text for each purpose, whatever the seeds"
    history = History([])
    estimates = [history.estimate(s, 2) for p in planned for s in p.stages]
    assert len(history._estimates) == 4 and estimates == [History([]).estimate(s, 2) for p in planned for s in p.stages]


def test_copies_of_a_method_with_two_stages_have_parents_of_their_own_seed(prepared) -> None:
    task, smoke = find(Task, "s3dis-sem"), find(Profile, "smoke")
    suite = SuiteSpecs({"ours": find(Method, "ours")}, {task.name: task}, find(Budget, "smoke"), smoke)
    cells = [cell(pretrain_seed=one, finetune_seed=two) for one in range(3) for two in range(2)]
    planner = Planner(suite, {name: name for name in prepared}, prepared, MACHINE)
    planned = [[s.spec for s in planner.plan_cell(c).stages] for c in cells]
    assert planned == [[s.spec for s in stages_of(c, suite.of(c), prepared, MACHINE)] for c in cells]
    assert {len(stages) for stages in planned} == {3} and len({stages[1].key for stages in planned}) == 3
    assert all(one.key in two.parents.values() for stages in planned for one, two in pairwise(stages))


def test_a_key_made_from_shared_text_is_the_key(prepared) -> None:
    spec = chain(prepared)[1]
    odd = spec.model_copy(update={"recipe": {"seed": None, "parents": None, "text": '"seed":null'}})
    keys = Keys()
    for one in (spec, odd):
        copies = [one.copy_with(seed=seed, parents={"b": f"{seed}", "a": "ü"}) for seed in (0, 2**64 - 1)]
        assert [keys.of(c) for c in copies] == [c.key for c in copies]


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


def test_what_a_method_hands_on_is_part_of_the_fine_tuning_alone(prepared) -> None:
    smoke = find(Profile, "smoke")
    whole = smoke.model_copy(update={"methods": {"depthcontrast": {"scans": {"transfer": "all"}}}})
    encoder, everything = (chain(prepared, method="depthcontrast", profile=p) for p in (smoke, whole))
    assert encoder[0].key == everything[0].key and "transfer" not in (encoder[0].recipe or {})
    assert (encoder[1].transfer, everything[1].transfer) == ("encoder", "all") and encoder[1].key != everything[1].key
    assert chain(prepared)[-1].transfer == "all"


def test_impossible_cells_are_refused(prepared) -> None:
    smoke = find(Profile, "smoke")
    with pytest.raises(WrongUse, match="has no recipe for task 's3dis-sem'"):
        chain(prepared, profile=smoke.model_copy(update={"tasks": {}}))
    with pytest.raises(WrongUse, match=r"method 'ours' needs frames, images, which dataset 's3dis' does not have"):
        graph.check_needs(find(Method, "ours"), find(Dataset, "s3dis"))


def test_a_currency_that_cannot_be_honoured_is_refused(prepared) -> None:
    def stages(currency: str, machine: Machine = MACHINE, **change: object) -> list[StageSpec]:
        half = BudgetHalf.model_validate({"currency": currency, currency: 1e12})
        known = specs(cell(), budget=find(Budget, "smoke").model_copy(update={"pretrain": half}))
        known = known._replace(method=known.method.model_copy(update=change))
        return [p.spec for p in stages_of(cell(), known, prepared, machine)]

    assert stages("flops")[0].limits.amount == 5e11
    assert stages("gpu_seconds", MACHINE._replace(device="cuda"))[0].limits.currency == "gpu_seconds"
    where = "budget 'smoke', pretrain: currency "
    with pytest.raises(WrongUse, match=where + "'flops': method 'ours' is limited by optimizer_steps only"):
        stages("flops", currencies=("optimizer_steps",))
    with pytest.raises(WrongUse, match=where + "'gpu_seconds': 'ours' would run on the CPU"):
        stages("gpu_seconds")
    with pytest.raises(WrongUse, match=where + "'flops': only the project's own engine counts FLOPs"):
        stages("flops", MACHINE._replace(sparse_backend="minkowski"))


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
        used = used_scenes(source, find(Profile, profile))
        split = split_scenes(used, source.dataset, LabelRatio())
        assert {s[:2] for s in (*split.train, *split.selection)} == sequences and len(split.test) == 10
        assert {s[:2] for s in pretrain_scenes(source, find(Profile, profile))} == sequences


def test_a_fine_tuning_has_the_key_that_it_had_without_protocols(prepared: dict[str, PreparedDataset]) -> None:
    """Its spec has no field of a protocol, whatever the profile sets for probes."""
    from pretrain_bench.benchmarks.specs.probes import LinearProbe, Probes

    before = chain(prepared)
    assert not {"probe", "protocol"} & set(before[-1].model_dump(mode="json"))
    other = find(Profile, "smoke").model_copy(update={"probes": Probes(linear=LinearProbe(penalty=1.0))})
    assert [s.key for s in chain(prepared, profile=other)] == [s.key for s in before]


def test_linear_probes_of_one_pretraining_share_their_features(prepared: dict[str, PreparedDataset]) -> None:
    """Different shares of scenes and options of the fit share them; another norm, labelled points or another pre-training seed do not."""
    from pretrain_bench.benchmarks.specs.probes import LinearProbe, Probes

    def linear(ratio: str = "100%", seed: int = 0, **options: object) -> list[str]:
        profile = find(Profile, "smoke").model_copy(
            update={"probes": Probes(linear=LinearProbe.model_validate(options))}
        )
        found = chain(
            prepared,
            profile=profile,
            protocol="linear",
            label_ratio=LabelRatio.parse(ratio).model_dump(),
            pretrain_seed=seed,
        )
        assert [s.kind for s in found] == ["pretrain", "pretrain", "features", "finetune"]
        assert found[2].seed == seed and found[3].parents == {"features": found[2].key}
        assert found[2].takes_no_step and found[3].limits.uniformity == "at_most"
        return [s.key for s in found[2:]]

    features, probe = linear()
    assert linear("50%")[0] == features and linear("50%")[1] != probe
    assert linear(penalty=1.0)[0] == features and linear(penalty=1.0)[1] != probe
    for other in (linear("20points"), linear(seed=1), linear(batch_norm="kept"), linear(rows_per_scene=5)):
        assert other[0] != features


@pytest.mark.parametrize("protocol", ["finetune", "linear", "decoder"])
def test_a_probe_sees_what_the_network_was_pretrained_on(prepared: dict[str, PreparedDataset], protocol: str) -> None:
    found = chain(prepared, method="pointcontrast", protocol=protocol)
    whole = protocol == "finetune"
    assert {s.input for s in found[:-1]} == {"geometry"} and found[-1].input == ("colour" if whole else "geometry")
    assert all("input" not in s.model_dump(mode="json") for s in chain(prepared, protocol=protocol)), "no key changes"


@pytest.mark.parametrize("task", ["s3dis-inst", "scannet-det"])
@pytest.mark.parametrize("protocol", ["linear", "decoder"])
def test_only_semantic_tasks_are_probed(task: str, protocol: str) -> None:
    from pretrain_bench.harness.planning.applicable import NotApplicable, check_applicable

    known = find(Task, task)
    target = find(Dataset, known.dataset)
    with pytest.raises(NotApplicable, match=f"protocol '{protocol}': task '{task}' is of kind .* only semantic tasks"):
        check_applicable(find(Method, "scratch"), None, known, target, protocol)  # type: ignore[arg-type]


def test_a_linear_probe_of_an_encoder_alone_is_not_applicable(prepared: dict[str, PreparedDataset]) -> None:
    """Its features would come from a random decoder."""
    from pretrain_bench.harness.planning.applicable import NotApplicable

    own = find(Profile, "smoke").model_copy(update={"methods": {"depthcontrast": {"scans": {"transfer": "encoder"}}}})
    where = cell(method="depthcontrast", protocol="linear")
    with pytest.raises(NotApplicable, match="transfers only its encoder"):
        stages_of(where, specs(where, own), prepared, MACHINE)
    kept = own.model_copy(update={"probes": Probes(decoder=DecoderProbe(start="kept"))})
    where = cell(method="depthcontrast", protocol="decoder")
    stages_of(where, specs(where, own), prepared, MACHINE)
    with pytest.raises(NotApplicable, match="start kept: .*transfers only its encoder"):
        stages_of(where, specs(where, kept), prepared, MACHINE)
