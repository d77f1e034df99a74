"""Read specs from YAML, with errors that name the file, the field and the allowed values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pretrain_bench.benchmarks.specs import yaml_core
from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.recipes import RECIPES
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.user_files import decode

SpecT = TypeVar("SpecT", bound=Spec)
MOST_YAML_BYTES = 4 << 20
LONGEST_NAME = 200
"""Characters of a name in `extends`; file systems take 255 bytes with the suffix."""
Location = tuple[int | str, ...]
"""Keys and indices on the way to a field."""


def load_spec(path: Path, model: type[SpecT], bases: Path | None = None) -> SpecT:
    """Read one YAML file into `model`.

    A file can extend another one with `extends: NAME`, searched for in its own folder and then in `bases`; its own keys override,
    mapping by mapping. Raises WrongUse naming the file, the field and the allowed values.
    """
    layers = _read_extended(path, path.stem, bases, ())
    data: dict[str, Any] = {}
    for layer in layers:
        data = merged(data, layer.data)
    if "bases" in model.model_fields:
        if "bases" in data:
            raise WrongUse(f"{path}: bases: unknown key; write `extends: NAME`")
        data["bases"] = tuple(layer.name for layer in layers[:-1])

    def origin(location: Location) -> str:
        """The file that sets a field: the last one in the chain that has it, else the file itself."""
        return str(next((layer.path for layer in reversed(layers) if _has(layer.data, location)), path))

    try:
        return model.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        raise WrongUse(_explain(error, model, origin)) from None


def load_with_lines(path: Path, model: type[SpecT]) -> SpecT:
    """Read one YAML file without `extends` into `model`. Raises WrongUse naming the file, the line, the field and the allowed
    values."""
    data = read_yaml(path)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        root = yaml_core.compose(decode(path.read_bytes(), path))
        raise WrongUse(_explain(error, model, lambda where: f"{path}, line {_line_of(root, where)}")) from None


def _line_of(node: yaml.Node | None, location: Location) -> int:
    """The line of a field, or of the innermost enclosing mapping that the file contains."""
    line = 1
    for part in location:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next((pair for pair in pairs if pair[0].value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def parse_spec(data: object, model: type[SpecT], where: str) -> SpecT:
    """Validate plain data into `model`; `where` names its origin in the error."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise WrongUse(_explain(error, model, lambda _: where)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 file that holds a mapping. Raises WrongUse naming the file, and the line of a syntax error or duplicate
    key; also for a pipe, a device, or a file larger than MOST_YAML_BYTES."""
    if path.exists() and not path.is_file():
        raise WrongUse(f"{path}: not a file; specs are read from files on disk")
    try:
        if path.stat().st_size > MOST_YAML_BYTES:
            raise WrongUse(f"{path}: larger than {MOST_YAML_BYTES >> 20} MiB; that is not a spec")
        data = yaml_core.load(decode(path.read_bytes(), path))
    except FileNotFoundError:
        raise WrongUse(f"{path}: no such file") from None
    except OSError as error:
        raise WrongUse(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise WrongUse(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise WrongUse(f"{path}: expected a mapping of field names to values, found {type(data).__name__}")
    return data


class _Layer(NamedTuple):
    """One of several files that extend each other: its name in `extends`, its path, its own keys."""

    name: str
    path: Path
    data: dict[str, Any]


def _read_extended(path: Path, name: str, bases: Path | None, seen: tuple[Path, ...]) -> tuple[_Layer, ...]:
    """A file and all files that it extends, the base first."""
    if path in seen:
        raise WrongUse(f"{path}: 'extends' forms a cycle: {' -> '.join(p.stem for p in (*seen, path))}")
    data = read_yaml(path)
    base = data.pop("extends", None)
    if base is None:
        return (_Layer(name, path, data),)
    if not isinstance(base, str) or len(base) > LONGEST_NAME or not base.isprintable():
        raise WrongUse(f"{path}: extends: expected the name of a file without its suffix, found {str(base)[:40]!r}")
    base_path = path.parent / f"{base}.yaml"
    if bases is not None and not base_path.is_file():
        base_path = bases / f"{base}.yaml"
    if not base_path.is_file():
        if str(base).endswith((".yaml", ".yml")):
            raise WrongUse(f"{path}: extends: {base}: write the name without its suffix")
        where = " or ".join(str(folder) for folder in (path.parent, bases) if folder is not None)
        raise WrongUse(f"{path}: extends: no file {base}.yaml in {where}")
    below = _read_extended(base_path, str(base), bases, (*seen, path))
    return (*below, _Layer(name, path, data))


def _has(data: object, location: Location) -> bool:
    """Whether plain data contain the field that an error names, as far as its location can be followed."""
    for part in location:
        if part in RECIPES and not (isinstance(data, dict) and part in data):
            continue  # the name of a model in a union, not a key
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if not (in_list or (isinstance(data, dict) and part in data)):
            return False
        data = data[part]  # type: ignore[index]
    return True


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over`, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def _explain(error: ValidationError, model: type[BaseModel], origin: Callable[[Location], str]) -> str:
    """Format the error of each field, with the file that contains it."""
    by_file: dict[str, list[str]] = {}
    for item in error.errors():
        lines = by_file.setdefault(origin(item["loc"]), [])
        # A task's recipe is a union of models; pydantic adds the model's name to the location of an error.
        field = ".".join(str(part) for part in item["loc"] if part not in RECIPES) or "(whole file)"
        if item["type"] == "extra_forbidden":
            allowed = _fields_at(model, item["loc"][:-1])
            close = difflib.get_close_matches(str(item["loc"][-1]), allowed, n=1, cutoff=0.4)
            hint = f", did you mean {close[0]!r}?" if close else ""
            lines.append(f"{field}: unknown key{hint} (allowed here: {', '.join(allowed)})")
        elif item["type"] == "missing":
            lines.append(f"{field}: missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            got = "" if isinstance(item["input"], dict | BaseModel) else f" (got {item['input']!r})"
            lines.append(f"{field}: {message}{got}")
    return "; ".join(f"{where}: {'; '.join(lines)}" for where, lines in by_file.items())


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """Field names of the (nested) model that a pydantic error location points into."""
    current: Any = model
    for part in location:
        if part in RECIPES:
            current = RECIPES[str(part)]
            continue
        field = current.model_fields.get(part) if _is_model(current) else None
        candidates = [field.annotation] if field else list(getattr(current, "__args__", ()))
        models = [m for c in candidates for m in _models_in(c)]
        if not models:
            return []
        current = models[0]
        if field and not _is_model(field.annotation):
            # A container of models (dict or tuple): the next part of the location is its key.
            current = _Container(models[0])
    return sorted(current.model_fields) if _is_model(current) else []


def _models_in(annotation: Any) -> list[Any]:
    """All models in an annotation, at any depth."""
    if _is_model(annotation):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models_in(part)]


class _Container:
    def __init__(self, inner: type[BaseModel]) -> None:
        self.__args__ = (inner,)


def _is_model(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
