"""The request target, and the one normal form of a path (RFC 3986 section 6.2.2, RFC 9112 section 3.2).

The path that is routed is the path that is forwarded: no upstream can read another path out of it than the rules did.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import Fault, Kind

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SLASHES: Final = re.compile(rb"/{2,}")
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?]*)([/?].*)?", re.IGNORECASE)


def split(target: bytes) -> tuple[bytes, bytes, bool]:
    """An origin-form target as (path in normal form, query without "?", whether the target already was that).

    Raises `Fault`: BAD_TARGET for a bad escape, an escaped NUL, or a path that climbs above the root.
    """
    path, _, query = target.partition(b"?")
    if b"%" not in path and b"//" not in path and b"/." not in path:
        return path, query, True
    normal = normal_path(path)
    return normal, query, normal == path


def normal_path(path: bytes) -> bytes:
    """A path in normal form: unreserved characters unescaped, escapes in upper case, ``//`` merged (ingress-nginx:
    ``merge_slashes``), dot segments removed. ``%2F`` and ``%5C`` stay escaped. Raises `Fault`: BAD_TARGET.
    """
    if b"%" in path:
        path = _ESCAPE.sub(_unescape, path)
    if b"//" in path:
        path = _SLASHES.sub(b"/", path)
    return _without_dots(path) if b"/." in path else path


def _unescape(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    if digits is None:
        raise Fault(Kind.BAD_TARGET, "a percent sign without two hexadecimal digits")
    code = int(digits, 16)
    if code == 0:
        raise Fault(Kind.BAD_TARGET, "an escaped NUL in the path")
    return bytes((code,)) if code in _UNRESERVED else b"%" + digits.upper()


def _without_dots(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4, but climbing above the root is refused, not clipped."""
    kept: list[bytes] = []
    parts = path.split(b"/")[1:]
    for part in parts:
        if part == b"..":
            if not kept:
                raise Fault(Kind.BAD_TARGET, "the path climbs above the root")
            kept.pop()
        elif part != b".":
            kept.append(part)
    if parts[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


def absolute(target: bytes) -> tuple[bytes, bytes, bytes]:
    """An absolute-form target as (scheme, authority, origin-form target). Raises `Fault`: BAD_TARGET."""
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not match[2]:
        raise Fault(Kind.BAD_TARGET, "neither a path nor an http(s) URI")
    rest = match[3] or b"/"
    return match[1].lower(), match[2], rest if rest.startswith(b"/") else b"/" + rest
