from __future__ import annotations

import gc
import math
from collections.abc import Callable

import pytest

from proxy.accept.downstream import Downstream
from proxy.attempt import Attempt
from proxy.connect.connection import Upstream
from proxy.exchange import Exchange
from proxy.relay.upload import REPLAYED, Upload
from proxy.settings import Limits, Settings, Tracing
from proxy.tunnel import Tunnel
from tests.rig import GET, OK, Rig, Wire, rig, table

POST = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def status(wire: Wire) -> int:
    """The status of the one response that ``wire`` has got since the last look; 0 for none."""
    data = wire.take()
    return int(data[9:12]) if data else 0


def test_one_request_one_record() -> None:
    with rig() as r:
        client, upstream = r.exchange(GET)
        assert client.take() == OK
        (recorded,) = r.recorded
        assert (recorded.status, recorded.error_type, recorded.attempts) == (200, "", [(200, "", 0, False)])
        assert upstream.protocol.pool.idle == [upstream.protocol]
        r.check(at_rest=True)


def test_head_and_first_body_bytes_leave_in_one_write() -> None:
    with rig() as r:
        client = r.client(POST % 5 + b"hello")
        upstream = r.upstream()
        r.send(upstream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        assert (upstream.writes, client.writes) == (1, 1)
        assert upstream.take().endswith(b"\r\n\r\nhello")


# Memory: what a request leaves behind.

_ENDINGS: dict[str, Callable[[Rig], None]] = {}


def ending(function: Callable[[Rig], None]) -> Callable[[Rig], None]:
    _ENDINGS[function.__name__] = function
    return function


@ending
def answered(r: Rig) -> None:
    r.exchange(GET)


@ending
def answered_in_pieces(r: Rig) -> None:
    client = r.client(CHUNKED + b"3\r\nabc\r\n")
    upstream = r.upstream()
    r.send(client, b"0\r\n\r\n")
    for at in range(len(OK)):
        r.send(upstream, OK[at : at + 1])


@ending
def refused_connection(r: Rig) -> None:
    r.client(GET)
    while r.dials:
        r.dials[0].fail()


@ending
def unknown_name(r: Rig) -> None:
    r.worker.apply(table(2, address="nowhere.test"))
    r.client(GET)
    assert r.recorded[-1].error_type == "dns_failed"


@ending
def upstream_reset(r: Rig) -> None:
    r.client(GET)
    while r.dials:
        r.upstream().lose(ConnectionResetError(104, "reset"))
        r.settle()


@ending
def client_left(r: Rig) -> None:
    client = r.client(GET)
    r.upstream()
    client.lose()


@ending
def client_left_while_connecting(r: Rig) -> None:
    client = r.client(GET)
    client.lose()
    r.upstream()


@ending
def malformed_head(r: Rig) -> None:
    r.client(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")


@ending
def malformed_body(r: Rig) -> None:
    r.client(CHUNKED + b"zz\r\n")


@ending
def malformed_response(r: Rig) -> None:
    r.exchange(GET, b"HTTP/1.1 nonsense\r\n\r\n")


@ending
def upstream_timeout(r: Rig) -> None:
    r.client(GET)
    r.upstream()
    r.pass_time(100)
    r.pass_time(100)


@ending
def tunnel(r: Rig) -> None:
    client, upstream = r.exchange(UPGRADE, SWITCHING)
    r.send(client, b"ping")
    r.send(upstream, b"pong")
    upstream.end()
    client.end()


@ending
def tunnel_cut(r: Rig) -> None:
    client, _ = r.exchange(UPGRADE, SWITCHING)
    client.lose()


@pytest.mark.parametrize("name", sorted(_ENDINGS))
def test_nothing_waits_for_the_garbage_collector(name: str) -> None:
    """Reference counts free a request the moment it ends: no cycle is left, however it ended."""
    ours = (Exchange, Attempt, Upload, Tunnel, Upstream, Downstream)
    with rig() as r:
        _, warm = r.exchange(GET)  # whatever is made once
        warm.lose()
        before = {id(each) for each in gc.get_objects() if isinstance(each, ours)}
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            _ENDINGS[name](r)
            r.settle()
            for wire in (*r.clients, *r.loop.wires):
                if not wire.gone and not wire.closing:
                    wire.lose()
                wire.flush()
                wire.protocol = None
            r.settle()
            r.loop.dials.clear()
            left = [each for each in gc.get_objects() if isinstance(each, ours) and id(each) not in before]
            assert left == [], left
            gc.collect()
            garbage = [each for each in gc.garbage if isinstance(each, ours)]
            assert garbage == [], garbage
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        r.check(at_rest=True)
        assert len(r.recorded) == 2


# Backpressure.


def test_a_slow_client_stops_the_upstream_and_only_while_it_is_slow() -> None:
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        client.full = True
        r.send(upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        assert not upstream.reading
        assert upstream.protocol.deadline == math.inf  # its silence is our own wish
        assert client.protocol.deadline < math.inf
        client.flush()
        r.settle()
        assert upstream.reading
        assert upstream.protocol.deadline < math.inf
        r.send(upstream, b"cd")
        assert client.take().endswith(b"abcd")
        r.check(at_rest=True)


def test_a_slow_upstream_stops_the_client_and_only_while_it_is_slow() -> None:
    with rig() as r:
        client = r.client(POST % 6 + b"ab")
        upstream = r.upstream()
        upstream.full = True
        r.send(client, b"cd")
        assert not client.reading
        assert client.protocol.deadline == math.inf
        assert upstream.protocol.deadline < math.inf
        upstream.flush()
        r.settle()
        assert client.reading
        assert client.protocol.deadline < math.inf
        r.send(client, b"ef")
        assert upstream.take().endswith(b"abcdef")
        r.send(upstream, OK)
        r.check(at_rest=True)


def test_a_client_that_sends_ahead_is_held_back_while_there_is_no_connection() -> None:
    with rig(spec=table(body_limit=0)) as r:
        client = r.client(POST % 1_000_000)
        r.send(client, b"x" * REPLAYED)
        assert client.reading
        r.send(client, b"x")
        assert not client.reading
        upstream = r.upstream()
        assert client.reading
        assert upstream.take().endswith(b"x" * (REPLAYED + 1))
        client.lose()


def test_the_end_of_a_slow_answer_is_when_the_client_has_it() -> None:
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        client.full = True
        r.send(upstream, OK)
        assert not r.recorded
        assert upstream.protocol.borrower is None  # and it does not wait for the client
        assert upstream.protocol.pool.idle == [upstream.protocol]
        assert upstream.reading
        client.flush()
        assert [each.status for each in r.recorded] == [200]
        r.send(client, GET)
        assert upstream.take().startswith(b"GET / ")
        client.lose()


def test_a_client_that_does_not_take_the_end_is_cut() -> None:
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        client.full = True
        r.send(upstream, OK)
        r.pass_time(61)
        assert client.aborted
        (recorded,) = r.recorded
        assert (recorded.status, recorded.error_type) == (200, "client_stalled")


def test_a_client_that_stalls_while_it_uploads_is_cut() -> None:
    """The end of the upload does not take the deadline of the answer away, nor blames the upstream we do not read."""
    with rig(spec=table(read_timeout=10.0)) as r:
        client = r.client(POST % 4 + b"ab")
        upstream = r.upstream()
        client.full = True
        r.send(upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab")
        r.send(client, b"cd")
        r.pass_time(20)
        assert not upstream.reading
        assert not client.closing
        r.pass_time(41)
        assert client.aborted
        assert [each.error_type for each in r.recorded] == ["client_stalled"]
        assert r.endpoints[0].errors == 0
        r.check(at_rest=True)


def test_a_client_that_does_not_read_an_interim_response_is_cut() -> None:
    """It is stalled, not slow to send; and the answer that says so cannot wait for ever in its turn."""
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        client.full = True
        r.send(upstream, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        for _ in range(3):
            r.pass_time(61)
        assert client.gone
        assert [each.error_type for each in r.recorded] == ["client_stalled"]
        r.check(at_rest=True)


def test_a_fault_behind_a_slow_client_ends_in_time() -> None:
    """An answer of our own is bounded like any other while the client does not take it."""
    with rig() as r:
        client = r.client(GET)
        upstream = r.upstream()
        client.full = True
        r.send(upstream, b"nonsense\r\n\r\n")
        for _ in range(3):
            r.pass_time(61)
        assert client.gone
        assert [(each.status, each.error_type) for each in r.recorded] == [(502, "client_stalled")]


@pytest.mark.parametrize(
    "head",
    [POST % 999_999_999, POST % 5 + b"", b"POST / HTTP/1.1\r\nHost: a.test\r\nExpect: x\r\nContent-Length: 5\r\n\r\n"],
)
def test_a_refused_body_keeps_coming_while_the_client_does_not_read(head: bytes) -> None:
    with rig(spec=table(body_limit=4)) as r:
        client = r.client()
        client.full = True
        r.send(client, head)
        r.send(client, b"12345")
        r.send(client, GET * 3)
        client.flush()
        r.settle()
        assert status(client) in (413, 417)
        assert len(r.recorded) == 1
        assert client.eof  # gently: the client may still be sending
        r.pass_time(5)
        assert client.gone


# Pipelining, half-close.


def test_pipelined_requests_are_answered_in_order() -> None:
    with rig() as r:
        client = r.client(b"".join(b"GET /%d HTTP/1.1\r\nHost: a.test\r\n\r\n" % n for n in range(5)))
        upstream = r.upstream()
        for n in range(5):
            assert upstream.take().startswith(b"GET /%d " % n)
            r.send(upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % n)
        answers = client.take()
        assert [answers[at - 1 : at] for at in range(39, len(answers) + 1, 39)] == [b"0", b"1", b"2", b"3", b"4"]
        assert [each.path for each in r.recorded] == [b"/0", b"/1", b"/2", b"/3", b"/4"]


def test_nothing_is_served_behind_a_refusal() -> None:
    with rig() as r:
        client = r.client(GET + b"GET  / HTTP/1.1\r\n\r\n" + GET)
        upstream = r.upstream()
        r.send(upstream, OK)
        answers = client.take()
        assert answers.startswith(OK)
        assert answers.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 400 " in answers
        assert [each.status for each in r.recorded] == [200, 400]
        assert not upstream.take()[len(b"") :].count(b"GET / ") > 1


def test_reading_ahead_is_bounded() -> None:
    with rig(Settings(limits=Limits(pipelined=1024))) as r:
        client = r.client(GET)
        upstream = r.upstream()
        for _ in range(100):
            r.send(client, GET)
        assert not client.reading
        for _ in range(101):
            r.send(upstream, OK)
            if client.protocol.exchange is None:
                break
        assert client.reading
        assert len(r.recorded) == 101


def test_half_closed_client_gets_all_its_answers() -> None:
    with rig() as r:
        client = r.client(GET * 2)
        upstream = r.upstream()
        client.end()
        assert not client.closing
        r.send(upstream, OK)
        r.send(upstream, OK)
        assert client.take().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"") == OK * 2
        r.settle()
        assert client.gone
        assert [each.status for each in r.recorded] == [200, 200]


def test_half_close_within_a_body_cancels() -> None:
    with rig() as r:
        client = r.client(POST % 5 + b"ab")
        upstream = r.upstream()
        client.end()
        r.settle()
        assert upstream.aborted
        assert client.gone
        assert [(each.status, each.outcome, each.error_type) for each in r.recorded] == [(0, "client_gone", "")]


@pytest.mark.parametrize("data", [b"", GET[:9], GET[:-2]])
def test_leaving_within_a_head_is_recorded_if_there_was_one(data: bytes) -> None:
    with rig() as r:
        client = r.client(data)
        client.lose()
        assert [each.outcome for each in r.recorded] == ["client_gone"] * bool(data)
        r.check(at_rest=True)


# Tunnels.


def test_a_tunnel_passes_bytes_both_ways_and_ends_way_by_way() -> None:
    with rig() as r:
        client, upstream = r.exchange(UPGRADE, SWITCHING + b"early")
        assert client.take().endswith(b"\r\n\r\nearly")
        upstream.take()
        r.send(client, b"GET / HTTP/1.1\r\nHost: no head any more\r\n\r\n")
        assert upstream.take() == b"GET / HTTP/1.1\r\nHost: no head any more\r\n\r\n"
        client.end()
        assert upstream.eof
        assert not r.recorded
        r.send(upstream, b"last words")
        assert client.take() == b"last words"
        upstream.end()
        r.settle()
        assert client.gone
        assert upstream.gone
        (recorded,) = r.recorded
        assert (recorded.status, recorded.outcome, recorded.error_type) == (101, "upgraded", "")
        assert recorded.sizes == (42, 15)
        r.check(at_rest=True)


def test_what_is_sent_ahead_of_the_switch_is_the_tunnels() -> None:
    with rig() as r:
        client = r.client(UPGRADE + b"ahead ")
        upstream = r.upstream()
        r.send(client, b"of time")
        assert upstream.take().endswith(b"\r\n\r\n")
        r.send(upstream, SWITCHING)
        assert upstream.take() == b"ahead of time"
        client.lose()


def test_a_refused_upgrade_is_a_response_like_any_other() -> None:
    with rig() as r:
        client = r.client(UPGRADE + GET)
        upstream = r.upstream()
        r.send(upstream, OK)
        assert client.take() == OK
        assert b"GET / " in upstream.take()
        client.lose()


@pytest.mark.parametrize("side", ["client", "upstream"])
def test_backpressure_in_a_tunnel(side: str) -> None:
    with rig() as r:
        client, upstream = r.exchange(UPGRADE, SWITCHING)
        one, other = (client, upstream) if side == "client" else (upstream, client)
        one.full = True
        r.send(other, b"x" * 10)
        assert not other.reading
        one.flush()
        r.settle()
        assert other.reading
        client.lose()


def test_a_silent_tunnel_ends() -> None:
    with rig(spec=table(read_timeout=100.0)) as r:
        client, upstream = r.exchange(UPGRADE, SWITCHING)
        r.pass_time(90)
        r.send(client, b"still here")
        r.pass_time(90)
        assert not client.closing
        r.pass_time(20)
        assert upstream.gone
        assert client.gone
        assert [each.status for each in r.recorded] == [101]


def test_a_worker_without_exporter_and_log_still_counts() -> None:
    with rig(Settings(tracing=Tracing(sampler="always_off"))) as r:
        r.exchange(GET)
        assert not r.exporter.blobs
        (route,) = [sample for sample in r.worker.ledger.samples() if sample.namespace]
        assert route.statuses == {200: 1}


def test_an_upload_that_waits_for_no_100_may_take_its_time() -> None:
    """An upstream need not send 100 Continue (RFC 9110 section 10.1.1); the time for its answer begins with the end."""
    head = b"POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    with rig() as r:
        client = r.client(head)
        upstream = r.upstream()
        for byte in b"abcd":
            r.pass_time(40)  # less than the body's timeout, and more than the upstream's in two
            r.send(client, bytes((byte,)))
        assert not client.take()
        r.send(upstream, OK)
        assert client.take() == OK
        r.check(at_rest=True)


def test_an_upstream_that_answers_no_expectation_is_timed_out() -> None:
    with rig() as r:
        client = r.client(b"POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        r.upstream()
        r.pass_time(62)
        assert status(client) == 504
        assert [each.error_type for each in r.recorded] == ["upstream_timeout"]
