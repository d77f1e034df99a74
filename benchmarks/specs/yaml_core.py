"""A loader of YAML 1.2 (the core schema), where PyYAML implements version 1.1. Duplicate keys are errors.

`010` is ten and not eight, `1:30` is text and not ninety, `0o17` is octal, `1e-3` is a number, `no` and `2020-01-01` are text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

MOST_VALUES = 100_000
"""Most values in a document; the largest split lists that ship have 1,500."""
_MERGE = "tag:yaml.org,2002:merge"


class CoreLoader(yaml.SafeLoader):
    """A safe loader of YAML 1.2. Raises yaml.YAMLError, with the line, for a duplicate key in a mapping."""

    yaml_implicit_resolvers: dict = {}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check that a mapping's own keys differ. A key may also come from a mapping merged by `<<`, which happens later."""
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag == _MERGE:
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                problem = f"key {key!r} is given twice, first in line {lines[key]}"
                raise ConstructorError(None, None, problem, key_node.start_mark)
            lines[key] = line
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace `<<` by the pairs of the mappings it names. A mapping's own keys take precedence, then those of the first
        merged mapping. (PyYAML compares merged keys by the identity of their strings, so that an inherited value may win.)"""
        own: dict[Hashable, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[Hashable, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if key.tag != _MERGE:
                own[_identity(key)] = (key, value)
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise ConstructorError(None, None, "`<<` takes a mapping or a list of mappings", source.start_mark)
                self.flatten_mapping(source)
                for pair in source.value:
                    merged.setdefault(_identity(pair[0]), pair)
        node.value = list((merged | own).values())


def _identity(key: yaml.Node) -> Hashable:
    """A value that is equal for keys with equal content."""
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _int(loader: CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    try:
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    except ValueError:
        raise ConstructorError(None, None, f"a number with {len(text)} digits is too long", node.start_mark) from None


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
    """Load a YAML document. Raises yaml.YAMLError if it is invalid, repeats a key, nests too deeply, or holds more than
    MOST_VALUES values with its aliases expanded."""
    loader = CoreLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _count_values(root, {})
        return loader.construct_document(root)
    except RecursionError:
        raise ConstructorError(None, None, "the document nests too deeply", None) from None
    finally:
        loader.dispose()


def _count_values(node: yaml.Node, counted: dict[int, int]) -> int:
    """Count the values of a node with its aliases expanded; `counted` maps ids of finished nodes to their counts. Raises
    ConstructorError for too many values, and for an alias inside its own anchor."""
    if id(node) in counted:
        if not counted[id(node)]:
            raise ConstructorError(None, None, "an alias is inside its own anchor", node.start_mark)
        return counted[id(node)]
    counted[id(node)] = 0  # in progress
    total = 1
    if isinstance(node, yaml.CollectionNode):
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        total += sum(_count_values(part, counted) for part in parts)
    if total > MOST_VALUES:
        problem = f"more than {MOST_VALUES:,} values with aliases expanded"
        raise ConstructorError(None, None, problem, node.start_mark)
    counted[id(node)] = total
    return total


def compose(text: str) -> yaml.Node | None:
    """Parse a text that `load` accepts into nodes, which hold line numbers."""
    return yaml.compose(text, Loader=CoreLoader)
