"""Pieces of an open batch, in either form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.trace.segments import SIZE, Segments

BLOBS = st.lists(
    st.one_of(st.binary(max_size=40), st.integers(0, 3 * SIZE).map(lambda size: b"%d" % (size % 10) * size)), max_size=9
)


@given(st.lists(BLOBS, max_size=4))
def test_what_comes_out_is_what_went_in_in_pieces_of_one_size(batches: list[list[bytes]]) -> None:
    segments = Segments()
    for blobs in batches:
        for blob in blobs:
            segments.add(blob)
        whole = b"".join(blobs)
        assert segments.size == len(whole)
        assert repr(segments) == f"Segments({len(whole)} bytes)"
        pieces = segments.take()
        assert b"".join(pieces) == whole
        assert [len(piece) for piece in pieces] == [len(whole[at : at + SIZE]) for at in range(0, len(whole), SIZE)]
        assert segments.size == 0
        assert segments.take() == []


def test_pieces_that_were_taken_are_not_written_to_any_more() -> None:
    segments = Segments()
    segments.add(b"first")
    (first,) = segments.take()
    segments.add(b"other")
    assert (first, segments.take()) == (b"first", [b"other"])
