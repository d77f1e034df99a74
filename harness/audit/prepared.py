"""Locate the prepared data behind audited runs, by manifest hash or by generating them again; each dataset once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pretrain_bench.benchmarks.datasets.check import changed_files
from pretrain_bench.benchmarks.datasets.layout import LABELLED, Manifest, read_manifest
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.contract.stage import DataView
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.prepared_data import DataSources, prepared_with_manifest


class PreparedData:
    """Locates prepared data. With `generate`, missing procedural data are generated again, which takes a while."""

    def __init__(self, say: Callable[[str], None] = lambda line: None, generate: bool = False) -> None:
        self.say, self.generate = say, generate
        self._folders: dict[tuple[str, bool], Path | str] = {}
        self._manifests: dict[str, Manifest] = {}
        self.rebuilt: dict[object, Any] = {}
        """What `split.py` made of these manifests, so that runs that share a split are not divided again."""

    def folder(self, data: DataView, is_scored: bool = True) -> Path | str:
        """The folder of the prepared data that a run used, or the reason why they are unavailable. Nothing is generated for a run
        that cannot be scored."""
        which = (data.manifest_sha256, self.generate and is_scored)
        if which not in self._folders:
            self._folders[which] = find_data(data, self.say, which[1])
        return self._folders[which]

    def manifest(self, data: DataView, is_scored: bool = True) -> Manifest | str:
        """The manifest of these data, or the reason why it is unavailable."""
        source = self.folder(data, is_scored)
        if isinstance(source, str):
            return source
        if data.manifest_sha256 not in self._manifests:
            self._manifests[data.manifest_sha256] = read_manifest(source)
        return self._manifests[data.manifest_sha256]

    def changed_labels(self, data: DataView, scenes: Iterable[str]) -> str | None:
        """A message about the first label file of these scenes that differs from the manifest; None if there is none, or without
        the data."""
        source, manifest = self.folder(data), self.manifest(data)
        if isinstance(source, str) or isinstance(manifest, str):
            return None
        return next(changed_files(source, manifest, scenes, (LABELLED,)), None)


def find_data(data: DataView, say: Callable[[str], None], generate: bool = True) -> Path | str:
    """The folder of the prepared data that a run used, or the reason why they are unavailable.

    A user's own datasets are located like any other. With `generate`, missing procedural data are generated again.
    """
    try:
        return prepared_with_manifest(data.dataset, data.manifest_sha256)[0]
    except BenchError:
        pass
    missing = f"the prepared data of {data.dataset!r} that it used are not available here"
    if not generate or data.dataset not in available(Dataset) or not find(Dataset, data.dataset).synthetic:
        return missing
    for world in find(Dataset, data.dataset).worlds:
        say(f"{data.dataset}: generating it again ({world}) from its seed")
        made = DataSources(world=world).prepare(data.dataset)
        if made.manifest.sha256 == data.manifest_sha256:
            return made.folder
    return f"this version generates {data.dataset!r} with different content"
