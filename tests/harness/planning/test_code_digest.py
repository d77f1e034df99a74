"""The digest of the code that a stage can import, which is part of its key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning import code_digest
from tests.conftest import REPOSITORY


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
