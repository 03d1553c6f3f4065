"""YAML text to plain data and the line of every key, safely: no code, no tags, no aliases, bounded size and depth.

The text is read event by event, so a hostile document is refused before it is built. Plain scalars follow YAML 1.2's
core schema: ``no`` is a word and ``1e-3`` is a number.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipeline.errors import ConfigError

MAX_BYTES = 2**20
MAX_DEPTH = 20
MAX_KEYS = 30_000

SET = 0
"""The line of what --set changed."""

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Document:
    """The data of a YAML file and where each part of it stands."""

    source: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """Return ``file:line`` of the nearest part that has a line, and the key's path."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known)
        place = self.source if line is None else f"{self.source}:{line}" if line else "--set"
        return f"{place}: {spell(path)}" if path else place


def spell(path: Path) -> str:
    """Write a path as a user would.

    >>> spell(("layers", 0, "stride"))
    'layers[0].stride'
    """
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def scalar(text: str) -> Any:
    """Return what a plain scalar means in YAML 1.2's core schema.

    >>> scalar("no"), scalar("1e-3"), scalar("0x10"), scalar("")
    ('no', 0.001, 16, None)
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) < 50 and _INT.fullmatch(text):
        return int(text, 8) if text.startswith("0o") else int(text, 16) if text.startswith("0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)", text):
        return float(text.replace(".", ""))
    return float("nan") if text in (".nan", ".NaN", ".NAN") else text


def parse(text: str, source: str) -> Document:
    """Read a document; raises `ConfigError` with file and line for anything that is not plain data."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError(
            f"{source}: holds characters that are no Unicode text".encode(errors="replace").decode()
        ) from None
    if length > MAX_BYTES:
        raise ConfigError(f"{source}: is larger than {MAX_BYTES} bytes; a config is small")
    document = Document(source)
    events = yaml.parse(text, Loader=_LOADER)
    try:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if document.lines:
                    raise ConfigError(f"{source}: holds more than one document; a config is one")
                document.data = _node(document, next(events), events, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{place}: is not valid YAML: {problem}") from None
    return document


def _refuse_more_than_data(at: str, event: Any) -> None:
    if isinstance(event, yaml.AliasEvent) or event.anchor:
        raise ConfigError(f"{at}: anchors and aliases are not allowed; write the value out")
    if event.tag and event.tag != "!":
        raise ConfigError(f"{at}: the tag {event.tag} is not allowed; a config is plain data")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _node(document: Document, event: Any, events: Iterator[Any], path: Path) -> Any:
    line = _line(event)
    document.lines.setdefault(path, line)
    at = f"{document.source}:{line}: {spell(path)}".rstrip(": ")
    _refuse_more_than_data(at, event)
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"{at}: is nested deeper than {MAX_DEPTH} levels")
    if isinstance(event, yaml.ScalarEvent):
        return scalar(event.value) if event.implicit[0] else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(document, event, events, (*path, len(items))))
        return items
    pairs: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        if not isinstance(event, yaml.ScalarEvent):
            raise ConfigError(f"{at}: a key must be a word")
        if len(pairs) == MAX_KEYS:
            raise ConfigError(f"{at}: has more than {MAX_KEYS} keys")
        key = event.value
        _refuse_more_than_data(f"{document.source}:{_line(event)}: {spell((*path, key))}", event)
        if key in pairs:
            raise ConfigError(f"{document.source}:{_line(event)}: {spell((*path, key))}: the key stands twice")
        document.lines[*path, key] = _line(event)
        pairs[key] = _node(document, next(events), events, (*path, key))
    return pairs


def assign(document: Document, setting: str) -> None:
    """Change one value by ``key.path=value``, the value written as in YAML; list items go by their number from 0."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {setting}: expected key.path=value")
    quotes = f"a value with YAML's own signs goes in quotes: '{key}=\"…\"'"
    try:
        value = parse(text, f"--set {setting}").data
    except ConfigError as error:
        raise ConfigError(f"{error}; {quotes}") from None
    if _is_cut(text, value):
        raise ConfigError(f"--set {setting}: YAML takes what follows '#' for a comment; {quotes}")
    path: Path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    target = document.data
    for place, part in enumerate(path):
        last = place == len(path) - 1
        if isinstance(target, list) and isinstance(part, int) and part < len(target):
            index: Any = part
        elif isinstance(target, dict):
            index = str(part)
            if not last:
                target.setdefault(index, {})
        else:
            raise ConfigError(f"--set {setting}: there is no {spell(path[: place + 1])} in {document.source}")
        if last:
            target[index] = value
            document.lines[path] = SET
        else:
            target = target[index]


def _is_cut(text: str, value: Any) -> bool:
    """Say whether a value is that of a text without what follows a '#' in it."""
    for sign in re.finditer(r"(?:^|\s)#", text):
        with suppress(ConfigError):
            if parse(text[: sign.start()], "").data == value:
                return True
    return False
