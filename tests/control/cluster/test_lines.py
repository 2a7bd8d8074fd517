from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.control.cluster.lines import Lines


def fed(lines: Lines, *pieces: bytes) -> list[bytes]:
    return [line for piece in pieces for line in lines.feed(piece)]


def test_lines_come_whole_however_the_bytes_come() -> None:
    assert fed(Lines(), b'{"a":1}\n{"b"', b":2}", b"\n", b"\n \n{}\n") == [b'{"a":1}', b'{"b":2}', b"{}"]


@given(st.lists(st.binary(max_size=20).map(lambda one: one.replace(b"\n", b"")), max_size=10), st.data())
def test_any_cut_gives_the_same_lines(texts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(text + b"\n" for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(Lines(), *pieces) == [text for text in texts if text.strip()]


def test_a_line_that_is_too_long_is_dropped_and_counted_and_the_next_one_taken() -> None:
    lines = Lines(8)
    assert fed(lines, b"12345678\n", b"123456789\n", b"ok\n") == [b"12345678", b"ok"]
    assert lines.dropped == 1


def test_a_line_that_never_ends_costs_no_more_than_the_bound() -> None:
    lines = Lines(1000)
    for _ in range(10_000):
        assert fed(lines, b"x" * 999) == []
    assert lines.dropped == 1
    assert repr(lines) == "Lines(0 bytes held, 1 dropped)"
    assert fed(lines, b"the end\n", b"more\n") == [b"more"]
