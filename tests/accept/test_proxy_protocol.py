"""The PROXY protocol's grammar, by hand-written vectors and generated headers, each fed in every way."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.accept.proxy_protocol import ProxyHeader, crc32c, parse
from proxy.errors import Fault, Kind

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
REST = b"GET / HTTP/1.1\r\n\r\n"
V4 = ipaddress.IPv4Address("192.0.2.1").packed + ipaddress.IPv4Address("198.51.100.7").packed + b"\xdc\x04\x01\xbb"
V6 = ipaddress.IPv6Address("2001:db8::1").packed + ipaddress.IPv6Address("2001:db8::2").packed + b"\xdc\x04\x01\xbb"
FROM_V4, TO_V4 = ("192.0.2.1", 56324), ("198.51.100.7", 443)
FROM_V6, TO_V6 = ("2001:db8::1", 56324), ("2001:db8::2", 443)


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def checked(body: bytes, after: bytes = b"") -> bytes:
    """A TCP4 header with a right checksum between its addresses and ``after``."""
    start = v2(0x21, 0x11, body, len(body) + 7 + len(after)) + tlv(3, bytes(4))
    crc = crc32c(start + after)
    return start[:-4] + crc.to_bytes(4, "big") + after


GOOD = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", ProxyHeader(1, FROM_V4, TO_V4)),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0::2 56324 443\r\n", ProxyHeader(1, FROM_V6, TO_V6)),
    "v1 lowest and highest": (
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        ProxyHeader(1, ("0.0.0.0", 0), ("255.255.255.255", 65535)),
    ),
    "v1 longest TCP6": (
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        ProxyHeader(1, ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535), ("ffff:" * 7 + "ffff", 65535)),
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", ProxyHeader(1, None, None)),
    "v1 UNKNOWN and more": (b"PROXY UNKNOWN \x00\xff what not\r\n", ProxyHeader(1, None, None)),
    "v1 of 107 bytes": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", ProxyHeader(1, None, None)),
    "v2 TCP4": (v2(0x21, 0x11, V4), ProxyHeader(2, FROM_V4, TO_V4)),
    "v2 TCP6": (v2(0x21, 0x21, V6), ProxyHeader(2, FROM_V6, TO_V6)),
    "v2 TCP4 with extensions": (
        v2(0x21, 0x11, V4 + tlv(1, b"h2") + tlv(4, b"") + tlv(0xEA, bytes(300))),
        ProxyHeader(2, FROM_V4, TO_V4),
    ),
    "v2 with a checksum": (checked(V4), ProxyHeader(2, FROM_V4, TO_V4)),
    "v2 with a checksum in the middle": (checked(V4 + tlv(2, b"shop"), tlv(4, b"123")), ProxyHeader(2, FROM_V4, TO_V4)),
    "v2 LOCAL": (v2(0x20, 0x00, b""), ProxyHeader(2, None, None)),
    "v2 LOCAL ignores what it says": (v2(0x20, 0xFF, b"\x03\x00"), ProxyHeader(2, None, None)),
    "v2 unspecified": (v2(0x21, 0x00, b"anything"), ProxyHeader(2, None, None)),
    "v2 UDP4": (v2(0x21, 0x12, V4), ProxyHeader(2, None, None)),
    "v2 Unix": (v2(0x21, 0x31, bytes(216)), ProxyHeader(2, None, None)),
    "v2 longest": (v2(0x21, 0x11, V4 + tlv(4, bytes(4096 - 12 - 3))), ProxyHeader(2, FROM_V4, TO_V4)),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_headers(name: str) -> None:
    data, header = GOOD[name]
    for end in range(len(data)):
        assert parse(data[:end]) is None
    assert parse(data) == (header, len(data))
    assert parse(data + REST) == (header, len(data))


V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"

# Each with the number of bytes after which it must be refused, whatever might follow.
BAD = {
    "http": (b"GET / HTTP/1.1\r\n\r\n", 1),
    "tls": (b"\x16\x03\x01\x02\x00", 1),
    "lower case": (b"proxy UNKNOWN\r\n", 1),
    "a POST": (b"POST / HTTP/1.1\r\n", 2),
    "no space": (b"PROXYTCP4", 6),
    "tab": (b"PROXY\tTCP4", 6),
    "bare LF": (V1.replace(b"\r", b""), 44),
    "CR inside": (V1.replace(b" 443", b"\r443"), 45),
    "NUL CR LF, cut short": (b"PROXY \r\n", 8),
    "nothing after UNKNOWN's name": (b"PROXY UNKNOWNS\r\n", 16),
    "two spaces": (V1.replace(b"TCP4 ", b"TCP4  "), 46),
    "UDP4": (V1.replace(b"TCP4", b"UDP4"), 45),
    "no ports": (b"PROXY TCP4 192.0.2.1 198.51.100.7\r\n", 35),
    "one word more": (V1.replace(b"\r\n", b" 1\r\n"), 47),
    "trailing space": (V1.replace(b"\r\n", b" \r\n"), 46),
    "IPv6 in TCP4": (V1.replace(b"192.0.2.1", b"::1"), 39),
    "IPv4 in TCP6": (V1.replace(b"TCP4", b"TCP6"), 45),
    "leading zero": (V1.replace(b"192.0.2.1", b"192.0.2.01"), 46),
    "three octets": (V1.replace(b"192.0.2.1", b"192.0.2"), 43),
    "octet of 256": (V1.replace(b"192.0.2.1", b"192.0.256.1"), 47),
    "a name": (V1.replace(b"192.0.2.1", b"localhost"), 45),
    "not ASCII": (V1.replace(b"192.0.2.1", b"192.0.2.\xb2"), 45),
    "a zone": (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", 33),
    "port 65536": (V1.replace(b"443", b"65536"), 47),
    "port 0443": (V1.replace(b"443", b"0443"), 46),
    "port 00": (V1.replace(b"443", b"00"), 44),
    "port +443": (V1.replace(b"443", b"+443"), 46),
    "port empty": (V1.replace(b"443", b""), 42),
    "port 123456": (V1.replace(b"443", b"123456"), 48),
    "108 bytes": (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", 107),
    "endless": (b"PROXY TCP4 " + b"1" * 1000, 107),
    "broken signature": (SIGNATURE[:11] + b"\r", 12),
    "signature of an HTTP client": (b"\r\n\r\nGET", 5),
    "v2 version 1": (v2(0x11, 0x11, V4), 13),
    "v2 version 3": (v2(0x31, 0x11, V4), 13),
    "v2 command 2": (v2(0x22, 0x11, V4), 13),
    "v2 family 4": (v2(0x21, 0x41, V4), 14),
    "v2 transport 3": (v2(0x21, 0x13, V4), 14),
    "v2 too long": (v2(0x21, 0x11, b"", 4097), 16),
    "v2 LOCAL too long": (v2(0x20, 0x00, b"", 65535), 16),
    "v2 TCP4 of 11": (v2(0x21, 0x11, V4[:-1]), 16),
    "v2 TCP6 of 35": (v2(0x21, 0x21, V6[:-1]), 16),
    "v2 Unix of 215": (v2(0x21, 0x31, bytes(215)), 16),
    "v2 cut extension": (v2(0x21, 0x11, V4 + b"\x01\x00"), 30),
    "v2 extension beyond the end": (v2(0x21, 0x11, V4 + b"\x01\x00\x02x"), 32),
    "v2 wrong checksum": (checked(V4)[:-1] + bytes([checked(V4)[-1] ^ 1]), 35),
    "v2 checksum of another address": (checked(V4).replace(b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02"), 35),
    "v2 checksum of 3 bytes": (v2(0x21, 0x11, V4 + tlv(3, bytes(3))), 34),
    "v2 two checksums": (checked(V4 + tlv(3, bytes(4))), 42),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_headers_are_refused_as_soon_as_they_are_bad(name: str) -> None:
    data, after = BAD[name]
    for end in range(after):
        assert parse(data[:end]) is None, f"refused or taken after {end} bytes"
    for seen in (data[:after], data, data + REST):
        with pytest.raises(Fault) as caught:
            parse(seen)
        assert caught.value.kind is Kind.BAD_PROXY_HEADER
        assert caught.value.detail


def test_crc32c_of_the_standard() -> None:
    # RFC 3720 appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


Addresses = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ipaddress.IPv4Address | ipaddress.IPv6Address]
ADDRESSES: st.SearchStrategy[Addresses] = st.one_of(
    *(st.tuples(st.ip_addresses(v=version), st.ip_addresses(v=version)) for version in (4, 6))
)
PORTS = st.integers(0, 65535)


@given(ADDRESSES, PORTS, PORTS, st.binary(max_size=20))
def test_v1_round_trip(addresses: Addresses, source_port: int, destination_port: int, rest: bytes) -> None:
    source, destination = addresses
    line = f"PROXY TCP{source.version} {source} {destination} {source_port} {destination_port}\r\n".encode()
    expected = ProxyHeader(1, (str(source), source_port), (str(destination), destination_port))
    assert parse(line + rest) == (expected, len(line))


@given(ADDRESSES, PORTS, PORTS, st.lists(st.tuples(st.integers(4, 255), st.binary(max_size=99)), max_size=9))
def test_v2_round_trip(addresses: Addresses, source_port: int, destination_port: int, extensions) -> None:
    source, destination = addresses
    body = source.packed + destination.packed + struct.pack("!HH", source_port, destination_port)
    body += b"".join(tlv(kind, value) for kind, value in extensions)
    header = v2(0x21, 0x11 if source.version == 4 else 0x21, body)
    expected = ProxyHeader(2, (str(source), source_port), (str(destination), destination_port))
    assert parse(header + REST) == (expected, len(header))
    assert parse(header[:-1]) is None


@given(st.binary(max_size=200) | st.binary(max_size=150).map(SIGNATURE.__add__) | st.binary().map(b"PROXY ".__add__))
def test_any_bytes_are_decided_once(data: bytes) -> None:
    """Whatever has been decided about a beginning holds for everything that begins so."""
    decided: object = None
    for end in range(len(data) + 1):
        try:
            now: object = parse(data[:end])
        except Fault as fault:
            now = fault.kind
        if decided is not None:
            assert now == decided
        decided = now
