"""YAML as version 1.2 has it (the core schema), where PyYAML reads version 1.1; and a key that is given twice is an error.

`010` is ten and not eight, `1:30` is text and not ninety, `0o17` is octal, `1e-3` is a number, `no` and `2020-01-01` are text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError


class CoreLoader(yaml.SafeLoader):
    """A safe loader of YAML 1.2. Raises yaml.YAMLError, with the line, for a key that is given twice in one mapping."""

    yaml_implicit_resolvers: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose own keys differ. Keys that are merged in by `<<` may be given again."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                problem = f"key {key!r} is given twice, first in line {lines[key]}"
                raise ConstructorError(None, None, problem, key_node.start_mark)
            lines[key] = line
        return super().construct_mapping(node, deep)


def _int(loader: CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    try:
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    except ValueError:
        raise ConstructorError(None, None, f"a number of {len(text)} digits", node.start_mark) from None


def _bool(loader: CoreLoader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() == "true"


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
CoreLoader.add_constructor("tag:yaml.org,2002:int", _int)
CoreLoader.add_constructor("tag:yaml.org,2002:bool", _bool)


def load(text: str) -> Any:
    """The content of a YAML document. Raises yaml.YAMLError where it does not parse or gives a key twice."""
    return yaml.load(text, CoreLoader)


def compose(text: str) -> yaml.Node | None:
    """The nodes of a text, which know their lines. Raises yaml.YAMLError."""
    return yaml.compose(text, Loader=CoreLoader)
