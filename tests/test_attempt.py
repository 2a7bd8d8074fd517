from __future__ import annotations

import pytest

from proxy.settings import Settings
from tests.rig import GET, OK, Rig, Wire, rig, table

NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\nETag: 1\r\nContent-Length: 9\r\n\r\n"
TWO = (9001, 9002)
POST = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n"


def status(wire: Wire) -> int:
    data = wire.take()
    return int(data[9:12]) if data else 0


def warm(r: Rig) -> tuple[Wire, Wire]:
    """A client whose next request goes out on a reused connection."""
    client, upstream = r.exchange(GET)
    client.take()
    upstream.take()
    return client, upstream


# Another attempt.


def test_a_refused_connection_is_tried_elsewhere() -> None:
    with rig(spec=table(ports=TWO)) as r:
        client = r.client(POST + b"hello")
        (first,) = r.dials
        first.fail()
        (second,) = r.dials
        assert second.port != first.port
        upstream = second.accept()
        assert upstream.take().endswith(b"\r\n\r\nhello")
        r.send(upstream, OK)
        assert client.take() == OK
        assert r.recorded[0].attempts == [(0, "connect_failed", 0, False), (200, "", 1, False)]


def test_attempts_are_bounded_by_route_and_setting() -> None:
    for tries, most in ((2, 3), (3, 2)):
        with rig(Settings(retry_tries=most), table(tries=tries)) as r:
            client = r.client(GET)
            while r.dials:
                r.dials[0].fail()
            assert status(client) == 502
            assert len(r.recorded[0].attempts) == 2


def test_a_reused_connection_that_died_is_tried_again_on_a_new_one() -> None:
    """The race of RFC 9112 section 9.3.1: not the endpoint's fault, and the other old ones are suspect too."""
    with rig() as r:
        client, upstream = warm(r)
        r.send(client, GET)
        upstream.end()
        r.settle()
        (dial,) = r.dials
        fresh = dial.accept()
        r.send(fresh, OK)
        assert client.take() == OK
        assert r.recorded[1].attempts == [(0, "upstream_reset", 0, True), (200, "", 1, False)]
        assert r.endpoints[0].errors == 0


@pytest.mark.parametrize(
    ("method", "again"), [(b"GET", True), (b"PUT", True), (b"POST", False), (b"PATCH", False), (b"FOO", False)]
)
def test_what_may_have_arrived_is_sent_again_only_if_that_is_safe(method: bytes, again: bool) -> None:
    with rig() as r:
        client, upstream = warm(r)
        r.send(client, b"%b / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi" % method)
        upstream.lose(ConnectionResetError(104, "reset"))
        r.settle()
        assert bool(r.dials) == again
        if again:
            upstream = r.upstream()
            assert upstream.take().endswith(b"\r\n\r\nhi")
            r.send(upstream, OK)
        assert status(client) == (200 if again else 502)


def test_nothing_is_tried_again_once_the_upstream_spoke() -> None:
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        r.send(upstream, b"HTTP/1.1 2")
        upstream.lose()
        r.settle()
        assert status(client) == 502
        assert r.recorded[0].error_type == "bad_response"
        assert len(r.recorded[0].attempts) == 1


def test_a_large_body_is_not_tried_again() -> None:
    with rig(spec=table(body_limit=0)) as r:
        client = r.client(b"PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000)
        r.upstream().lose(ConnectionResetError(104, "reset"))
        r.settle()
        assert r.dials == []
        assert status(client) == 502


def test_a_body_that_still_comes_goes_to_the_second_attempt() -> None:
    with rig() as r:
        client = r.client(b"PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nabc")
        first = r.upstream()
        r.send(client, b"def")
        first.lose(ConnectionResetError(104, "reset"))
        r.settle()
        second = r.upstream()
        r.send(client, b"ghi")
        assert second.take().endswith(b"\r\n\r\nabcdefghi")
        r.send(second, OK)
        assert status(client) == 200


def test_a_timeout_is_tried_elsewhere_or_not_at_all() -> None:
    for ports in ((9001,), TWO):
        with rig(spec=table(ports=ports, read_timeout=10.0)) as r:
            client = r.client(GET)
            r.upstream()
            r.pass_time(11)
            assert bool(r.dials) == (len(ports) > 1)
            if r.dials:
                r.send(r.upstream(), OK)
            assert status(client) == (200 if len(ports) > 1 else 504)


def test_no_endpoint() -> None:
    with rig(spec=table(ports=())) as r:
        client = r.client(GET)
        assert status(client) == 503
        assert (r.recorded[0].error_type, r.recorded[0].attempts) == ("no_endpoint", [])


def test_the_attempts_body_is_the_same_each_time() -> None:
    """Head and trace context differ by the parent's span id only."""
    with rig() as r:
        r.client(GET)
        first = r.upstream()
        one = first.take()
        first.lose(ConnectionResetError(104, "reset"))
        r.settle()
        second = r.upstream()
        other = second.take()
        differing = [pair for pair in zip(one.split(b"\r\n"), other.split(b"\r\n"), strict=True) if pair[0] != pair[1]]
        assert {pair[0].partition(b":")[0] for pair in differing} <= {b"traceparent", b"uber-trace-id"}
        assert all(pair[0][:46] == pair[1][:46] for pair in differing if pair[0].startswith(b"traceparent"))
        r.send(second, OK)


# The response.


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("response", "got"),
    [
        (OK, OK),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
            b"ok",
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n" + OK,
            b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n" + OK,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (NOT_MODIFIED, NOT_MODIFIED),
    ],
)  # fmt: skip
def test_a_response_in_any_pieces(response: bytes, got: bytes, size: int) -> None:
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        for at in range(0, len(response), size):
            r.send(upstream, response[at : at + size])
        answer = client.take()
        if b"chunked" in response:
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"
            assert b"".join(body.split(b"\r\n")[1::2]) == got
            assert body.endswith(b"0\r\n\r\n")
        else:
            assert answer.endswith(got)
        assert upstream.protocol.pool.idle == [upstream.protocol]


def test_a_body_without_length_ends_with_the_connection() -> None:
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        r.send(upstream, b"HTTP/1.1 200 OK\r\n\r\nab")
        r.send(upstream, b"cd")
        upstream.end()
        r.settle()
        assert client.take() == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
        assert upstream.gone
        assert not client.closing


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", "response_cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "response_cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabXX", "response_cut"),
        (b"HTTP/1.1 200 OK\r\n\r\nab", "response_cut"),
    ],
)
def test_a_response_that_is_cut_is_seen_to_be(response: bytes, error: str) -> None:
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        r.send(upstream, response[:-2])
        r.send(upstream, response[-2:])
        if not upstream.gone:
            upstream.lose(ConnectionResetError(104, "reset"))
        r.settle()
        assert client.aborted
        assert not client.take().endswith(b"0\r\n\r\n")
        (recorded,) = r.recorded
        assert (recorded.status, recorded.error_type) == (200, error)
        assert r.endpoints[0].errors == 1


def test_an_answer_to_an_unfinished_upload() -> None:
    """The response is whole and goes out; the upload's rest is dropped, and neither connection is used again."""
    with rig(spec=table(body_limit=0)) as r:
        client = r.client(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nabc")
        upstream = r.upstream()
        r.send(upstream, b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        assert b"413 " in client.take()
        assert upstream.closing
        assert client.eof
        r.send(client, b"x" * 1000)
        assert not client.late
        r.check(at_rest=True)


def test_the_small_rest_of_an_upload_is_read_and_dropped() -> None:
    with rig() as r:
        client = r.client(POST + b"he")
        upstream = r.upstream()
        r.send(upstream, OK)
        assert client.take() == OK
        r.send(client, b"llo" + GET)
        assert r.dials  # the old connection may not be used again: its request was never finished
        second = r.upstream()
        assert second.take().startswith(b"GET / ")
        r.send(second, OK)
        assert client.take() == OK


def test_bytes_behind_a_response_spoil_the_connection() -> None:
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        r.send(upstream, OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!")
        assert client.take() == OK
        assert upstream.closing
        r.send(client, GET)
        assert r.dials
        r.send(r.upstream(), OK)


def test_too_many_interim_responses() -> None:
    with rig() as r:
        client = r.client(GET)
        r.send(r.upstream(), b"HTTP/1.1 102 Processing\r\n\r\n" * 17)
        assert client.take().count(b"HTTP/1.1 102") == 16
        assert r.recorded[0].error_type == "bad_response"


def test_http_1_0_gets_no_interim_and_no_chunks() -> None:
    with rig(spec=table(host="")) as r:
        client = r.client(b"GET / HTTP/1.0\r\n\r\n")
        r.send(
            r.upstream(),
            b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        )
        assert client.take() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"
        assert client.closing


def test_offsets_name_each_requests_bytes_within_the_connection() -> None:
    with rig() as r:
        attempts = []
        record = r.worker.record

        def remember(exchange: object) -> None:
            attempts.extend(exchange.attempts)  # type: ignore[attr-defined] # an Exchange
            record(exchange)  # type: ignore[arg-type]

        r.worker.record = remember  # type: ignore[method-assign] # to see what the encoder sees
        client = r.client(GET)
        upstream = r.upstream()
        r.send(upstream, OK)
        sent = [len(upstream.take())]
        r.send(client, POST)
        r.send(client, b"hello")
        r.send(upstream, OK)
        sent.append(len(upstream.take()))
        one, other = attempts
        assert (one.request_start, one.request_end, one.response_start, one.response_end) == (0, sent[0], 0, len(OK))
        assert (other.request_start, other.request_end) == (sent[0], sum(sent))
        assert (other.response_start, other.response_end) == (len(OK), 2 * len(OK))
        for each in attempts:
            assert each.start_ns <= each.write_ns <= each.sent_ns <= each.first_byte_ns <= each.end_ns
