"""Paths as regular expressions, the way ingress-nginx reads them, by an engine that cannot hang (RE2).

One Ingress with ``use-regex`` or a ``rewrite-target`` makes every path of its host an expression, also an Exact one. It
is matched without regard to case at the beginning of the request's path. They are asked from the longest text to the
shortest, and the first that matches has the request (ingress-nginx: "Ingress Path Matching"). RE2 takes time linear in
the path; what it may cost for each byte of it, and memory, is bounded here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import re2

from proxy.route.match import Rule, path_key

LONGEST: Final = 1024  # characters of an expression
MOST_MEMORY: Final = 1 << 20  # bytes an expression and its automaton may take; RE2's own default is eight times that
LARGEST: Final = 1000  # instructions; /api(/|$)(.*) has 20
BUDGET: Final = 5_000  # instructions that one request may have to go through; 8 KiB of path are then 0.3 s at the worst

_SPECIAL: Final = re.compile(r"[\\.\[\](){}*+?|^$]")
_QUANTIFIERS: Final = frozenset("*?{")


class PatternError(Exception):
    """An expression that cannot be used; the text says why."""


def _options() -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = MOST_MEMORY
    options.log_errors = False
    options.never_nl = False
    options.dot_nl = True  # no path holds a newline; so "." needs no exception
    return options


class Pattern:
    """One path as an expression. Raises `PatternError`.

    ``size`` is the number of RE2 instructions, 0 for a path that is plain text. The expression sees paths in normal
    form (`admit.target`), in which what is not ASCII is escaped: of a pattern likewise.
    """

    __slots__ = ("_compiled", "_prefix", "groups", "size", "text")

    def __init__(self, path: str) -> None:
        self.text: Final = path
        if len(path) > LONGEST:
            raise PatternError(f"a regular expression has at most {LONGEST} characters")
        if not path.isascii() and "[" in path:
            raise PatternError("between brackets only ASCII can stand; write other characters as alternatives (a|b)")
        first = _SPECIAL.search(path)
        self._compiled: Any = None
        self.groups = self.size = 0
        if first is None:
            self._prefix: bytes = path_key(path).lower()
            return
        source = "".join(each if each.isascii() else path_key(each).decode("ascii") for each in path)
        try:
            # Parenthesised, so that "/a|/b" is anchored in both its halves.
            compiled = re2.compile(f"(?:{source})".encode("ascii"), _options())
        except re2.error as error:
            raise PatternError(f"is no regular expression of RE2: {_said(error)}") from None
        self.size = compiled.programsize
        if self.size > LARGEST:
            raise PatternError(f"the regular expression is too large: {self.size} instructions of at most {LARGEST}")
        self.groups = compiled.groups
        self._compiled = compiled
        self._prefix = _literal(source, first.start())

    def __repr__(self) -> str:
        return f"Pattern({self.text!r}, {self.size} instructions)"

    @property
    def prefix(self) -> bytes:
        """The plain text, in lower case, that every path begins with that this matches."""
        return self._prefix

    def matches(self, path: bytes, lowered: bytes) -> bool:
        """Whether a request path in normal form begins with this; ``lowered`` is the same in lower case."""
        if not lowered.startswith(self._prefix):
            return False
        return self._compiled is None or self._compiled.match(path) is not None

    def captures(self, path: bytes) -> tuple[bytes | None, ...]:
        """The groups of a path that matches, from the first."""
        found = None if self._compiled is None else self._compiled.match(path)
        groups: tuple[bytes | None, ...] = () if found is None else found.groups()
        return groups


def _said(error: Exception) -> str:
    """RE2's own words; it says them as bytes."""
    what = error.args[0] if error.args else error
    return what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)


def _literal(source: str, end: int) -> bytes:
    """The plain text, in lower case, that whatever ``source`` matches begins with; ``end`` is its first special one."""
    if _alternatives(source):
        return b""
    if source[end] in _QUANTIFIERS:
        end -= 1  # it may be missing
    return source[: max(end, 0)].lower().encode("ascii")


def _alternatives(source: str) -> bool:
    """Whether an expression may have alternatives outside of parentheses."""
    depth, index = 0, 0
    while index < len(source):
        letter = source[index]
        if letter == "\\":
            if source[index + 1 : index + 2] == "Q":
                return True  # up to \\E nothing is special; nobody writes that in a path
            index += 1
        elif letter == "[":
            # A bracket that comes first stands for itself.
            inside = index + 2 if source[index + 1 : index + 2] == "^" else index + 1
            index = _class_end(source, inside)
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == "|" and depth <= 0:
            return True
        index += 1
    return False


def _class_end(source: str, start: int) -> int:
    index = start + 1
    while index < len(source) and source[index] != "]":
        if source[index] == "\\":
            index += 1
        elif source.startswith("[:", index):
            index = max(source.find(":]", index) + 1, index)
        index += 1
    return index


class RegexPaths:
    """The paths of a host whose paths are expressions. Add every rule, then `seal`, then `find`; as `match.PathTree`.

    Rules that are added as exact are asked first, and are no expressions.
    """

    __slots__ = ("_rules", "exact")

    def __init__(self) -> None:
        self.exact: dict[bytes, Any] = {}
        self._rules: list[tuple[Pattern, Any]] = []

    def __repr__(self) -> str:
        return f"RegexPaths({len(self.exact)} exact, {len(self._rules)} expressions)"

    def add_exact(self, rule: Rule) -> None:
        """A path that is plain text, compared as a whole."""
        self.exact.setdefault(path_key(rule.path), rule)

    def add(self, pattern: Pattern, rule: Rule) -> None:
        """A path that is an expression."""
        self._rules.append((pattern, rule))

    def seal(self) -> None:
        """Put the expressions into ingress-nginx's order."""
        self._rules.sort(key=lambda each: precedence(each[0].text), reverse=True)

    def find(self, path: bytes) -> Any:
        """The rule for a path in normal form."""
        rule = self.exact.get(path)
        if rule is not None:
            return rule
        lowered = path.lower()
        for pattern, each in self._rules:
            if pattern.matches(path, lowered):
                return each
        return None


def precedence(path: str) -> tuple[int, bytes]:
    """Sorts the paths of a host of expressions, the first one greatest: by length, then backwards by text."""
    raw = path.encode("utf-8", "surrogatepass")
    return len(raw), raw


def affordable(paths: Iterable[str]) -> tuple[dict[str, Pattern], dict[str, str]]:
    """A host's expressions by their text, and for those that cannot be had why.

    A request is asked about those expressions only whose plain beginning it has. These have a bounded size together,
    which is what one request may cost; the ones with the longest beginnings have to stand back.
    """
    good: dict[str, Pattern] = {}
    bad: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        try:
            good[path] = Pattern(path)
        except PatternError as error:
            bad[path] = str(error)
    spent: dict[bytes, int] = {}
    for path, pattern in sorted(good.items(), key=lambda each: len(each[1].prefix)):
        prefix = pattern.prefix
        cost = pattern.size + sum(spent.get(prefix[:length], 0) for length in range(len(prefix) + 1))
        if pattern.size and cost > BUDGET:
            bad[path] = f"with the host's other regular expressions it is too large, {BUDGET} instructions at most"
            del good[path]
        else:
            spent[prefix] = spent.get(prefix, 0) + pattern.size
    return good, bad
