"""Edits of a store by a cheat who wants another result, and resealing by a cheat who knows the hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pretrain_bench.harness.contract.events import line_sha256
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.store import json_bytes


def folders_of(runs: Path, method: str, kind: str = "finetune") -> list[Path]:
    """Folders of the runs of a method, by key."""
    records = [p for p in sorted(runs.glob(f"{kind}/*/record.json")) if json.loads(p.read_text())["method"] == method]
    assert records
    return [p.parent for p in records]


def folder_of(runs: Path, method: str, kind: str = "finetune") -> Path:
    return folders_of(runs, method, kind)[0]


def every_run(runs: Path) -> list[Path]:
    return [p.parent for p in sorted(runs.glob("*/*/record.json"))]


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_bytes(json_bytes(content))


def edit_record(folder: Path, change: Callable[[dict], object]) -> None:
    record = json.loads((folder / "record.json").read_text())
    change(record)
    for path in (folder / "record.json", *folder.glob("attempts/*/record.json")):
        path.write_bytes(json_bytes(record))


def edit_spec(folder: Path, change: Callable[[dict], object]) -> None:
    edit_json(folder / "spec.json", change)


def edit_split(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the scenes of a split, and its hash with them."""

    def edit(spec: dict) -> None:
        split = spec["split"]
        change(split)
        parts = {"version": split["version"], **{k: sorted(split[k]) for k in ("train", "selection", "test")}}
        split |= {**parts, "sha256": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}

    edit_spec(folder, edit)


def edit_events(folder: Path, change: Callable[[dict], object]) -> None:
    """Change events, and recompute their running hash."""
    before, lines = None, []
    for text in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(text)
        change(event)
        line = json.dumps(event | {"before": before}, separators=(",", ":")).encode() + b"\n"
        before = line_sha256(line)
        lines.append(line)
    (folder / "events.jsonl").write_bytes(b"".join(lines))


def replace_checkpoint(runs: Path) -> None:
    one, two = folder_of(runs, "csc", "pretrain"), folder_of(runs, "scratch", "pretrain")
    shutil.copyfile(two / "artifacts/backbone.safetensors", one / "artifacts/backbone.safetensors")


def reseal(runs: Path) -> None:
    """Recompute all hashes: artifacts, files beside the record, keys and folders, parents, records, the chain."""
    renamed: dict[str, str] = {}
    links = []
    for kind in ("pretrain", "finetune"):
        for path in sorted(runs.glob(f"{kind}/*/spec.json")):
            spec = json.loads(path.read_text())
            spec["parents"] = {s: renamed.get(k, k) for s, k in spec["parents"].items()}
            path.write_bytes(json_bytes(spec))
            key = StageSpec.model_validate(spec).key
            renamed[path.parent.name] = key
            folder = path.parent.parent / key
            os.rename(path.parent, folder)
            record = json.loads((folder / "record.json").read_text())
            record |= {"key": key, "parents": spec["parents"]}
            for entries, place in ((record["artifacts"], folder / "artifacts"), (record["files"], folder)):
                for name in entries:
                    if (place / name).is_file():
                        content = (place / name).read_bytes()
                        entries[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            sealed = Record.model_validate(record).sealed()
            for target in (folder / "record.json", *folder.glob("attempts/*/record.json")):
                target.write_bytes(json_bytes(sealed.model_dump(mode="json")))
            links.append(link_of(sealed))
    chain.write(runs, links)


def link_of(record: Record, outcome: str = "") -> chain.Link:
    return chain.Link(
        kind=record.kind, key=record.key, attempt=record.attempt, outcome=outcome or record.outcome.value,
        record_sha256=record.sha256, before="",
    )  # fmt: skip
