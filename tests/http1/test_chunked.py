"""The chunked coding: whole, byte by byte, and hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Fault, Kind
from proxy.http1.chunked import ChunkedReader, chunk, last_chunk

MOST = 4096


def feed(data: bytes, step: int = 0) -> tuple[bytes, ChunkedReader]:
    reader = ChunkedReader(MOST)
    if not step:
        return reader.feed(data), reader
    payload = b""
    for start in range(0, len(data), step):
        if reader.done:
            reader.rest += data[start : start + step]
        else:
            payload += reader.feed(data[start : start + step])
    return payload, reader


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_reads(step: int) -> None:
    payload, reader = feed(b'5\r\nhello\r\n6;a=b;c="d\\"e"\r\n world\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\nNEXT', step)
    assert payload == b"hello world"
    assert reader.done
    assert reader.trailers == [b"X-Sum: 1"]
    assert reader.rest == b"NEXT"


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 20))
def test_round_trip(pieces: list[bytes], step: int) -> None:
    wire = b"".join(chunk(piece) for piece in pieces) + last_chunk([b"A: b"])
    payload, reader = feed(wire + b"more", step)
    assert payload == b"".join(pieces)
    assert (reader.done, reader.trailers, reader.rest) == (True, [b"A: b"], b"more")


BAD = [
    b"0x5\r\nhello\r\n",
    b"5_\r\nhello\r\n",
    b"+5\r\nhello\r\n",
    b"-1\r\n",
    b" 5\r\nhello\r\n",
    b"\r\n",
    b"10000000000000000\r\n",
    b"g\r\n",
    b"5\nhello\r\n",
    b"5\r\nhelloX\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5;\r\nhello\r\n",
    b"5;=\r\nhello\r\n",
    b"5; a b\r\nhello\r\n",
    b'5;a="b\r\nhello\r\n',
    b"5;a\0\r\nhello\r\n",
    b"5;a\nb\r\nhello\r\n",
    b"5 x\r\nhello\r\n",
    b"5;" + b"a" * 5000 + b"\r\nhello\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\nA : b\r\n\r\n",
    b"0\r\n folded: b\r\n\r\n",
    b"0\r\nA: b\x01\r\n\r\n",
    b"0\r\n" + b"A: b\r\n" * 40 + b"\r\n",
    b"0\r\nA: " + b"b" * 9000,
]


@pytest.mark.parametrize("data", BAD)
@pytest.mark.parametrize("step", [0, 1])
def test_refuses(data: bytes, step: int) -> None:
    with pytest.raises(Fault) as caught:
        feed(data, step)
    assert caught.value.kind is Kind.BAD_FRAMING


def test_extensions_are_bounded_over_the_whole_message() -> None:
    with pytest.raises(Fault):
        feed(b"1;aaaaaaaaaa\r\nx\r\n" * 1000)


@given(st.binary(max_size=300), st.integers(1, 40))
def test_whole_and_in_pieces_agree(data: bytes, step: int) -> None:
    def outcome(by: int) -> tuple[object, ...]:
        try:
            payload, reader = feed(data, by)
        except Fault:
            return ("fault",)
        return (payload, reader.done, reader.rest if reader.done else b"")

    whole, pieces = outcome(0), outcome(step)
    if pieces == ("fault",):
        # In pieces a hopeless line may be refused before its end arrives; whole, it may still wait for that end.
        assert whole == ("fault",) or whole[1] is False
    else:
        assert whole == pieces


def test_trailers_that_change_meaning_are_dropped() -> None:
    names = (
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Authorization: x",
        b"X-Forwarded-For: 1",
        b"traceparent: x",
    )
    _, reader = feed(b"0\r\n" + b"\r\n".join(names) + b"\r\nOk: 1\r\n\r\n")
    assert reader.trailers == [b"Ok: 1"]
