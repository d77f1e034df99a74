"""Hostile changes of a store, a bundle or a spec: types, sizes, depths, names, links, pipes, numbers, duplicate keys, cut files.

A mutation takes its target and a random generator, and returns a short description of the change.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from pretrain_bench.harness.contract.stage import canonical_json, key_of

DEPTH, LONG = 50_000, 700_000
RAW = "@raw:"
"""Prefix of a text that is put into JSON verbatim, without quotes."""


def hostile_names(canary: Path) -> list[str]:
    """Names that lead out of a folder, or are dangerous for terminals or file systems."""
    up = "../" * 12
    return [
        str(canary), str(canary / "keep.txt"), f"{up}{str(canary)[1:]}/keep.txt", "../canary/keep.txt", "../../../canary/keep.txt",
        "a/../../../../../canary/keep.txt", "/dev/zero", "/etc/passwd", "..", ".", "", "/", "a//b", "a\\..\\b", "\x1b[2Jname",
        "a\nb", "\x00", "\u202eabc", "name" * 300, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "-rf", "~", "$HOME",
        "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "CON", "é" * 100,
    ]  # fmt: skip


def hostile_values(canary: Path) -> list[Any]:
    """Values of other types, sizes and depths."""
    return [
        None, True, False, 0, -1, 1, 2**63, 2**64, -(2**70), 1e308, -1e308, 5e-324, 0.5, "x" * LONG, [], {}, [[]], {"": {}}, [None] * 5000,
        {str(i): i for i in range(5000)}, f"{RAW}{'9' * 6000}", f"{RAW}1e999", f"{RAW}NaN", f"{RAW}-Infinity",
        f"{RAW}{'[' * DEPTH}{']' * DEPTH}", RAW + '{"a":' * DEPTH + "1" + "}" * DEPTH, f'{RAW}"\\ud800"', f'{RAW}"\\u0000"', f"{RAW}",
        {"$ref": "#"}, "2026-13-45T99:99:99", "9999-12-31T23:59:59+14:00", *hostile_names(canary),
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- JSON


def changed_json(content: Any, rng: random.Random, canary: Path) -> str:
    """Change one place in parsed JSON; returns a description of the change."""
    place, key = rng.choice(list(_places(content)))
    done = f"{key!r}"[:60]
    action = rng.choice(("replace", "replace", "replace", "remove", "add", "rename", "repeat"))
    if action == "remove":
        del place[key]
    elif action == "add" and isinstance(place, dict):
        place[rng.choice(hostile_names(canary))] = rng.choice(hostile_values(canary))
    elif action == "rename" and isinstance(place, dict):
        place[rng.choice(hostile_names(canary))] = place.pop(key)
    elif action == "repeat" and isinstance(place, list):
        place += [place[key]] * rng.choice((1, 3000))
    else:
        action = "replace"
        place[key] = rng.choice(hostile_values(canary))
    return f"{action} {done}"


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every container with each of its keys or indices."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else []
    return [(content, k) for k in keys] + [place for k in keys for place in _places(content[k])]


def as_text(content: Any) -> str:
    """JSON with raw texts inserted verbatim, sorted and indented as in a store."""
    text = json.dumps(content, indent=1, sort_keys=True)
    parts = text.split(f'"{RAW}')
    if len(parts) == 1:
        return text
    head, tails = parts[0], parts[1:]
    for tail in tails:  # a raw text has no unescaped quotes
        end = _end_of_string(tail)
        head += json.loads(f'"{tail[:end]}"') + tail[end + 1 :]
    return head


def _end_of_string(tail: str) -> int:
    at = 0
    while tail[at] != '"':
        at += 2 if tail[at] == "\\" else 1
    return at


# --------------------------------------------------------------------------------------------------------------- stores


def mutate_store(runs: Path, rng: random.Random, canary: Path) -> str:
    """Change a folder of runs in one way, or with probability 1/4 in two."""
    done = [rng.choice(STORE)(runs, rng, canary) for _ in range(rng.choice((1, 1, 1, 2)))]
    return "; ".join(done)


def _json_file(runs: Path, rng: random.Random, canary: Path) -> str:
    path = _file(runs, rng, ".json")
    try:
        content = json.loads(path.read_bytes())
        done = changed_json(content, rng, canary)
    except (ValueError, IndexError, OSError, RecursionError):
        return "nothing"
    path.write_text(as_text(content), errors="surrogateescape")
    return f"{path.name}: {done}"


def _resealed_record(runs: Path, rng: random.Random, canary: Path) -> str:
    """Change a record or spec, and recompute its own hash or key, as an attacker would."""
    folder = rng.choice(_runs(runs))
    try:
        record, spec = (json.loads((folder / name).read_bytes()) for name in ("record.json", "spec.json"))
        done = changed_json(rng.choice((record, record, spec)), rng, canary)
        record["key"] = key_of(spec)
        record.pop("sha256", None)
        record["sha256"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
        new = folder.with_name(record["key"])
    except (ValueError, IndexError, OSError, RecursionError, TypeError, AttributeError):
        return "nothing"
    if new != folder:
        os.rename(folder, new)
    (new / "record.json").write_text(as_text(record), errors="surrogateescape")
    (new / "spec.json").write_text(as_text(spec), errors="surrogateescape")
    return f"resealed {done}"


def _lines(runs: Path, rng: random.Random, canary: Path) -> str:
    """Change a line of the chain or of events."""
    path = _file(runs, rng, ".jsonl")
    lines = path.read_text(errors="replace").splitlines()
    at = rng.randrange(len(lines)) if lines else 0
    what = rng.choice(("change", "double", "drop", "swap", "cut", "nonsense"))
    if not lines or what == "nonsense":
        lines.insert(at, rng.choice(["{", "[" * DEPTH, "null", "\x00" * 100, "x" * LONG, '{"event": "eval"}', ""]))
    elif what == "change":
        try:
            content = json.loads(lines[at])
            changed_json(content, rng, canary)
            lines[at] = as_text(content).replace("\n", " ")
        except (ValueError, IndexError, TypeError):
            lines[at] = "{}"
    elif what == "double":
        lines.insert(at, lines[at])
    elif what == "swap":
        rng.shuffle(lines)
    else:
        lines[at] = lines[at][: len(lines[at]) // 2] if what == "cut" else ""
    path.write_text("\n".join(lines) + rng.choice(("\n", "")), errors="surrogateescape")
    return f"{path.name}: {what}"


def changed_bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Content that is cut, bit-flipped, zeroed, doubled, or not text."""
    what = rng.choice(("cut", "flip", "zeros", "double", "empty", "no text", "append"))
    at = rng.randrange(len(content)) if content else 0
    changed = {
        "cut": content[:at],
        "flip": content[:at] + bytes(b ^ 0x55 for b in content[at : at + 8]) + content[at + 8 :],
        "zeros": content[:at] + bytes(4096) + content[at + 4096 :],
        "double": content * 2,
        "empty": b"",
        "no text": b"\xff\xfe" + content,
        "append": content + b'{"a": 1}',
    }
    return changed[what], what


def _bytes(runs: Path, rng: random.Random, _: Path) -> str:
    path = _file(runs, rng)
    content, what = changed_bytes(path.read_bytes(), rng)
    path.write_bytes(content)
    return f"{path.name}: {what}"


def _special_file(runs: Path, rng: random.Random, canary: Path) -> str:
    path = _file(runs, rng)
    if rng.random() < 0.3:  # a file that may be absent
        path = path.parent / rng.choice(("pruned.json", "code.json", "confusion.json", "log.txt", "events.jsonl"))
    path.unlink(missing_ok=True)
    what = rng.choice(("pipe", "zero", "canary", "folder", "loop", "socket", "sparse", "no access"))
    if what == "pipe":
        os.mkfifo(path)
    elif what in ("zero", "canary", "loop"):
        path.symlink_to({"zero": "/dev/zero", "canary": str(canary / "keep.txt"), "loop": path.name}[what])
    elif what == "folder":
        path.mkdir()
    elif what == "socket":
        os.mknod(path, 0o140644)
    else:
        path.touch()
        if what == "sparse":
            os.truncate(path, 1 << 40)
        else:
            path.chmod(0)
    return f"{path.name} is a {what}"


def _folder(runs: Path, rng: random.Random, canary: Path) -> str:
    """Add a folder that is a link, has a strange name, is empty or deeply nested."""
    path = rng.choice([p for p in runs.rglob("*") if p.is_dir() and not p.is_symlink()] or [runs / "finetune"])
    what = rng.choice(("link", "name", "empty", "deep", "file", "partial"))
    if what == "partial":
        key = rng.choice(("0" * 20, "\x1b[2J", ".gone-x", "a" * 200))
        (runs / ".partial" / key / "root/in").mkdir(parents=True, exist_ok=True)
        (runs / ".partial" / key / "root/in/stage.json").write_text(rng.choice(("{}", "[" * DEPTH, '{"parents": [1]}')))
        for name in ("out", "artifacts"):
            (runs / ".partial" / key / name).symlink_to(canary)
        return f"partial {key[:8]!r}"
    if what == "name":
        target = path.with_name(rng.choice(["\x1b[2J", "x" * 200, "-rf", "\udcff", "0" * 20, " ", "..."]))
        if not target.exists():
            os.rename(path, target)
    elif what == "deep":
        (path / "/".join(["d"] * 300)).mkdir(parents=True, exist_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)
        if what == "link":
            path.symlink_to(canary)
        elif what == "empty":
            path.mkdir(parents=True)
        else:
            path.write_text("a file")
    return f"{path.name}: {what}"


def _file(runs: Path, rng: random.Random, suffix: str = "") -> Path:
    """A regular file that fits in memory: an earlier change may have left a sparse one."""
    paths = sorted(
        p for p in runs.rglob(f"*{suffix}") if p.is_file() and not p.is_symlink() and p.stat().st_size < 1 << 26
    )
    if paths:
        return rng.choice(paths)
    chain = runs / "chain.jsonl"
    if not chain.is_dir():
        chain.unlink(missing_ok=True)
        chain.touch()
    return chain


def _runs(runs: Path) -> list[Path]:
    return sorted(p.parent for p in runs.glob("*/*/record.json")) or [runs / "finetune/none"]


STORE: tuple[Callable[[Path, random.Random, Path], str], ...] = (
    _json_file, _json_file, _resealed_record, _resealed_record, _resealed_record, _lines, _bytes, _special_file, _folder,
)  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- bundles


def mutate_bundle(members: dict[str, bytes], target: Path, rng: random.Random, canary: Path) -> str:
    """Write a bundle that differs from an honest one in one way: a member, the tar, or the compressed bytes."""
    files, extra, what = dict(members), list[tarfile.TarInfo](), rng.choice(("member", "name", "kind", "tar", "packed"))
    name = rng.choice(sorted(files))
    done = what
    if what == "member":
        files[name], done = changed_bytes(files[name], rng)
        if rng.random() < 0.7 and name != "bundle.json":  # and the list of the bundle matches
            _list_again(files, name)
    elif what == "name":
        strange = rng.choice(hostile_names(canary)) or "x"
        files[strange.replace("\x00", "?")] = files.pop(name)
    elif what == "kind":
        entry = tarfile.TarInfo(rng.choice((name, "finetune/x", str(canary / "keep.txt"))))
        entry.type = rng.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"Z")
        )
        entry.linkname = str(canary / "keep.txt")
        extra.append(entry)
    raw = _tar(files, extra, rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))
    if what == "tar":
        raw, done = changed_bytes(raw, rng)
        if rng.random() < 0.3:
            raw, done = _bomb(rng), "a bomb"
    packed = zstandard.ZstdCompressor().compress(raw)
    if what == "packed":
        packed, done = changed_bytes(packed, rng)
    target.write_bytes(packed)
    return f"{what} {name[-30:]}: {done}"


def _list_again(files: dict[str, bytes], name: str) -> None:
    contents = json.loads(files["bundle.json"])
    contents["files"][name] = hashlib.sha256(files[name]).hexdigest()
    files["bundle.json"] = json.dumps(contents).encode()


def _tar(files: dict[str, bytes], extra: list[tarfile.TarInfo], form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in extra:
            tar.addfile(entry)
    return out.getvalue()


def _bomb(rng: random.Random) -> bytes:
    """A member of zeros, or a header, that unpacks to 80 MB from a few kB."""
    entry = tarfile.TarInfo("finetune/" + "0" * 20 + "/log.txt")
    entry.size = 80 << 20
    entry.type = rng.choice((tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE))
    return entry.tobuf(tarfile.GNU_FORMAT) + bytes(80 << 20)


# --------------------------------------------------------------------------------------------------------------- YAML


def mutate_yaml(text: str, rng: random.Random, canary: Path) -> tuple[str, str]:
    """Change the text of a spec in one way; returns it with a description of the change."""
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    key = lines[at].split(":")[0]
    value = rng.choice([str(v)[:100_000] for v in hostile_values(canary)])
    changes: dict[str, Callable[[], str]] = {
        "value": lambda: _with_line(lines, at, f"{key}: {value.removeprefix(RAW)}"),
        "quoted": lambda: _with_line(lines, at, f"{key}: {json.dumps(value.removeprefix(RAW))}"),
        "twice": lambda: _with_line(lines, at, f"{lines[at]}\n{lines[at]}"),
        "drop": lambda: _with_line(lines, at, ""),
        "extends": lambda: f"extends: {rng.choice(hostile_names(canary))!r}\n{text}",
        "aliases": lambda: "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)), text]),
        "deep": lambda: f"{text}\nmore: {rng.choice('[{') * DEPTH}",
        "tag": lambda: f"{text}\nmore: !!python/object/apply:os.system ['touch {canary}/touched']",
        "loop": lambda: f"more: &a [*a]\n{text}",
        "merge": lambda: f"<<: [*none, 1]\n{text}",
        "bytes": lambda: changed_bytes(text.encode(), rng)[0].decode("latin-1"),
        "tabs": lambda: text.replace("  ", "\t"),
        "long": lambda: f"{text}\nmore: {'x' * LONG}",
        "several": lambda: f"{text}\n---\n{text}",
        "digits": lambda: _with_line(lines, at, f"{key}: {'9' * 6000}"),
        "keys": lambda: f"{text}\n? {{a: b}}\n: c\n? [1, 2]\n: d\nnull: e",
    }  # fmt: skip
    what = rng.choice(sorted(changes))
    return changes[what](), f"{what}: {key.strip()[:30]}"


def _with_line(lines: list[str], at: int, line: str) -> str:
    return "\n".join([*lines[:at], line, *lines[at + 1 :]]) + "\n"
