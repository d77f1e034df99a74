"""Hashes that identify runs that may be averaged or compared: of a stage's spec without the fields that may differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pretrain_bench.benchmarks.specs.backbone_shapes import Transfer
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec, canonical_json

# Fields that may differ between runs that are averaged or compared: seeds, the method itself, and machine and thread count.
# `coverage` follows from the split, and `transfer` is a property of the method. The file of an imported checkpoint is one of
# several, like a seed. All other fields of a key must be equal, except `input` in an evaluation: what a frozen network sees
# depends on what its method saw.
_FREE = {"seed", "parents", "threads", "device", "sparse_backend", "from_task", "coverage", "transfer", "checkpoint"}


class SpecDigests:
    """Digests of specs by run key. A spec shared by runs is hashed once, since a store may hold ten thousand runs."""

    def __init__(self, specs: dict[str, StageSpec]) -> None:
        self._specs = specs
        self._known: dict[tuple[str, object], str] = {}

    def conditions(self, key: str) -> dict[str, str]:
        """`conditions` and `family` of a fine-tuning, as in the columns of the frame."""
        spec = self._specs[key]
        if ("conditions", id(spec)) not in self._known:
            payload = spec.model_dump(mode="json", exclude={*_FREE, "method", "input"})
            self._known["conditions", id(spec)] = _sha([payload])
            rest = {k: v for k, v in payload.items() if k != "label_ratio"}
            rest["split"] = {k: payload["split"][k] for k in ("version", "test")} if payload.get("split") else None
            self._known["family", id(spec)] = _sha([rest])
        return {kind: self._known[kind, id(spec)] for kind in ("conditions", "family")}

    def pretraining(self, key: str, parents: Iterable[Record]) -> str:
        """One digest of all pre-training stages behind a fine-tuning, and of the tensors it loads from them."""
        transfer = self._specs[key].transfer
        keys = (*(p.key for p in parents), transfer)
        if ("pretraining", keys) not in self._known:
            self._known["pretraining", keys] = digest_of([self._specs[p.key] for p in parents], transfer)
        return self._known["pretraining", keys]

    def stage(self, key: str) -> str:
        """Digest of a single pre-training stage."""
        if ("stage", key) not in self._known:
            self._known["stage", key] = digest_of([self._specs[key]])
        return self._known["stage", key]


def digest_of(stages: list[StageSpec], transfer: Transfer = "all") -> str:
    """Six hexadecimal digits of pre-training stages without their seeds, in any order, and of the tensors they transfer.

    Recipe fields that follow the task are excluded: pre-trainings that differ in nothing else share a row, and each task has
    its own.
    """
    payload = []
    for spec in stages:
        plain = spec.model_dump(mode="json", exclude=_FREE)
        if spec.from_task:
            plain["recipe"] = {k: v for k, v in (spec.recipe or {}).items() if k not in spec.from_task}
        payload.append(plain)
    payload.sort(key=lambda spec: str(spec["stage"]))
    return _sha([*payload, {"transfer": transfer}] if transfer != "all" else payload)


def digest_of_text(text: str) -> str:
    """Six hexadecimal digits of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _sha(payload: list[dict[str, object]]) -> str:
    return digest_of_text(canonical_json(payload))
