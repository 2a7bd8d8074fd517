"""IPFIX messages: layouts that are known, layouts that are announced, and datagrams of anybody's."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.layers import ipfix
from proxy.layers.ipfix import KNOWN, Collector, Reader, template_id

EXPORTED = 1_800_000_000
VALUES = {
    138: 7, 61: 1, 195: 10, 8: 0xC6120001, 12: 0xC6120002, 27: 1, 28: 2, 7: 40000, 11: 8080,
    158: 250_000, 159: 249_000, 2: 3, 1: 4000, 133: 1,
}  # fmt: skip


def record(fields: ipfix.Fields, names: tuple[bytes, ...] = (b"px1", b"a" * 300)) -> bytes:
    left = list(names)
    data = b""
    for element, size in fields:
        if size == 0xFFFF:
            text = left.pop(0) if element == 82 else b"text"
            data += (bytes([len(text)]) if len(text) < 255 else b"\xff" + struct.pack(">H", len(text))) + text
        else:
            data += VALUES.get(element, 0).to_bytes(size, "big")
    return data


def message(*sets: tuple[int, bytes], sequence: int = 0, domain: int = 1) -> bytes:
    body = b"".join(struct.pack(">HH", number, 4 + len(content)) + content for number, content in sets)
    return struct.pack(">HHIII", 10, 16 + len(body), EXPORTED, sequence, domain) + body


def test_template_numbers():
    assert [
        template_id(vlan=vlan, version=version, egress=egress)
        for vlan in (False, True)
        for version in (4, 6)
        for egress in (False, True)
    ] == [280, 281, 300, 301, 340, 341, 360, 361]


@pytest.mark.parametrize("number", KNOWN)
def test_a_record_of_each_known_layout(number):
    (sample,) = Reader().read(message((number, record(KNOWN[number]) + b"\0\0\0")))
    assert sample[:3] == (1, 7, True)
    assert sample.in_interface == "px1"
    assert sample.out_interface == ("a" * 300 if number % 2 else "")
    assert (sample.source_port, sample.destination_port, sample.dscp) == (40000, 8080, 10)
    assert (sample.source, sample.destination) in {("198.18.0.1", "198.18.0.2"), ("::1", "::2")}
    assert sample.start_us == EXPORTED * 1_000_000 - 250_000
    assert sample.end_us - sample.start_us == 1000
    assert (sample.packets, sample.octets, sample.dropped) == (3, 4000, 1)


def test_an_announced_layout_takes_precedence():
    fields = ((8, 4), (12, 4), (7, 2), (11, 2))
    announced = struct.pack(">HH", 280, 5) + b"".join(struct.pack(">HH", *field) for field in fields)
    announced += struct.pack(">HHI", 898 | 0x8000, 0xFFFF, 6876)
    reader = Reader()
    (sample,) = reader.read(message((2, announced), (280, record((*fields, (0, 0xFFFF))))))
    assert (sample.source, sample.source_port, sample.packets) == ("198.18.0.1", 40000, 0)
    assert reader.template(1, 280) == (*fields, (0, 0xFFFF))
    assert reader.template(2, 280) == KNOWN[280], "another domain's is its own"


def template(number, *fields):
    return struct.pack(">HH", number, len(fields)) + b"".join(struct.pack(">HH", *field) for field in fields)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("fields", [((8, 0),), ((8, 0), (82, 0xFFFF)), ((8, 4), (12, 4), (7, 0))])
def test_records_without_an_end_are_refused(fields):
    reader = Reader()
    assert list(reader.read(message((2, template(400, *fields)), (400, bytes(4000))))) == []
    assert reader.template(1, 400) is None
    assert (reader.malformed, reader.unread) == (1, 1)


def test_an_integer_of_any_length_is_kept_as_one_of_eight_bytes():
    fields = ((8, 4), (12, 4), (7, 2), (11, 2), (158, 4000), (138, 4000))
    content = bytes(4) + bytes(4) + b"\0\x07\0\x08" + b"\xff" * 8000
    (sample,) = Reader().read(message((2, template(400, *fields)), (400, content)))
    assert sample.point == (1 << 64) - 1
    assert abs(sample.start_us) < 1 << 65


def test_several_records_and_what_got_lost():
    reader = Reader()
    one = record(KNOWN[280])
    assert len(reader.read(message((280, one * 3), sequence=10))) == 3
    assert len(reader.read(message((280, one), sequence=15))) == 1
    assert reader.lost == 2
    reader.read(message((280, one), sequence=0))
    assert reader.lost == 2, "an exporter that has started anew"


@pytest.mark.parametrize(
    ("data", "malformed", "unread"),
    [
        (b"", 1, 0),
        (b"\0" * 20, 1, 0),
        (message((280, b""))[:-1], 1, 0),
        (struct.pack(">HHIII", 10, 20, EXPORTED, 0, 1) + b"\x01\x18\x00\x01", 1, 0),
        (message((2, struct.pack(">HH", 256, 9))), 1, 0),
        (message((999, bytes(40))), 0, 1),
        (message((280, record(KNOWN[280])[:-1])), 0, 1),
    ],
)
def test_what_cannot_be_read_is_counted(data, malformed, unread):
    reader = Reader()
    assert reader.read(data) == []
    assert (reader.malformed, reader.unread) == (malformed, unread)


@given(st.lists(st.tuples(st.sampled_from([2, 3, 256, 280, 301]), st.binary(max_size=400)), max_size=4))
def test_no_message_stops_it(sets):
    reader = Reader()
    for _ in range(2):
        reader.read(message(*sets))


@given(st.binary(max_size=600), st.integers(0, 600))
def test_no_datagram_stops_it(data, cut):
    Reader().read(data)
    Reader().read(message((280, record(KNOWN[280])))[:cut])
    whole = bytearray(message((281, record(KNOWN[281]))))
    whole[16 + cut % (len(whole) - 16)] ^= 0x5A
    Reader().read(bytes(whole))


def test_templates_are_bounded(monkeypatch):
    monkeypatch.setattr(ipfix, "MOST_TEMPLATES", 3)
    reader = Reader()
    for domain in range(10):
        reader.read(message((2, struct.pack(">HHHH", 400, 1, 8, 4)), (400, bytes(4)), domain=domain))
    assert "3 templates" in repr(reader)
    assert len(reader._expected) == 3, "domains are followed by their records, templates alone say nothing"


def test_a_collector_hands_on_what_it_gets():
    taken: list = []
    collector = Collector(taken.append)
    collector.datagram_received(message((280, record(KNOWN[280]))), ("127.0.0.1", 1))
    collector.datagram_received(b"", ("127.0.0.1", 1))
    assert len(taken) == 1
    assert collector.reader.malformed == 1
