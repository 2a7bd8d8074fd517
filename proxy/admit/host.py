"""The Host field, strictly: `uri-host [ ":" port ]` without userinfo (RFC 9110 section 7.2, RFC 3986 section 3.2.2)."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from proxy.errors import Fault, Kind

# reg-name without escapes and sub-delims: what DNS names, Kubernetes services and IPv4 addresses are made of.
_HOST: Final = re.compile(rb"([A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,253}[A-Za-z0-9_])?)\.?(?::([0-9]{1,5})?)?")
_LITERAL: Final = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\](?::([0-9]{1,5})?)?")

_MOST_CACHED: Final = 4096  # hosts; a client may send any, so the cache starts anew when it is full
_cache: dict[bytes, tuple[bytes, int]] = {}


def parse_host(value: bytes) -> tuple[bytes, int]:
    """A Host value as (host in lower case without a trailing dot, port or 0). Raises `Fault`: BAD_HOST."""
    parsed = _cache.get(value)
    if parsed is None:
        parsed = _parse(value)
        if len(_cache) >= _MOST_CACHED:
            _cache.clear()
        _cache[value] = parsed
    return parsed


def _parse(value: bytes) -> tuple[bytes, int]:
    match = _HOST.fullmatch(value)
    if match is not None:
        host = match[1].lower()
        if b".." in host:
            raise Fault(Kind.BAD_HOST, "an empty label in the host")
    else:
        match = _LITERAL.fullmatch(value)
        if match is None:
            raise Fault(Kind.BAD_HOST, "not a host and port")
        try:
            host = b"[%b]" % ipaddress.IPv6Address(match[1].decode("ascii")).compressed.encode("ascii")
        except ValueError:
            raise Fault(Kind.BAD_HOST, "not an IPv6 address") from None
    port = int(match[2] or 0)
    if port > 65535 or (match[2] and port == 0):
        raise Fault(Kind.BAD_HOST, "a port outside 1 to 65535")
    return host, port
