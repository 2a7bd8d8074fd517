"""IPFIX of Open vSwitch (RFC 7011): proof that a connection's packets passed a bridge and its ports.

A sample is a packet that an OpenFlow rule chose, or that the bridge's own sampling did::

    ovs-vsctl -- --id=@b get Bridge br0 -- --id=@i create IPFIX 'targets="127.0.0.1:4739"' \\
        -- --id=@c create Flow_Sample_Collector_Set id=1 bridge=@b ipfix=@i
    ovs-ofctl add-flow br0 'priority=100,tcp,ip_dscp=10,actions=sample(probability=65535,collector_set_id=1,
        obs_domain_id=1,obs_point_id=7,ingress),NORMAL'

- Its times are milliseconds (`ofproto-dpif-ipfix.c` of Open vSwitch fills them from a clock of milliseconds), given as
  microseconds before the message's export time: enough to find a connection, not to time a hop. The taps do that.
- Templates are sent before the first record and then every ten minutes. A collector that comes later knows them all the
  same: their layout is fixed, and computed here; one that is announced takes precedence.
- In every 3.1 release the bridge's ``enable-input-sampling`` and ``enable-output-sampling`` are inverted ("true" turns
  it off; 3.3 has them right): leave both unset, which samples both ways in all releases.
- Sampling every packet (``sampling=1``) triples the time that the switch takes for one. A rule for marked connections
  costs nothing that can be measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, cast

from proxy.errors import SettingsError
from proxy.settings import Address

PORT: Final = 4739  # UDP, registered with IANA
VERSION: Final = 10
MOST_TEMPLATES: Final = 1024  # Open vSwitch has 88 per observation domain
BUFFER: Final = 4 << 20  # bytes asked for; the kernel gives at most net.core.rmem_max
MOST_FIELDS: Final = 128  # of one template; Open vSwitch's largest has 70
_HEADER: Final = struct.Struct(">HHIII")
_SET: Final = struct.Struct(">HH")
_TEMPLATE_SET: Final = 2
_OPTIONS_SET: Final = 3  # what the exporter says of itself
_FIRST_DATA_SET: Final = 256
_VARIABLE: Final = 0xFFFF
_ENTERPRISE: Final = 0x8000
_EGRESS: Final = 1

# Information elements (IANA's registry) that are read, by number.
_POINT, _DIRECTION, _DSCP = 138, 61, 195
_SOURCE4, _DESTINATION4, _SOURCE6, _DESTINATION6 = 8, 12, 27, 28
_SOURCE_PORT, _DESTINATION_PORT = 7, 11
_INTERFACE, _START, _END, _PACKETS, _OCTETS, _DROPPED = 82, 158, 159, 2, 1, 133

Fields = tuple[tuple[int, int], ...]  # (information element, bytes); 65535 bytes: its length is in the record


class Sample(NamedTuple):
    """One record: one packet, or as many of one flow as the exporter has put together."""

    domain: int  # observation domain, as set for the bridge or in the rule
    point: int  # observation point, likewise
    egress: bool  # seen where it left, not where it entered
    in_interface: str
    out_interface: str  # "" at ingress
    source: str
    source_port: int
    destination: str
    destination_port: int
    dscp: int
    start_us: int  # Unix microseconds, in steps of a thousand
    end_us: int
    packets: int
    octets: int  # of IP
    dropped: int


def template_id(*, vlan: bool, version: int, egress: bool) -> int:
    """The number that Open vSwitch gives the template of TCP packets without a tunnel; 280 and 281 are IPv4's."""
    layer2, layer3, layer4, tunnel = int(vlan), {4: 1, 6: 2}[version], 1, 0
    return _FIRST_DATA_SET + (((layer2 * 3 + layer3) * 5 + layer4) * 2 + tunnel) * 2 + int(egress)


def _layout(*, vlan: bool, version: int, egress: bool) -> Fields:
    """In the order of `ipfix_define_template_fields` of Open vSwitch's ofproto-dpif-ipfix.c."""
    interface: Fields = ((82, _VARIABLE), (83, _VARIABLE))
    key: Fields = ((138, 4), (61, 1), (56, 6), (80, 6), (256, 2), (240, 1), (10, 4), (368, 4), *interface)
    key += ((14, 4), (369, 4), *interface) if egress else ()
    key += ((58, 2), (243, 2), (244, 1)) if vlan else ()
    key += ((60, 1), (192, 1), (4, 1), (195, 1), (196, 1), (5, 1))
    key += ((8, 4), (12, 4)) if version == 4 else ((27, 16), (28, 16), (31, 4))
    key += ((7, 2), (11, 2))
    counters = (133, 135, 2, 86, 354, 355, 356, 357, 358, 19, 174, 352, 353)
    octets = (132, 134, 1, 85, 198, 199, 25, 26, 20, 175)
    flags = (222, 219, 221, 220, 218, 223)
    return (
        *key,
        *((158, 4), (159, 4)),
        *((each, 8) for each in counters),
        (136, 1),
        *((each, 8) for each in octets),
        *((each, 8) for each in flags),
    )


KNOWN: Final[dict[int, Fields]] = {
    template_id(vlan=vlan, version=version, egress=egress): _layout(vlan=vlan, version=version, egress=egress)
    for vlan in (False, True)
    for version in (4, 6)
    for egress in (False, True)
}


class Reader:
    """Messages of one exporter, read in turn.

    ``samples``: of TCP packets, all that came. ``lost``: records that the exporter sent and that did not arrive, by
    its sequence numbers. ``unread``: sets of records without a template, or of another form than it says.
    ``malformed``: messages that are none.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.lost = 0
        self.unread = 0
        self.malformed = 0
        self._templates: Final[OrderedDict[tuple[int, int], Fields]] = OrderedDict()
        self._expected: Final[OrderedDict[int, int]] = OrderedDict()  # observation domain: next sequence number

    def __repr__(self) -> str:
        return f"Reader({len(self._templates)} templates, {self.lost} lost, {self.unread} unread)"

    def template(self, domain: int, number: int) -> Fields | None:
        """The layout of a template: as announced, else as known."""
        return self._templates.get((domain, number)) or KNOWN.get(number)

    def read(self, data: bytes) -> list[Sample]:
        """The TCP samples of one UDP datagram; what cannot be read is counted and left out."""
        if len(data) < _HEADER.size:
            self.malformed += 1
            return []
        version, length, exported, sequence, domain = _HEADER.unpack_from(data)
        if version != VERSION or length != len(data):
            self.malformed += 1
            return []
        samples: list[Sample] = []
        records = 0
        for number, content in self._sets(data):
            if number in (_TEMPLATE_SET, _OPTIONS_SET):
                self._learn(domain, content, 4 if number == _TEMPLATE_SET else 6)
            elif number >= _FIRST_DATA_SET:
                found = self._records(domain, number, content, exported)
                samples += [each for each in found if each is not None]
                records += len(found)
        if records:  # Open vSwitch counts a message's record before it writes the number: one more than templates tell
            self._follow(domain, sequence, records)
        self.samples += len(samples)
        return samples

    def _sets(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        at = _HEADER.size
        while at + _SET.size <= len(data):
            number, length = _SET.unpack_from(data, at)
            if length < _SET.size or at + length > len(data):
                self.malformed += 1
                return
            yield number, data[at + _SET.size : at + length]
            at += length

    def _learn(self, domain: int, content: bytes, head: int) -> None:
        """Templates of records, or of options, whose head says besides how many fields are their scope."""
        at = 0
        while at + head <= len(content):
            number, count = struct.unpack_from(">HH", content, at)
            at += head
            fields: list[tuple[int, int]] = []
            for _ in range(count):
                if at + 4 > len(content):
                    self.malformed += 1
                    return
                element, size = struct.unpack_from(">HH", content, at)
                at += 8 if element & _ENTERPRISE else 4
                fields.append((0 if element & _ENTERPRISE else element, size))
            if not all(size for _, size in fields):
                self.malformed += 1  # a record of no bytes would never end
            elif number >= _FIRST_DATA_SET and 0 < len(fields) <= MOST_FIELDS:
                self._templates[domain, number] = tuple(fields)
                while len(self._templates) > MOST_TEMPLATES:
                    self._templates.popitem(last=False)

    def _records(self, domain: int, number: int, content: bytes, exported: int) -> list[Sample | None]:
        """Every record of a set, None for one that is not of TCP."""
        fields = self.template(domain, number)
        if fields is None:
            self.unread += 1
            return []
        shortest = max(4, sum(1 if size == _VARIABLE else size for _, size in fields))
        found: list[Sample | None] = []
        at = 0
        while len(content) - at >= shortest:
            values, at = _values(fields, content, at)
            if at < 0:
                self.unread += 1
                break
            found.append(_sample(domain, values, exported))
        return found

    def _follow(self, domain: int, sequence: int, records: int) -> None:
        expected = self._expected.pop(domain, sequence)
        missed = (sequence - expected) & 0xFFFFFFFF
        self.lost += missed if missed < 1 << 31 else 0  # behind: reordered, or the exporter started anew
        self._expected[domain] = (sequence + records) & 0xFFFFFFFF
        while len(self._expected) > MOST_TEMPLATES:
            self._expected.popitem(last=False)


def _values(fields: Fields, content: bytes, at: int) -> tuple[dict[int, list[bytes]], int]:
    """A record's values by information element, and where the next record begins, -1 when it is cut."""
    values: dict[int, list[bytes]] = {}
    for element, fixed in fields:
        size = fixed
        if fixed == _VARIABLE:  # RFC 7011 section 7
            if at >= len(content):
                return {}, -1
            size, at = content[at], at + 1
            if size == 255:
                size, at = int.from_bytes(content[at : at + 2], "big"), at + 2
        if at + size > len(content):
            return {}, -1
        values.setdefault(element, []).append(content[at : at + size])
        at += size
    return values, at


def _sample(domain: int, values: dict[int, list[bytes]], exported: int) -> Sample | None:
    def number(element: int) -> int:
        # A template may call any number of bytes an integer; none that is read here has more than eight.
        return int.from_bytes(values[element][0][-8:], "big") if element in values else 0

    source = values.get(_SOURCE4) or values.get(_SOURCE6)
    destination = values.get(_DESTINATION4) or values.get(_DESTINATION6)
    if source is None or destination is None or _SOURCE_PORT not in values:
        return None
    try:
        addresses = [str(ipaddress.ip_address(each[0])) for each in (source, destination)]
    except ValueError:
        return None
    names = [each.rstrip(b"\0").decode("utf-8", "replace") for each in values.get(_INTERFACE, ())]
    return Sample(
        domain,
        number(_POINT),
        number(_DIRECTION) == _EGRESS,
        names[0] if names else "",
        names[1] if len(names) > 1 else "",
        addresses[0],
        number(_SOURCE_PORT),
        addresses[1],
        number(_DESTINATION_PORT),
        number(_DSCP),
        exported * 1_000_000 - number(_START),
        exported * 1_000_000 - number(_END),
        number(_PACKETS),
        number(_OCTETS),
        number(_DROPPED),
    )


class Collector(asyncio.DatagramProtocol):
    """A UDP endpoint, see `listen`: ``take`` gets the samples of each datagram."""

    def __init__(self, take: Callable[[list[Sample]], object]) -> None:
        self.reader: Final = Reader()
        self._take: Final = take
        self._transport: asyncio.DatagramTransport | None = None

    def __repr__(self) -> str:
        return f"Collector({self.reader!r})"

    @property
    def address(self) -> Address:
        """Where it listens; raises `RuntimeError` where it does not."""
        if self._transport is None:
            raise RuntimeError("the collector does not listen")
        host, port = self._transport.get_extra_info("sockname")[:2]
        return Address(host, port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It listens."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        with contextlib.suppress(OSError):  # a smaller buffer means that records are lost, and counted, earlier
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)

    def datagram_received(self, data: bytes, _address: object) -> None:
        """Read one message."""
        samples = self.reader.read(data)
        if samples:
            self._take(samples)

    def close(self) -> None:
        """Listen no more."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None


async def listen(address: Address, take: Callable[[list[Sample]], object]) -> Collector:
    """Collect at an address. Raises `SettingsError` where that is impossible."""
    loop = asyncio.get_running_loop()
    try:
        _, made = await loop.create_datagram_endpoint(lambda: Collector(take), local_addr=(address.host, address.port))
    except (OSError, UnicodeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise SettingsError(
            f"the IPFIX collector cannot have {address} (UDP): {reason}. Choose another with --ipfix [HOST:]PORT."
        ) from error
    return made
