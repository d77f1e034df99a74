"""Methods: list them, and check your own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain_bench.api.display import Display, default_display
from pretrain_bench.api.settings import Roots, root_options
from pretrain_bench.api.stores import AnyPath
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.executors.base import Executor
from pretrain_bench.harness.executors.choice import AUTO, ENGINES, engine_executor, process_executor
from pretrain_bench.harness.planning.catalog import available, find, installed_methods
from pretrain_bench.harness.planning.prepared_data import DataSources, PreparedDataset, parse_data_options
from pretrain_bench.harness.planning.resolved_suite import check_executor, check_trusted
from pretrain_bench.harness.running.conformance import PROFILE, TASK, CheckResult, Conformance, PretrainElsewhere


def list_methods() -> list[Method]:
    """The shipped methods, sorted by name, then those of other installed packages."""
    return [find(Method, name) for name in (*available(Method), *installed_methods())]


def check_method(
    name: AnyPath,
    *,
    pretrain_data: Roots = (),
    keep: AnyPath | None = None,
    trust_code: bool = False,
    executor: str = AUTO,
    display: Display | None = None,
) -> list[CheckResult]:
    """Run short versions of a method and judge each conformance check; takes about a minute on the procedural data.

    Args:
        name: a method that ships, or the folder of your own.
        pretrain_data: a dataset to pre-train on, with its root.
        keep: an empty folder for the runs of the checks; they are deleted by default.
        trust_code: run the Python code of your own folder, as you and without isolation.
        executor: bubblewrap, local, docker or podman, as for `run`; auto: docker for a container, else bubblewrap if it works.
        display: shows progress; bars on a terminal, lines elsewhere, by default.

    A failed check is a verdict, `failed`. Raises WrongUse for an unknown method, one that the executor cannot run, or a `keep`
    that is not empty; EnvironmentCannot without the engine or images that it needs.
    """
    display = display or default_display()
    named = find(Method, str(name))
    if any(stage.checkpoint for stage in named.stages):
        raise WrongUse(
            f"method {named.name!r} is an imported checkpoint, which is not trained here; `bench run` checks its file"
        )
    check_trusted(named, trust_code)
    method, used = _with_executor(named, executor)
    source, target = _data(root_options(pretrain_data), display)
    with checks_folder(keep) as folder:
        verdicts = []
        for verdict in Conformance(method, source, target, used, folder).run():
            display.say(f"{verdict.verdict:<6} {verdict.check}")
            verdicts.append(verdict)
        return verdicts


def _with_executor(method: Method, name: str) -> tuple[Method, Executor]:
    """The executor of a method's stages, and the method with the present id of its image, if it names one. A user's container is
    fine-tuned by processes of this project."""
    if method.image is not None and name == AUTO:
        name = ENGINES[0]
    check_executor(method, name)
    if name not in ENGINES:
        return method, process_executor(name)
    engine = engine_executor(name)
    if method.image is None:
        engine.check_images([method])
        return method, engine
    from pretrain_bench.harness.executors.image_state import with_image

    method = with_image(engine.client, method)
    engine.own[method.name] = str(method.image)
    return method, PretrainElsewhere(engine, process_executor())


def _data(options: list[str], display: Display) -> tuple[PreparedDataset, PreparedDataset]:
    """The datasets that the checks pre-train and fine-tune on."""
    profile = find(Profile, PROFILE)
    sources = DataSources(*parse_data_options(options, "--pretrain-data"), profile.frame_stride, profile.world)

    def prepared(name: str) -> PreparedDataset:
        used = sources.resolve(name, display.say)
        return sources.prepare(used, progress=display.progress, say=display.say)

    return prepared(next(iter(sources.roots), "scannet")), prepared(find(Task, TASK).dataset)


@contextmanager
def checks_folder(keep: AnyPath | None) -> Iterator[Path]:
    """The folder for the stores of the checks. Raises WrongUse for one that is not empty."""
    if keep is None:
        cache = cache_folder()
        beside = (
            cache if os.access(cache, os.W_OK) else None
        )  # files of another file system would be copied, not linked
        with tempfile.TemporaryDirectory(prefix="bench-check-", dir=beside) as scratch:
            yield Path(scratch).resolve()
        return
    folder = Path(keep)
    if folder.is_dir() and any(folder.iterdir()):
        raise WrongUse(f"--keep {folder}: not empty; the checks need stores of their own")
    yield folder.resolve()
