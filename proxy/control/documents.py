"""YAML and JSON text as plain values with line numbers, within bounds.

YAML as Kubernetes reads it (sigs.k8s.io/yaml, YAML 1.1 without sexagesimal numbers and timestamps), except that a
key twice in one mapping is an error here, as it is with `kubectl apply`'s strict validation. JSON is read as YAML, of
which it is a subset but for surrogate escapes.

The composer works on libyaml's events and keeps its own stack, so that nesting costs no recursion, and counts what
aliases expand to, so that a few lines cannot become gigabytes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from proxy.control.problem import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_NODES: Final = 2_000_000  # values in one text, aliases counted as what they stand for
DEEPEST: Final = 100  # an Ingress needs 9

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS: Final = {
    text: value
    for words, value in (("y yes on true", True), ("n no off false", False))
    for word in words.split()
    for text in (word, word.capitalize(), word.upper())
}
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_BASED: Final = re.compile(r"[-+]?0(?:x[0-9a-fA-F]{1,16}|b[01]{1,64}|o?[0-7]{1,22})")
_FLOAT: Final = re.compile(r"[-+]?(?:\d{1,40}\.\d{0,40}|\.\d{1,40}|\d{1,40}(?=[eE]))(?:[eE][-+]?\d{1,3})?", re.ASCII)
_TAG: Final = "tag:yaml.org,2002:"
# YAML 1.1, c-printable; anything else is refused by the parser, which does not say where.
_FOREIGN: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PIECE: Final = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")


class DocumentError(Exception):
    """Text that cannot be read: the line it stands on (from 1) and what was expected."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(line, message, hint)
        self.line: Final = line
        self.message: Final = message
        self.hint: Final = hint

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


class Lines:
    """Where each value of a document stands; shaped like the document, without its values."""

    __slots__ = ("below", "line")

    def __init__(self, line: int, below: dict[str | int, Lines] | None = None) -> None:
        self.line = line
        self.below: Mapping[str | int, Lines] = _NOTHING if below is None else below  # by key or index

    def __repr__(self) -> str:
        return f"Lines({self.line}, {len(self.below)} below)"

    def at(self, field: str) -> int:
        """The line of a field path, or of the closest value above it that exists.

        Paths are written as Kubernetes does: ``spec.rules[0].host``, ``metadata.annotations[example.org/key]``.
        """
        lines = self
        for key, bracketed in _PIECE.findall(field):
            below = lines.below.get(key or bracketed)
            if below is None and bracketed.isdecimal():
                below = lines.below.get(int(bracketed))
            if below is None:
                break
            lines = below
        return lines.line


_NOTHING: Final[Mapping[str | int, Lines]] = {}


class Document(NamedTuple):
    """One document: plain dicts, lists, strings, numbers and bools. Nulls in mappings are left out, as absent."""

    value: Any
    lines: Lines


class _Value(NamedTuple):
    value: Any
    lines: Lines
    size: int  # values it holds, aliases expanded, itself included


class _Open:
    """A mapping or sequence whose end has not come."""

    __slots__ = ("anchor", "below", "key", "lines", "merged", "size", "value")

    def __init__(self, value: dict[str, Any] | list[Any], line: int, anchor: str | None) -> None:
        self.value = value
        self.below: dict[str | int, Lines] = {}
        self.lines = Lines(line, self.below)
        self.size = 1
        self.anchor = anchor
        self.key: str | None = None  # of a mapping: the key whose value comes next
        self.merged: list[_Value] = []  # of a mapping: what its "<<" names


def documents(text: str) -> Iterator[Document]:
    """Every document of a text, empty ones left out. Raises `DocumentError` at the first that cannot be read."""
    foreign = _FOREIGN.search(text, 1 if text.startswith("\ufeff") else 0)
    if foreign is not None:
        line = text.count("\n", 0, foreign.start()) + 1
        raise DocumentError(line, f"the character U+{ord(foreign[0]):04X} is not allowed in YAML", "remove it")
    try:
        yield from _Composer().compose(text)
    except yaml.YAMLError as exc:
        found = _json(text)
        if found is None:
            raise _syntax_error(exc, last_line=len(text.splitlines())) from None
        yield found


def _json(text: str) -> Document | None:
    r"""JSON that is no YAML: it may escape what lies beyond the BMP as ``\ud83d\ude00``. Without line numbers."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    return Document(value, Lines(1))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise DocumentError(1, f"the key {quoted(key)} stands twice in one object", "remove one of them")
        if value is not None:
            made[key] = value
    return made


def _syntax_error(exc: yaml.YAMLError, last_line: int) -> DocumentError:
    if isinstance(exc, yaml.MarkedYAMLError):
        mark = exc.problem_mark or exc.context_mark
        problem = exc.problem or "cannot be read"
        context = f" {exc.context}" if exc.context else ""
        tabs = "indent with spaces, not tabs" if "\\t" in problem else "check the indentation and quotes of this line"
        return DocumentError(min(mark.line + 1, last_line) if mark else 0, f"not YAML: {problem}{context}", tabs)
    return DocumentError(0, "not YAML", "save the file as UTF-8 text")  # its own text could quote what stands around


class _Composer:
    """Turns libyaml's events into values, one document at a time."""

    def __init__(self) -> None:
        self._total = 0  # values written
        self._spent = 0  # values in finished documents, aliases expanded
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Value] = {}
        self._root: _Value | None = None

    def compose(self, text: str) -> Iterator[Document]:
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark is not None else 0
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event, line)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._begin(event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
            elif isinstance(event, yaml.AliasEvent):
                kept = self._anchors.get(event.anchor or "")
                if kept is None:
                    raise DocumentError(line, f"the alias *{event.anchor} names no finished value above it")
                self._put(kept, line)
            elif isinstance(event, yaml.DocumentEndEvent):
                root, self._root = self._root, None
                self._anchors.clear()
                if root is not None and root.value is not None:
                    self._spent += root.size
                    yield Document(root.value, root.lines)

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _TAG + ("map" if mapping else "seq")):
            raise DocumentError(line, f"the tag {quoted(event.tag)} is not supported", "remove it")
        if len(self._stack) >= DEEPEST:
            raise DocumentError(line, f"nested deeper than {DEEPEST} levels")
        if self._stack and isinstance(self._stack[-1].value, dict) and self._stack[-1].key is None:
            raise DocumentError(line, "a mapping's key must be a plain text", "put templates in quotes")
        self._stack.append(_Open({} if mapping else [], line, event.anchor))

    def _end(self) -> None:
        done = self._stack.pop()
        for merged in done.merged:  # explicit keys go first, then the first merged (yaml.org/type/merge)
            for key, value in merged.value.items():
                if key not in done.value:
                    done.value[key] = value
                    if key in merged.lines.below:
                        done.below[key] = merged.lines.below[key]
        self._put(_Value(done.value, done.lines, done.size), done.lines.line, done.anchor)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        if self._stack and isinstance(self._stack[-1].value, dict) and self._stack[-1].key is None:
            self._key(self._stack[-1], event.value, line)
        else:
            self._put(_Value(_resolve(event, line), Lines(line), 1), line, event.anchor)

    def _key(self, mapping: _Open, key: str, line: int) -> None:
        if key in mapping.below:
            first = mapping.below[key].line
            raise DocumentError(line, f"the key {quoted(key)} stands twice in one mapping", f"first on line {first}")
        mapping.key = key
        mapping.below[key] = Lines(line)

    def _put(self, made: _Value, line: int, anchor: str | None = None) -> None:
        """Give a finished value to what holds it."""
        self._total += 1
        if anchor:
            self._anchors[anchor] = made
        if not self._stack:
            self._root = made
            return
        holder = self._stack[-1]
        holder.size += made.size
        if holder.size + self._spent > MOST_NODES or self._total > MOST_NODES:
            raise DocumentError(line, f"more than {MOST_NODES:,} values, aliases expanded", "split the file")
        if isinstance(holder.value, list):
            holder.below[len(holder.value)] = made.lines
            holder.value.append(made.value)
            return
        key, holder.key = holder.key, None
        if key is None:
            raise DocumentError(line, "a mapping's key must be a plain text, not an alias")
        if key == "<<":
            self._merge(holder, made, line)
        elif made.value is not None:
            holder.below[key].below = made.lines.below
            holder.value[key] = made.value

    @staticmethod
    def _merge(holder: _Open, made: _Value, line: int) -> None:
        sources = [made]
        if isinstance(made.value, list):
            sources = [_Value(value, made.lines.below[index], 0) for index, value in enumerate(made.value)]
        if not all(isinstance(source.value, dict) for source in sources):
            raise DocumentError(line, "<< needs a mapping, or a list of them")
        holder.merged.extend(sources)


def _resolve(event: yaml.ScalarEvent, line: int) -> Any:
    """A scalar's value. Raises `DocumentError` for a tag other than str, int, float, bool and null."""
    text: str = event.value
    if event.tag is None:
        return _plain(text) if event.implicit[0] else text
    if event.tag == "!":  # "not to be resolved" (YAML 1.1, section 3.3.2)
        return text
    name = event.tag.removeprefix(_TAG)
    if name == "str":
        return text
    value = _plain(text)
    wanted: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
    if name in wanted and isinstance(value, wanted[name]):
        return value
    raise DocumentError(line, f"the tag {quoted(event.tag)} is not supported here", "write the value without a tag")


def _plain(text: str) -> Any:
    """What an unquoted scalar means."""
    if text in _NULL:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text[0] in "+-.0123456789":
        if _INT.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            digits = text.lower().lstrip("+-")
            value = int(digits, 0) if digits[1] in "xbo" else int(digits, 8)
            return -value if text[0] == "-" else value
        if _FLOAT.fullmatch(text):
            return float(text)
    return text
