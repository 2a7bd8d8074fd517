"""The PROXY protocol, versions 1 and 2: who is behind the load balancer in front of us.

HAProxy, "The PROXY protocol, Versions 1 & 2" (2020/03/05), cited below by section. Pure: bytes in, a header out.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, NamedTuple

from proxy.errors import Fault, Kind

_V1: Final = b"PROXY "
_V1_LONGEST: Final = 107  # section 2.1: the longest line there can be, with its CRLF
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16
# Section 2.2 allows 64 KiB. Addresses take 36 bytes, a TLS client's name and certificate subject some hundred.
_V2_LONGEST: Final = 4096

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES: Final = {0x0: 0, 0x1: 12, 0x2: 36, 0x3: 216}  # bytes, by family: unspecified, IPv4, IPv6, Unix
_TRANSPORTS: Final = frozenset((0x0, 0x1, 0x2))  # unspecified, stream, datagram
_TYPE_CRC32C: Final = 0x03

Endpoint = tuple[str, int]


class ProxyHeader(NamedTuple):
    """What a header says: address and port of both ends, or None where the real ones of the connection count.

    That is so for a connection of the load balancer's own (LOCAL: health checks), for UNKNOWN, and for what is not
    TCP over IP.
    """

    version: int
    source: Endpoint | None
    destination: Endpoint | None


def parse(data: bytes) -> tuple[ProxyHeader, int] | None:
    """The header at the start of ``data`` and its length in bytes; None while more bytes are needed.

    Raises `Fault` (``BAD_PROXY_HEADER``) as soon as the bytes cannot become a header. No connection without one is
    accepted, as the sender could then choose its address (section 2).
    """
    if data[:1] == b"P":
        return _parse_v1(data)
    if not _V2.startswith(data[:12]):
        raise _bad("no PROXY protocol header")
    return _parse_v2(data)


def _parse_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    if not _V1.startswith(data[:6]):
        raise _bad("no PROXY protocol header")
    end = data.find(b"\n", 0, _V1_LONGEST)
    if end < 0:
        if len(data) >= _V1_LONGEST:
            raise _bad(f"no end of line within {_V1_LONGEST} bytes")
        return None
    line = data[: end - 1]
    if data[end - 1 : end] != b"\r" or b"\r" in line:
        raise _bad("the line does not end in CRLF")
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":  # whatever follows must be ignored
        return ProxyHeader(1, None, None), end + 1
    if words[1] not in (b"TCP4", b"TCP6"):
        raise _bad("the protocol is none of TCP4, TCP6 and UNKNOWN")
    if len(words) != 6:
        raise _bad("not two addresses and two ports, each behind one space")
    _, protocol, source, destination, source_port, destination_port = words
    header = ProxyHeader(
        1, (_address(protocol, source), _port(source_port)), (_address(protocol, destination), _port(destination_port))
    )
    return header, end + 1


def _address(protocol: bytes, text: bytes) -> str:
    """The normal form of an address. A zone ("%eth0") means nothing on another host."""
    try:
        if protocol == b"TCP4":
            return str(ipaddress.IPv4Address(text.decode("ascii")))
        if b"%" not in text:
            return str(ipaddress.IPv6Address(text.decode("ascii")))
    except ValueError:
        pass
    raise _bad(f"a malformed {protocol.decode('ascii')} address")


def _port(text: bytes) -> int:
    if text.isdigit() and len(text) <= 5 and (text[:1] != b"0" or text == b"0"):
        port = int(text)
        if port <= 0xFFFF:
            return port
    raise _bad("a malformed port")


def _parse_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    # Checked byte by byte as they come, so that a bad one never waits for more.
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise _bad("an unknown version or command")
    if len(data) > 13 and data[12] == _PROXY and (data[13] >> 4 not in _ADDRESSES or data[13] & 15 not in _TRANSPORTS):
        raise _bad("an unknown address family or transport")
    if len(data) < _V2_FIXED:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    end = _V2_FIXED + length
    if length > _V2_LONGEST:
        raise _bad(f"{length} bytes of addresses and extensions, more than {_V2_LONGEST}")
    if command == _PROXY and length < _ADDRESSES[family >> 4]:
        raise _bad("too short for its addresses")
    if len(data) < end:
        return None
    if command == _LOCAL or family >> 4 == 0:  # the rest, whatever it is, must be skipped
        return ProxyHeader(2, None, None), end
    _extensions(data[:end], _V2_FIXED + _ADDRESSES[family >> 4])
    if family == _TCP4:
        source, destination, source_port, destination_port = struct.unpack_from("!4s4sHH", data, _V2_FIXED)
    elif family == _TCP6:
        source, destination, source_port, destination_port = struct.unpack_from("!16s16sHH", data, _V2_FIXED)
    else:
        return ProxyHeader(2, None, None), end
    header = ProxyHeader(
        2,
        (str(ipaddress.ip_address(source)), source_port),
        (str(ipaddress.ip_address(destination)), destination_port),
    )
    return header, end


def _extensions(header: bytes, at: int) -> None:
    """Check the type-length-value fields (section 2.2.1) and the checksum, if there is one (section 2.2.4)."""
    checksum = -1
    while at < len(header):
        value = at + 3
        if value > len(header):
            raise _bad("a cut extension")
        kind, length = struct.unpack_from("!BH", header, at)
        at = value + length
        if at > len(header):
            raise _bad("an extension longer than the header")
        if kind == _TYPE_CRC32C:
            if length != 4 or checksum >= 0:
                raise _bad("a malformed or second checksum")
            checksum = value
    if checksum >= 0:
        expected = int.from_bytes(header[checksum : checksum + 4], "big")
        if crc32c(header[:checksum] + bytes(4) + header[checksum + 4 :]) != expected:
            raise _bad("the checksum does not match")


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli; RFC 3720 appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC32C: Final = _crc32c_table()


def _bad(detail: str) -> Fault:
    return Fault(Kind.BAD_PROXY_HEADER, detail)
