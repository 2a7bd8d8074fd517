"""The PROXY protocol on a listener, versions 1 and 2 (haproxy.org/download/1.8/doc/proxy-protocol.txt)."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.edge.conftest import clean
from tests.harness.certificates import any_server
from tests.harness.client import Client
from tests.harness.edge import Edge, request
from tests.harness.feed import Feed

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
UBER = re.compile(r"([0-9a-f]{32})(?::|%3A)([0-9a-f]{16})(?::|%3A)([0-9a-f]+)(?::|%3A)([0-9a-f]+)\Z")
STRANGER = "203.0.113.7"


@pytest.fixture(scope="module")
def preceded(launch: Callable[..., Edge]) -> Edge:
    return launch("--proxy-protocol", https=True)


@pytest.fixture
def behind(preceded: Edge) -> Iterator[Edge]:
    """A proxy whose listener expects the PROXY protocol."""
    yield from clean(preceded)


# PROXY protocol.

V2 = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return V2 + struct.pack("!BBH", 0x20 | command, family, len(addresses)) + addresses


def v2_tcp4(source: str = STRANGER, port: int = 4711) -> bytes:
    return v2(1, 0x11, socket.inet_aton(source) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", port, 443))


V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1")

PREAMBLES = {
    "v1-tcp4": (f"PROXY TCP4 {STRANGER} 192.0.2.1 4711 443\r\n".encode(), STRANGER),
    "v1-tcp6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7"),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v1-unknown-more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1"),
    "v2-tcp4": (v2_tcp4(), STRANGER),
    "v2-tcp6": (v2(1, 0x21, V6 + struct.pack("!HH", 4711, 443)), "2001:db8::7"),
    "v2-local": (v2(0, 0x00, b""), "127.0.0.1"),
    "v2-local-more": (v2(0, 0x11, b"x" * 12), "127.0.0.1"),
    "v2-tlv": (v2(1, 0x11, v2_tcp4()[16:] + b"\x04\x00\x03abc"), STRANGER),
}

BAD_PREAMBLES = {
    "none": b"",
    "v1-lower": b"proxy TCP4 203.0.113.7 192.0.2.1 4711 443\r\n",
    "v1-lf": b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\n",
    "v1-two-spaces": b"PROXY  TCP4 203.0.113.7 192.0.2.1 4711 443\r\n",
    "v1-missing": b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n",
    "v1-more": b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443 1\r\n",
    "v1-bad-address": b"PROXY TCP4 203.0.113.777 192.0.2.1 4711 443\r\n",
    "v1-wrong-family": b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
    "v1-bad-port": b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n",
    "v1-udp": b"PROXY UDP4 203.0.113.7 192.0.2.1 4711 443\r\n",
    "v1-endless": b"PROXY TCP4 " + b"1" * 200,
    "v2-version": V2 + b"\x11\x11\x00\x0c" + v2_tcp4()[16:],
    "v2-command": v2(2, 0x11, v2_tcp4()[16:]),
    "v2-short": v2(1, 0x11, b"x" * 4),
    "v2-huge": V2 + b"\x21\x11\xff\xff" + b"x" * 100,
}


@pytest.mark.parametrize(("preamble", "client_address"), PREAMBLES.values(), ids=PREAMBLES)
def test_proxy_protocol(behind: Edge, preamble: bytes, client_address: str, how: Feed) -> None:
    with behind.client() as client:
        assert client.ask(preamble + request(), how).status == 200
        assert client.ask(request(target="/second"), how).status == 200
    for seen in behind.a.requests:
        assert seen.fields.one("X-Real-IP") == client_address
        assert seen.fields.one("X-Forwarded-For") == client_address


@pytest.mark.parametrize("preamble", BAD_PREAMBLES.values(), ids=BAD_PREAMBLES)
def test_malformed_proxy_protocol(behind: Edge, preamble: bytes, how: Feed) -> None:
    # Nothing can be answered: the peer is a load balancer, and what it would forward is no answer to its client.
    how = Feed.WHOLE if len(preamble) > 150 else how
    with behind.client() as client:
        client.send(preamble + request(), how)
        client.finish_writing()
        assert client.stream.rest() == b""
    assert not behind.a.requests


def test_proxy_protocol_stranger_is_not_trusted(behind: Edge) -> None:
    # Trust is judged on the address the PROXY header gives: who sent the bytes is only the load balancer.
    with behind.client(preamble=v2_tcp4()) as client:
        assert client.ask(request("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")).status == 200
    assert behind.a.one().fields.one("X-Forwarded-For") == STRANGER
    assert behind.a.one().fields.one("X-Forwarded-Proto") == "http"


def test_proxy_protocol_is_not_read_without_the_setting(edge: Edge, how: Feed) -> None:
    for preamble, _ in PREAMBLES.values():
        with edge.client() as client:
            client.send(preamble + request(), how)
            heard = client.stream.rest()
            assert heard.startswith(b"HTTP/1.1 400 ") or heard == b""
    assert not edge.a.requests


@pytest.mark.parametrize(("preamble", "client_address"), PREAMBLES.values(), ids=PREAMBLES)
def test_proxy_protocol_before_tls(behind: Edge, preamble: bytes, client_address: str) -> None:
    address = behind.proxy.tls_address
    with Client(address, tls=any_server(), server_name="a.test", preamble=preamble) as client:
        assert client.ask(request()).status == 200
    seen = behind.a.one()
    assert seen.fields.one("X-Real-IP") == client_address
    assert seen.fields.one("X-Forwarded-Proto") == "https"


def test_tls_without_the_expected_header(behind: Edge) -> None:
    with pytest.raises(OSError):
        Client(behind.proxy.tls_address, tls=any_server(), server_name="a.test")
    assert not behind.a.connections
