"""Near misses: the one thing that keeps a rule from matching, said to the person who wrote it."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

from proxy.route.match import path_key

if TYPE_CHECKING:
    from proxy.route.spec import RouteSpec

_ALIKE: Final = 0.85  # of SequenceMatcher.ratio: one letter of seven


def near_path(rule: RouteSpec, path: bytes) -> str:
    """Why a rule whose host matches misses this path (in normal form), "" where the two have nothing in common."""
    if rule.path_type == "Regex":
        return ""
    whole = path_key(rule.path)
    key = whole.rstrip(b"/")
    if rule.path_type == "Exact" and path.rstrip(b"/") == key:
        return f"Exact is to the letter, and the trailing slash makes {rule.path} another path"
    if rule.path_type == "Exact" and (key == b"" or path.startswith(key + b"/")):
        return f"Exact covers {rule.path} alone and nothing below it; Prefix would"
    if path.startswith(key):
        return f"a path matches by whole elements: {_element(path, key)} is not {_element(key, key)}"
    if path.lower() == key.lower() or path.lower().startswith(key.lower() + b"/"):
        return "paths are case-sensitive"
    if key.startswith(path.rstrip(b"/") + b"/"):
        return f"the path stops before {rule.path}"
    return ""


def _element(path: bytes, key: bytes) -> str:
    """The path element in which ``key`` ends, in quotes."""
    start = key.rfind(b"/") + 1
    end = path.find(b"/", start)
    element = path[start:] if end < 0 else path[start:end]
    return repr(element.decode("utf-8", "replace"))


def near_host(rule: str, host: str) -> str:
    """Why a rule whose path matches misses this host, "" where the two hosts are not alike."""
    if rule.startswith("*."):
        suffix = rule[1:]
        if host == suffix[1:]:
            return f"the wildcard stands for exactly one label, and {host} has none before {suffix}"
        if host.endswith(suffix):
            labels = host[: -len(suffix)].count(".") + 1
            return f"the wildcard stands for exactly one label, and {host} has {labels} before {suffix}"
        if "." in host and _alike(suffix, host[host.find(".") :]):
            return f"its domain is {suffix[1:]}"
        return ""
    if host in (f"www.{rule}", rule.removeprefix("www.")):
        return f"its host is {rule}: with and without www are two hosts"
    if host.endswith(f".{rule}"):
        return f"its host is {rule} alone, not what lies below it; *.{rule} would be"
    if _alike(rule, host):
        return f"its host is {rule}"
    return ""


def _alike(one: str, other: str) -> bool:
    if abs(len(one) - len(other)) > 2:
        return False
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return matcher.real_quick_ratio() > _ALIKE and matcher.quick_ratio() > _ALIKE and matcher.ratio() > _ALIKE
