"""The Ingress v1 rules for paths, as a lookup whose cost does not depend on the number of rules.

Every Prefix rule and each of its ancestors is a key of one dict, so a lookup walks the request path from its first
element and stops at the first element that no rule begins with. A path of a thousand slashes costs no more probes
than the deepest rule it follows.
"""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

from proxy.http1.scan import find_slash

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_SLASHES: Final = re.compile(rb"/{2,}")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# What no request path holds unescaped: controls, space, the marks that end a path, and everything beyond ASCII.
_FOREIGN: Final = re.compile(rb"[\x00-\x20#?\x7f-\xff]")


class Rule(Protocol):
    """What a tree holds: anything with a path, the Ingress path as written."""

    @property
    def path(self) -> str:
        """As written in the Ingress."""
        ...


def path_key(path: str) -> bytes:
    """A rule's path in the normal form of request paths, so that both are one text (RFC 3986 section 6.2.2).

    UTF-8 is escaped, unreserved characters are unescaped, escapes are upper case and ``//`` is ``/``. A percent sign
    that begins no escape stands for itself, as Ingress paths "can contain characters disallowed" in URLs.
    """
    raw = _ESCAPE.sub(_normal, path.encode("utf-8", "surrogatepass"))
    return _SLASHES.sub(b"/", _FOREIGN.sub(lambda found: b"%%%02X" % found[0][0], raw))


def _normal(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    if digits is None:
        return b"%25"
    code = int(digits, 16)
    return bytes((code,)) if code in _UNRESERVED else b"%" + digits.upper()


class Node:
    """One path prefix that leads to a rule, and may have one itself."""

    __slots__ = ("deeper", "rule")

    def __init__(self) -> None:
        self.rule: Any = None  # the longest Prefix rule that covers this prefix, itself included
        self.deeper = False  # whether any longer prefix has a rule

    def __repr__(self) -> str:
        return f"Node({self.rule!r}, deeper={self.deeper})"


class PathTree:
    """The paths of one host. Add every rule, then `seal`, then `find`.

    Of two rules with the same type and path the first one added stays. ``/foo`` and ``/foo/`` are one Prefix rule,
    since its trailing slash is ignored, but two Exact ones.
    """

    __slots__ = ("exact", "nodes", "root")

    def __init__(self) -> None:
        self.exact: dict[bytes, Any] = {}
        # Sealed, the rule itself where no longer prefix has one: as most have, each object fewer counts.
        self.nodes: dict[bytes, Any] = {}
        self.root: Any = None  # Prefix "/"

    def __repr__(self) -> str:
        return f"PathTree({len(self.exact)} exact, {len(self.nodes)} nodes, root={self.root!r})"

    def add_exact(self, rule: Rule) -> None:
        """An Exact rule: the whole path, trailing slash included."""
        self.exact.setdefault(path_key(rule.path), rule)

    def add_prefix(self, rule: Rule) -> None:
        """A Prefix rule: whole elements."""
        key = path_key(rule.path).rstrip(b"/")
        if not key:
            if self.root is None:
                self.root = rule
            return
        nodes = self.nodes
        node = nodes.get(key)
        if node is None:
            node = nodes[key] = Node()
        if node.rule is None:
            node.rule = rule
        while (slash := key.rfind(b"/")) > 0:
            key = key[:slash]
            above = nodes.get(key)
            if above is not None and above.deeper:
                return
            if above is None:
                above = nodes[key] = Node()
            above.deeper = True

    def seal(self) -> None:
        """Let every prefix without a rule of its own know the one that covers it."""
        nodes = self.nodes
        for key in sorted(nodes, key=len):
            node = nodes[key]
            if node.rule is None:
                slash = key.rfind(b"/")
                node.rule = nodes[key[:slash]].rule if slash > 0 else self.root
            if not node.deeper:
                nodes[key] = node.rule

    def find(self, path: bytes) -> Any:
        """The rule for a path in normal form: the longest match, and of equal ones the Exact."""
        if self.exact:
            rule = self.exact.get(path)
            if rule is not None:
                return rule
        nodes = self.nodes
        best = self.root
        if not nodes:
            return best
        slash = find_slash(path, 1)
        while slash > 0:
            node = nodes.get(path[:slash])
            if node is None:
                return best
            if type(node) is not Node:
                return node
            inner = node
            best = inner.rule
            slash = find_slash(path, slash + 1)
        node = nodes.get(path)
        if node is None:
            return best
        if type(node) is not Node:
            return node
        inner = node
        return inner.rule
