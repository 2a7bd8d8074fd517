from __future__ import annotations

import asyncio
import itertools
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings import Limits, Settings, Timeouts
from tests.rig import GET, OK, rig

LIMITS = Limits(request_line=100, head=512, fields=10)


@given(st.lists(st.integers(1, len(GET) * 2), max_size=12))
def test_heads_in_any_pieces(cuts: list[int]) -> None:
    data = GET * 3
    places = sorted({0, len(data), *cuts})
    with rig() as r:
        client = r.client()
        upstream = None
        for one, other in itertools.pairwise(places):
            r.send(client, data[one:other])
            if upstream is None and r.dials:
                upstream = r.upstream()
            while upstream is not None and upstream.take():
                r.send(upstream, OK)
        assert client.take() == OK * 3
        assert len(r.recorded) == 3
        client.lose()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n" + GET, 200),
        (b"\r\n\r\n" + GET, 400),
        (b"\n" + GET, 400),
        (b"\r", 0),
        (b"\r\n", 0),
        (b"\r\n\r", 400),
        (b"GET /" + b"x" * 100, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 600, 431),
        (b"GET / HTTP/1.1\r\nX: \0", 400),
        (b"GET / HTTP/1.1\nHost: a.test\n\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS on the plain port
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_the_beginning_of_a_connection(data: bytes, status: int, whole: bool) -> None:
    with rig(Settings(limits=LIMITS)) as r:
        client = r.client()
        for piece in [data] if whole else [data[at : at + 1] for at in range(len(data))]:
            if not client.gone:
                r.send(client, piece)
        if r.dials:
            r.send(r.upstream(), OK)
        answer = client.take()
        assert (int(answer[9:12]) if answer else 0) == status
        assert len(r.recorded) == bool(status)


def test_a_refusal_tells_the_record_what_can_be_told() -> None:
    with rig() as r:
        r.client(b"GET /secret?a=1 HTTP/1.1\r\nBad Line\r\n\r\n")
        r.client(b"G\x01T /\x02 HTTP/1.1\r\n\r\n")
        one, other = r.recorded
        assert (one.method, one.path, one.status, one.error_type) == (b"GET", b"/secret", 400, "bad_request")
        assert (other.method, other.path) == (b"", b"")
        assert any(one.trace_id)


def test_a_slow_head_is_answered_and_an_idle_connection_is_not() -> None:
    with rig(Settings(timeouts=Timeouts(head=10.0, idle=30.0))) as r:
        slow, idle = r.client(GET[:20]), r.client()
        r.send(slow, GET[20:25])
        r.pass_time(11)
        assert slow.take().startswith(b"HTTP/1.1 408 ")
        assert not idle.closing
        r.pass_time(20)
        assert idle.gone
        assert not idle.sent
        assert [(each.status, each.error_type) for each in r.recorded] == [(408, "request_timeout")]


def test_drops_of_a_head_do_not_extend_its_time() -> None:
    with rig(Settings(timeouts=Timeouts(head=10.0))) as r:
        client = r.client(GET[:10])
        for at in range(10, 20):
            r.pass_time(2)
            if not client.gone and not client.closing and not client.eof:
                r.send(client, GET[at : at + 1])
        assert client.take().startswith(b"HTTP/1.1 408 ")


def test_a_slow_body_is_answered() -> None:
    with rig(Settings(timeouts=Timeouts(body=10.0))) as r:
        client = r.client(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nab")
        upstream = r.upstream()
        r.pass_time(8)
        r.send(client, b"cd")
        r.pass_time(8)
        assert not client.sent
        r.pass_time(8)
        assert client.take().startswith(b"HTTP/1.1 408 ")
        assert upstream.aborted
        r.check(at_rest=True)


def test_the_time_of_a_second_head_begins_with_its_first_byte() -> None:
    with rig(Settings(timeouts=Timeouts(head=10.0, idle=60.0))) as r:
        client, upstream = r.exchange(GET)
        client.take()
        r.pass_time(40)
        r.send(client, GET[:9])
        r.pass_time(9)
        assert not client.sent
        r.send(client, GET[9:])
        r.send(upstream, OK)
        assert client.take() == OK


def test_a_gentle_close_ends() -> None:
    """Our end first, then whatever the client still sends is dropped, for a time and up to a size."""
    with rig() as r:
        one, other, third = (r.client(b"BAD\r\n\r\n" + b"x" * 10) for _ in range(3))
        for client in (one, other, third):
            assert client.eof
            assert not client.closing
        r.send(one, b"x" * (1024 * 1024 + 1))
        assert one.aborted
        other.end()
        r.settle()
        assert other.gone
        r.pass_time(3)
        assert third.gone
        assert not third.late


def test_a_clean_close_is_quick() -> None:
    with rig() as r:
        client = r.client(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        r.send(r.upstream(), OK)
        r.settle()
        assert client.gone
        assert not client.aborted


@pytest.mark.parametrize("count", [1, 2])
def test_an_end_between_requests_is_a_clean_end(count: int) -> None:
    with rig() as r:
        client, _ = r.exchange(GET)
        if count == 2:
            client.end()
        else:
            client.lose()
        r.settle()
        assert client.gone
        assert len(r.recorded) == 1
        assert not r.worker.downstreams


def test_an_empty_line_behind_a_request_is_no_request() -> None:
    """Old clients send one behind a body (RFC 9112 section 2.2)."""
    with rig(Settings(timeouts=Timeouts(head=10.0, idle=60.0))) as r:
        client, _ = r.exchange(GET)
        assert client.take() == OK
        r.send(client, b"\r\n")
        r.pass_time(20)
        assert not client.sent
        client.lose()
        assert len(r.recorded) == 1


@given(st.binary(max_size=300), st.integers(1, 300))
def test_any_bytes_end_in_a_record_or_in_nothing(data: bytes, size: int) -> None:
    with rig(Settings(limits=LIMITS)) as r:
        client = r.client()
        for at in range(0, len(data), size):
            if not client.gone:
                r.send(client, data[at : at + size])
        client.lose()
        assert len(r.recorded) == bool(data.removeprefix(b"\r\n").removeprefix(b"\r"))
        r.check(at_rest=True)


def test_the_address_of_a_proxy_protocol_header_stands_for_the_client() -> None:
    from proxy.accept.downstream import Downstream

    with rig() as r:
        client = r.client()
        named = Downstream(r.worker, "http", ("192.0.2.7", 4711))
        client.protocol.connection_lost(None)
        client.protocol = named
        named.connection_made(cast("asyncio.Transport", client))
        assert (named.client_address, named.client_port, named.peer_address) == ("192.0.2.7", 4711, "127.0.0.1")
        assert not named.trusted
        client.lose()


def test_what_fails_at_the_end_leaves_no_descriptor_open() -> None:
    """A probe holds a duplicate of the connection's socket."""
    with rig() as r:
        client = r.client()
        r.send(client, b"GET / HTTP/1.1\r\n")

        class Probe:
            closed = False

            def close(self) -> None:
                self.closed = True

        class Failing:
            def client_gone(self) -> None:
                raise RuntimeError("not thought of")

        downstream, probe = client.protocol, Probe()
        downstream.probe, downstream.exchange = probe, Failing()
        with pytest.raises(RuntimeError, match="not thought of"):
            downstream.connection_lost(None)
        assert probe.closed
        downstream.exchange = None
