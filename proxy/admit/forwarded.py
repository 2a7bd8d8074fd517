"""What the upstream is told of the client: X-Forwarded-*, X-Real-IP, Forwarded (RFC 7239).

Only a trusted peer may say who came before it; from any other, these fields are replaced (ingress-nginx:
``use-forwarded-headers``). The client address is the right-most one that is not trusted itself.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from proxy.net.addresses import Trust

_MOST_HOPS: Final = 32  # addresses read of X-Forwarded-For, from the right
_MOST_FOR: Final = 1024  # bytes read of it, from the right
_PROTO: Final = frozenset((b"http", b"https"))
_HOSTLIKE: Final = re.compile(rb"[A-Za-z0-9_.\-:\[\]]{1,261}")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_.\-+/=:]{1,128}")


class Claim(NamedTuple):
    """What a trusted peer's fields say; empty or 0 where they say nothing."""

    client: str
    chain: bytes  # X-Forwarded-For as received, without this peer
    proto: str
    host: bytes
    port: int


def read(noted: Mapping[bytes, bytes], trust: Trust, peer: str) -> Claim:
    """Read a trusted peer's X-Forwarded-* fields. A malformed field counts as absent; never raises."""
    client, chain = peer, b""
    value = noted.get(b"x-forwarded-for")
    if value:
        if len(value) > _MOST_FOR:
            # What a client has put in front must not hide what our own proxies have put behind it: the rest of an
            # address that is cut off here is none.
            value = value[-_MOST_FOR:].partition(b",")[2]
        hops = [hop.strip() for hop in value.split(b",")][-_MOST_HOPS:]
        addresses = [address(hop) for hop in hops]
        # Only what stands unbroken to the right counts: left of an unreadable hop nobody vouches for anything.
        good: list[str] = []
        for text in reversed(addresses):
            if not text:
                break
            good.append(text)
        for text in good:
            client = text
            if not trust.trusts(text):
                break
        chain = ", ".join(reversed(good)).encode("ascii")
    proto = noted.get(b"x-forwarded-proto", b"").rpartition(b",")[2].strip().lower()
    host = noted.get(b"x-forwarded-host", b"").rpartition(b",")[2].strip()
    port = noted.get(b"x-forwarded-port", b"").rpartition(b",")[2].strip()
    return Claim(
        client,
        chain,
        proto.decode("ascii") if proto in _PROTO else "",
        host if _HOSTLIKE.fullmatch(host) else b"",
        int(port) if port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536 else 0,
    )


def address(hop: bytes) -> str:
    """One X-Forwarded-For member as an address: ``192.0.2.1``, ``192.0.2.1:80``, ``[2001:db8::1]:80``; "" if none."""
    if hop.startswith(b"["):
        hop = hop[1:].partition(b"]")[0]
    elif hop.count(b":") == 1:
        hop = hop.partition(b":")[0]
    if b"%" in hop:
        return ""  # a zone (RFC 4007) means nothing here, and ipaddress lets any text stand behind the percent sign
    try:
        return str(ipaddress.ip_address(hop.decode("ascii")))
    except ValueError:
        return ""


def lines(chain: bytes, peer: bytes, proto: bytes, host: bytes, port: int, client: bytes) -> bytes:
    """The X-Forwarded-* lines for an upstream, each with its CRLF.

    ``chain`` is what a trusted peer sent, ``peer`` the last hop's address, ``client`` the resolved client's.
    """
    seen = b"%b, %b" % (chain, peer) if chain else peer
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %d\r\n"
        b"X-Real-IP: %b\r\n" % (seen, host, proto, port, client)
    )


def forwarded_line(chain: bytes, peer: bytes, proto: bytes, host: bytes) -> bytes:
    """The Forwarded line (RFC 7239 section 4): IPv6 in brackets and quotes, host always quoted."""
    hops = [hop.strip() for hop in chain.split(b",")] if chain else []
    members = [b"for=" + _node(hop) for hop in hops]
    members.append(b'for=%b;host="%b";proto=%b' % (_node(peer), host, proto))
    return b"Forwarded: %b\r\n" % b", ".join(members)


def _node(hop: bytes) -> bytes:
    return b'"[%b]"' % hop if b":" in hop else hop


def valid_request_id(value: bytes) -> bool:
    """Whether a trusted peer's X-Request-ID may be kept: 1 to 128 characters that need no escaping anywhere."""
    return _REQUEST_ID.fullmatch(value) is not None
