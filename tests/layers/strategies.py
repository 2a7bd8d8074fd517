"""Segments of every shape, and blocks that something is wrong with."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.layers.blocks import ETHERNET, LOOPBACK, NONE, START, Segment, block

WORDS = st.one_of(st.sampled_from([0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]), st.integers(0, (1 << 32) - 1))
PORTS = st.one_of(st.sampled_from([0, 1, 80, 57344, 60999, 65535]), st.integers(0, 65535))
TAGS = st.lists(st.tuples(st.sampled_from([0x8100, 0x88A8, 0x9100]), st.integers(0, 65535)), max_size=2).map(tuple)
OPTIONS = st.one_of(
    st.just(b""),
    st.integers(0, 10).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words)),
    st.integers(0, 255).map(lambda scale: b"\x02\x04\x05\xb4\x01\x03\x03" + bytes((scale,))),
)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    """Any that a parser reads, headers captured whole."""
    six = draw(st.booleans())
    addresses = st.sampled_from(["fd00::1", "fd00::2", "2001:db8::"] if six else ["10.0.0.1", "10.0.0.2", "192.0.2.1"])
    big = draw(st.booleans())
    hops = draw(st.sampled_from([None, b"\xc2\x04\0\0\0\0", bytes(14)])) if six else None
    return Segment(
        source=draw(addresses), target=draw(addresses), source_port=draw(PORTS), target_port=draw(PORTS),
        seq=draw(WORDS), ack=draw(WORDS), flags=draw(st.integers(0, 255)), window=draw(st.integers(0, 65535)),
        options=draw(OPTIONS), tags=draw(TAGS), stripped=draw(st.one_of(st.none(), st.integers(0, 65535))),
        length=draw(st.integers(0, 200_000 if big else 65_000)), big=big, hops=hops,
        ip_options=b"" if six else bytes(4 * draw(st.integers(0, 10))),
        hatype=draw(st.sampled_from([ETHERNET, LOOPBACK, NONE])),
        pad=0 if big else draw(st.integers(0, 46)), ts_ns=START + draw(st.integers(0, 10_000_000_000)),
        ifindex=draw(st.integers(0, 1000)), outgoing=draw(st.booleans()),
    )  # fmt: skip


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """Blocks cut short, with wrong bytes in their headers, or of nothing but bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=400))
    frames = [each.frame() for each in draw(st.lists(segments(), max_size=5))]
    snap = draw(st.sampled_from([0, 13, 20, 54, 96, 112, 200]))
    frames = [
        replace(
            frame.cut(snap), more=draw(st.dictionaries(st.sampled_from(["captured", "mac", "net"]), PORTS, max_size=1))
        )
        for frame in frames
    ]
    data = bytearray(block(frames, tail=draw(st.integers(0, 20))))
    for at in draw(st.lists(st.integers(0, len(data) - 1), max_size=6)):
        data[at] = draw(st.sampled_from([0, 1, 6, 0x45, 0x4F, 0x60, 0x81, 0xFF, 68]))
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])
