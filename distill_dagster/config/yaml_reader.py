"""One YAML file as plain values, with the line of every key.

Values follow the YAML 1.2 core schema, as editors do: only `true` and `false` are booleans (`no` is a word), `1e-3`
is a number, a date is text. Duplicate keys, tags, merge keys and several documents are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from distill_dagster.config.problems import Key, Problem, dotted

#: Keys and list entries in one file. Nested aliases grow without bound; configuration does not.
MAX_NODES = 100_000


class _Loader(yaml.SafeLoader):
    """Safe loader with the scalars of the YAML 1.2 core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
):
    _starts = [*_first, ""] if _tag == "null" else [*_first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _starts)

_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


@dataclass
class Document:
    """A file's values, and where each key stands."""

    path: Path
    value: Any = None
    lines: dict[Key, int] = field(default_factory=dict)

    def line(self, key: Key) -> int:
        """Line of a key, or of the nearest key above it."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)

    def problem(self, key: Key, reason: str, hint: str = "") -> Problem:
        """A problem at that key."""
        return Problem(self.path, self.line(key), dotted(key), reason, hint)


class _Refused(Exception):
    def __init__(self, node: yaml.Node, key: Key, reason: str, hint: str = "") -> None:
        self.line, self.key, self.reason, self.hint = node.start_mark.line + 1, key, reason, hint


def _walk(node: yaml.Node, key: Key, lines: dict[Key, int], above: tuple[int, ...]) -> None:
    """Note the line of every key; refuse what configuration never needs."""
    if node.tag not in _SCALARS:
        raise _Refused(node, key, f"the tag {node.tag!r} is refused.", "Write the plain value.")
    if id(node) in above:
        raise _Refused(node, key, "an alias points back to the value it stands in.")
    if len(lines) > MAX_NODES:
        raise _Refused(node, key, f"more than {MAX_NODES} values once aliases are followed.")
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            lines[(*key, index)] = entry.start_mark.line + 1
            _walk(entry, (*key, index), lines, (*above, id(node)))
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for name, entry in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise _Refused(name, key, "a key must be a word.")
            if name.value == "<<":
                raise _Refused(name, key, "merge keys (<<) are not read.", "Write the values where they are used.")
            if name.value in seen:
                raise _Refused(
                    name,
                    (*key, name.value),
                    f"key {name.value!r} stands twice, first in line {seen[name.value]}.",
                    "Keep one of them.",
                )
            seen[name.value] = name.start_mark.line + 1
            name.tag = "tag:yaml.org,2002:str"
            lines[(*key, name.value)] = name.start_mark.line + 1
            _walk(entry, (*key, name.value), lines, (*above, id(node)))


def decode(path: Path, raw: bytes) -> str | Problem:
    """UTF-8 text of a file; a byte order mark is tolerated."""
    try:
        return raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        reason = f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}."
        return Problem(path, line, "", reason, "Save the file as UTF-8.")


def _hint(problem: str | None) -> str:
    if problem and "'\\t'" in problem:
        return "Indent with spaces, not with tabs."
    if problem and "mapping values are not allowed" in problem:
        return "Put a value that holds `: ` in quotes, and check the indentation."
    return ""


def read(path: Path) -> Document | Problem:
    """Read one file: its document, or the first problem that makes it unreadable."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        return Problem(path, 0, "", f"cannot be read ({error.strerror or error}).")
    text = decode(path, raw)
    if isinstance(text, Problem):
        return text
    document = Document(path)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Problem(path, 0, "", "the file is empty.", "Give it a `kind`, or delete it.")
        _walk(node, (), document.lines, ())
        document.value = loader.construct_document(node)
    except _Refused as refused:
        return Problem(path, refused.line, dotted(refused.key), refused.reason, refused.hint)
    except ComposerError as error:
        several = "single document" in str(error.context)
        reason = "more than one document in the file." if several else f"not YAML: {error.problem}."
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        return Problem(path, line, "", reason, "Give each `kind` a file of its own." if several else "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return Problem(path, mark.line + 1 if mark else 0, "", f"not YAML: {error.problem}.", _hint(error.problem))
    except (yaml.YAMLError, ValueError) as error:
        return Problem(path, 0, "", f"not YAML: {str(error).splitlines()[0]}.")
    except RecursionError:
        return Problem(path, 0, "", "nested too deeply.")
    finally:
        if loader is not None:
            loader.dispose()
    return document
