from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.errors import Fault, Kind
from proxy.http1.chunked import ChunkedReader, chunk, last_chunk
from proxy.http1.framing import CHUNKED
from proxy.relay.upload import REPLAYED, Upload

bodies = st.lists(st.binary(min_size=1, max_size=50), max_size=6)


def cuts(data: bytes, at: list[int]) -> list[bytes]:
    """``data`` in pieces."""
    places = sorted({min(each, len(data)) for each in at} | {0, len(data)})
    return [data[one:other] for one, other in itertools.pairwise(places)]


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=20), st.lists(st.integers(0, 220)))
def test_a_sized_body_in_any_pieces(body: bytes, behind: bytes, at: list[int]) -> None:
    upload = Upload(len(body), 0, 0, False)
    wire = rest = b""
    for piece in cuts(body + behind, at):
        if upload.done:
            rest += piece
            continue
        wire += upload.take(piece)
        rest += upload.rest
        assert upload.size + upload.left == len(body)
        assert upload.so_far() == wire
    assert (wire, rest, upload.done, upload.size) == (body, behind, True, len(body))


@given(bodies, st.booleans(), st.booleans(), st.binary(max_size=20), st.lists(st.integers(0, 500)))
def test_a_chunked_body_in_any_pieces(
    chunks: list[bytes], sends_trailer: bool, wants_trailers: bool, behind: bytes, at: list[int]
) -> None:
    trailer = [b"X-Checksum: 1"] if sends_trailer else []
    sent = b"".join(chunk(each) for each in chunks) + last_chunk(trailer)
    upload = Upload(CHUNKED, 0, 0, wants_trailers)
    wire = rest = b""
    for piece in cuts(sent + behind, at):
        if upload.done:
            rest += piece
            continue
        wire += upload.take(piece)
        rest += upload.rest
    reader = ChunkedReader(0)
    assert reader.feed(wire) == b"".join(chunks)
    assert reader.done
    assert reader.rest == b""
    assert reader.trailers == (trailer if wants_trailers else [])
    assert (rest, upload.size, upload.left) == (behind, len(b"".join(chunks)), 0)
    assert upload.so_far() == wire


@given(bodies, st.integers(1, 300), st.lists(st.integers(0, 500)))
def test_the_limit_of_a_chunked_body_is_exact(chunks: list[bytes], limit: int, at: list[int]) -> None:
    total = len(b"".join(chunks))
    assume(total)
    upload = Upload(CHUNKED, limit, 0, False)
    wire = b""
    try:
        for piece in cuts(b"".join(chunk(each) for each in chunks) + last_chunk([]), at):
            wire += upload.take(piece)
    except Fault as fault:
        assert fault.kind is Kind.BODY_TOO_LARGE  # noqa: PT017 - either way is right
        assert total > limit
        assert len(wire) <= limit + 10 * len(chunks) * (len(at) + 2)  # nothing beyond the limit went on
    else:
        assert total <= limit
        assert upload.done


def test_too_large_a_chunk_is_refused_by_its_size() -> None:
    upload = Upload(CHUNKED, 100, 0, False)
    with pytest.raises(Fault, match="over 100 bytes"):
        upload.take(b"65\r\n")


@pytest.mark.parametrize(("length", "fits"), [(99, True), (100, True), (101, False)])
def test_the_limit_of_a_sized_body(length: int, fits: bool) -> None:
    if fits:
        assert Upload(length, 100, 0, False).left == length
    else:
        with pytest.raises(Fault) as caught:
            Upload(length, 100, 0, False)
        assert caught.value.kind is Kind.BODY_TOO_LARGE


def test_zero_is_no_limit() -> None:
    assert Upload(1 << 50, 0, 0, False).left == 1 << 50


@pytest.mark.parametrize("size", [REPLAYED, REPLAYED + 1])
def test_only_a_small_body_is_kept_once_it_was_sent(size: int) -> None:
    upload = Upload(size + 10, 0, 0, False)
    upload.take(b"x" * (size - 1))
    upload.sent()
    assert upload.replayable
    upload.take(b"x")
    assert upload.so_far() == b"x" * size  # not sent yet: the first attempt itself needs all of it
    upload.sent()
    assert upload.replayable == (size <= REPLAYED)
    kept = size <= REPLAYED
    assert upload.so_far() == b"x" * size * kept
    upload.take(b"y")
    assert upload.so_far() == (b"x" * size + b"y") * kept


def test_repr_counts() -> None:
    upload = Upload(10, 0, 0, False)
    upload.take(b"1234")
    assert repr(upload) == "Upload(4 bytes, 6 left)"
