"""The bench's collector: what it is sent it counts, in any pieces, and it holds no more than it has room for."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure.sink import HEAD, Counter, Http
from proxy.trace.batch import resource_spans
from tests.trace.spans import RESOURCE, SCOPE, blob, span

KEPT = 8192  # bytes


class Peer:
    """The transport of a connection that the sink has."""

    def __init__(self) -> None:
        self.answers = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        self.answers += 1

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def call(spans: int) -> bytes:
    return resource_spans(RESOURCE, SCOPE, [blob(*(span(1, number) for number in range(spans)))])


def posted(body: bytes) -> bytes:
    return b"POST /v1/traces HTTP/1.1\r\nHost: sink\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def connected(counter: Counter) -> tuple[Http, Peer]:
    http, peer = Http(counter), Peer()
    http.connection_made(cast("asyncio.BaseTransport", peer))
    return http, peer


def feed(http: Http, data: bytes, pieces: int) -> None:
    while data:
        room = http.get_buffer(-1)
        size = min(pieces, len(room), len(data))
        assert size
        room[:size] = data[:size]
        http.buffer_updated(size)
        data = data[size:]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=9), st.integers(1, 5000))
async def test_every_span_is_counted(batches: list[int], pieces: int) -> None:
    counter = Counter(kept=KEPT)
    http, peer = connected(counter)
    for spans in batches:  # some are larger than all that it keeps
        feed(http, posted(call(spans)), pieces)
    assert peer.answers == len(batches)
    assert counter.counts() == [sum(batches), sum(len(call(spans)) for spans in batches), len(batches)]
    assert counter._used == counter._open == 0


async def test_what_was_cut_leaves_its_room_to_others() -> None:
    counter = Counter(kept=KEPT)
    for _ in range(20):
        http, _ = connected(counter)
        feed(http, posted(call(40))[:-1], KEPT)
        http.connection_lost(None)
    feed(connected(counter)[0], posted(call(7)), KEPT)
    assert counter.counts()[0] == 7
    assert counter._open == 0


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nHost: sink\r\n\r\n", b"x" * HEAD])
async def test_what_says_no_length_ends_the_connection(head: bytes) -> None:
    http, peer = connected(Counter(kept=KEPT))
    feed(http, head, HEAD)
    assert peer.aborted
