"""The encoder: the same spans as the SDK, statuses, bounds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from proxy.errors import Kind
from proxy.settings import Tracing
from proxy.trace import encode
from proxy.trace.encode import Encoder
from proxy.trace.record import Link, RequestRecord
from tests.trace.oracle import expected, parsed
from tests.trace.records import START, US, Route, Upstream, attempt, record, records

UNSET, ERROR = Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR
_shared = Encoder(Tracing())


def spans(made: RequestRecord, encoder: Encoder | None = None) -> list[Span]:
    return parsed((encoder or Encoder(Tracing())).encode(made))


def values(span: Span) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in span.attributes}


# The same as the SDK


@given(records())
@example(record())
@example(record(attempts=[]))
@example(record(query=b"a=1&sig=secret", parent_id=b"parent01", tracestate=b"ot=th:8", request_body_size=7))
@hypothesis_settings(max_examples=400)
def test_spans_are_the_sdk_s_own(made: RequestRecord) -> None:
    wanted = expected(made)
    assert spans(made) == wanted
    # Caches that other records have filled must not show, nor must the second use of this record's own entries.
    assert parsed(_shared.encode(made)) == wanted
    assert parsed(_shared.encode(made)) == wanted


def test_a_usual_request_in_full() -> None:
    server, client = spans(
        record(parent_id=b"parent01", query=b"page=2", attempts=[attempt(connect_ns=200 * US, reused=False)])
    )
    assert server.name == "GET /api/cart"
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.parent_span_id == b"parent01"
    assert server.flags == 0x301
    assert values(server) == {
        "http.request.method": "GET",
        "http.route": "/api/cart",
        "http.response.status_code": 200,
        "http.response.body.size": 430,
        "url.scheme": "http",
        "url.path": "/api/cart/items/42",
        "url.query": "page=2",
        "server.address": "shop.example.org",
        "server.port": 80,
        "client.address": "192.0.2.44",
        "user_agent.original": "curl/8.9.1",
        "network.protocol.version": "1.1",
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 40404,
        "spanway.ingress.namespace": "shop",
        "spanway.ingress.name": "storefront",
        "spanway.ingress.uid": "5e2f9f0c-8b1b-4a57-9f0e-1d2c3b4a5968",
        "spanway.ingress.resource_version": "123456",
        "spanway.generation": 7,
        "spanway.admit.us": 9,
        "spanway.route.us": 1,
        "spanway.self.us": 31,
        "spanway.loop_lag.us": 12,
    }
    assert client.name == "GET"
    assert client.kind == Span.SPAN_KIND_CLIENT
    assert (client.trace_id, client.parent_span_id) == (server.trace_id, server.span_id)
    assert client.flags == 0x101
    assert values(client) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.full": "http://10.0.1.9:8080/api/cart/items/42?page=2",
        "server.address": "10.0.1.9",
        "server.port": 8080,
        "network.protocol.version": "1.1",
        "network.local.address": "10.0.0.7",
        "network.local.port": 51234,
        "network.peer.address": "10.0.1.9",
        "network.peer.port": 8080,
        "spanway.reused": False,
        "spanway.connect.us": 200,
        "spanway.wait.us": 205,
        "spanway.relay.us": 10,
        "spanway.request.start": 40_000,
        "spanway.request.end": 40_321,
        "spanway.response.start": 90_000,
        "spanway.response.end": 90_555,
    }


# Names, kinds, ids


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        (b"GET", "/", "GET /"),
        (b"QUERY", "/search", "QUERY /search"),
        (b"get", "/", "HTTP /"),
        (b"PROPFIND", "/", "HTTP /"),
        (b"GET", "", "GET"),
        (b"PROPFIND", "", "HTTP"),
    ],
)
def test_names(method: bytes, path: str, name: str) -> None:
    server, client = spans(record(method=method, route=Route(path=path)))
    assert server.name == name
    assert client.name == name.split()[0]
    assert ("http.route" in values(server)) == bool(path)


def test_without_a_route_the_name_is_the_method_never_the_path() -> None:
    (server,) = spans(record(route=None, attempts=[], status=404, error_type="no_route"))
    assert server.name == "GET"
    assert not any(key.startswith("spanway.ingress") or key == "http.route" for key in values(server))


def test_known_methods_are_settings() -> None:
    encoder = Encoder(Tracing(known_methods=("PROPFIND",)))
    server, _ = spans(record(method=b"PROPFIND"), encoder)
    assert (server.name, values(server)["http.request.method"]) == ("PROPFIND /api/cart", "PROPFIND")
    server, _ = spans(record(method=b"GET"), encoder)
    assert (server.name, values(server)["http.request.method_original"]) == ("HTTP /api/cart", "GET")


def test_a_root_has_no_parent_and_is_not_remote() -> None:
    server, _ = spans(record())
    assert server.parent_span_id == b""
    assert server.flags == 0x101


def test_a_stranger_s_context_is_a_link() -> None:
    server, client = spans(record(link=Link(b"T" * 16, b"S" * 8, 0x100 | 1, b"foo=1")))
    (link,) = server.links
    assert (link.trace_id, link.span_id, link.trace_state, link.flags) == (b"T" * 16, b"S" * 8, "foo=1", 0x301)
    assert not client.links


def test_links_to_a_generation_and_to_a_stranger() -> None:
    stranger = Link(b"T" * 16, b"S" * 8, 1, b"foo=1")
    server, _ = spans(record(link=Link(b"G" * 16, b"g" * 8, 1, generation=300, more=stranger)))
    first, second = server.links
    assert (first.trace_id, first.span_id, first.flags) == (b"G" * 16, b"g" * 8, 0x301)
    assert [(each.key, each.value.int_value) for each in first.attributes] == [("spanway.generation", 300)]
    assert (second.trace_id, second.trace_state, list(second.attributes)) == (b"T" * 16, "foo=1", [])


def test_a_link_without_ids_is_none() -> None:
    server, _ = spans(record(link=Link(b"", b"", 1)))
    assert not server.links


# Statuses


@pytest.mark.parametrize(
    ("status", "fault", "outcome", "code", "error"),
    [
        (200, "", "", UNSET, None),
        (101, "", "upgraded", UNSET, None),
        (302, "", "", UNSET, None),
        (404, "", "", UNSET, None),  # the application's own
        (404, "no_route", "", UNSET, "no_route"),
        (400, "bad_request", "", UNSET, "bad_request"),
        (408, "request_timeout", "", UNSET, "request_timeout"),
        (413, "body_too_large", "", UNSET, "body_too_large"),
        (431, "head_too_large", "", UNSET, "head_too_large"),
        (500, "", "", ERROR, "500"),
        (503, "", "", ERROR, "503"),
        (502, "connect_failed", "", ERROR, "connect_failed"),
        (504, "upstream_timeout", "", ERROR, "upstream_timeout"),
        (501, "not_implemented", "", ERROR, "not_implemented"),
        (200, "response_cut", "", ERROR, "response_cut"),
        (200, "client_stalled", "", ERROR, "client_stalled"),
        (0, "bad_proxy_header", "", ERROR, "bad_proxy_header"),
        (0, "", "client_gone", UNSET, None),
        (200, "", "client_gone", UNSET, None),
        (500, "", "client_gone", UNSET, None),
        (0, "client_gone", "", UNSET, None),
    ],
)
def test_server_status(status: int, fault: str, outcome: str, code: int, error: str | None) -> None:
    server = spans(record(status=status, error_type=fault, outcome=outcome))[0]
    assert server.status.code == code
    assert values(server).get("error.type") == error
    assert values(server).get("http.response.status_code", 0) == status
    gone = "client_gone" in (fault, outcome)
    assert values(server).get("spanway.outcome", "") == ("client_gone" if gone else outcome)


@pytest.mark.parametrize(
    ("status", "fault", "code", "error", "outcome"),
    [
        (200, "", UNSET, None, None),
        (304, "", UNSET, None, None),
        (399, "", UNSET, None, None),
        (400, "", ERROR, "400", None),
        (404, "", ERROR, "404", None),
        (500, "", ERROR, "500", None),
        (0, "connect_failed", ERROR, "connect_failed", None),
        (0, "upstream_timeout", ERROR, "upstream_timeout", None),
        (200, "response_cut", ERROR, "response_cut", None),
        (0, "", UNSET, None, "cancelled"),
        (0, "client_gone", UNSET, None, "cancelled"),
        (0, "body_too_large", UNSET, None, "cancelled"),
        (200, "client_stalled", UNSET, None, None),
    ],
)
def test_client_status(status: int, fault: str, code: int, error: str | None, outcome: str | None) -> None:
    client = spans(record(attempts=[attempt(status=status, error_type=fault)]))[1]
    assert client.status.code == code
    assert values(client).get("error.type") == error
    assert values(client).get("spanway.outcome") == outcome


def test_a_client_that_leaves_excuses_only_the_attempt_it_left() -> None:
    tried = [attempt(span_id=b"attempt1", status=503), attempt(span_id=b"attempt2", status=503, resend=1)]
    server, first, last = spans(record(status=0, outcome="client_gone", attempts=tried))
    assert server.status.code == UNSET
    assert (first.status.code, values(first)["error.type"]) == (ERROR, "503")
    assert (last.status.code, values(last).get("error.type")) == (UNSET, None)
    assert "http.request.resend_count" not in values(first)
    assert values(last)["http.request.resend_count"] == 1


def test_a_status_has_a_description_only_where_no_code_says_it() -> None:
    failed = attempt(status=0, error_type="connect_failed", connection=None, write_ns=0, sent_ns=0, first_byte_ns=0)
    server, client = spans(record(status=502, error_type="connect_failed", attempts=[failed]))
    assert server.status.message == ""
    assert client.status.message == Kind.CONNECT_FAILED.text
    assert not any(
        key.startswith(("network.local", "network.peer", "spanway.re"))
        for key in values(client)
        if key != "spanway.reused"
    )


# Times


def test_a_span_never_ends_before_it_starts_and_a_client_span_lies_within_the_server_s() -> None:
    late = attempt(start_ns=START - 5, first_byte_ns=START + 900 * US, end_ns=START + 999 * US)
    early = attempt(start_ns=START + 400 * US, end_ns=START - 7)
    server, one, two = spans(record(end_ns=START + 250 * US, attempts=[late, early]))
    assert (one.start_time_unix_nano, one.end_time_unix_nano) == (START, START + 250 * US)
    assert two.start_time_unix_nano == two.end_time_unix_nano == START + 250 * US
    (server,) = spans(record(end_ns=START - 1, attempts=[]))
    assert server.start_time_unix_nano == server.end_time_unix_nano == START


def test_phases_that_did_not_happen_are_not_there() -> None:
    refused = record(
        attempts=[], admit_ns=0, route_ns=0, status=400, error_type="bad_request", method=b"", host=b"", path=b""
    )
    (server,) = spans(refused)
    there = values(server)
    assert {key for key in there if key.endswith(".us")} == {"spanway.self.us", "spanway.loop_lag.us"}
    assert not {"url.path", "server.address", "server.port", "http.request.method_original"} & set(there)
    (_, client) = spans(record(attempts=[attempt(first_byte_ns=0, status=0, error_type="upstream_timeout")]))
    assert {key for key in values(client) if key.endswith(".us")} == set()
    assert "spanway.request.end" in values(client)
    assert "spanway.response.end" not in values(client)


def test_a_response_that_overtakes_its_request_waited_for_nothing() -> None:
    (_, client) = spans(record(attempts=[attempt(sent_ns=START + 225 * US)]))
    assert "spanway.wait.us" not in values(client)
    assert values(client)["spanway.relay.us"] == 10


@pytest.mark.parametrize(
    "offset", [0, 1 << 13, 1 << 14, (1 << 28) - 1000, (1 << 28) - 1, 1 << 28, 1 << 41, 1 << 42, 1 << 50]
)
def test_stream_offsets_of_any_size(offset: int) -> None:
    made = attempt(request_start=offset, request_end=offset + 999, response_start=offset, response_end=offset + 1)
    there = values(spans(record(attempts=[made]))[1])
    assert (there["spanway.request.start"], there["spanway.request.end"]) == (offset, offset + 999)
    assert (there["spanway.response.start"], there["spanway.response.end"]) == (offset, offset + 1)


def test_ranges_that_cross_what_two_bytes_hold() -> None:
    made = attempt(request_start=5, request_end=300_000, response_start=16_000, response_end=9_000_000)
    there = values(spans(record(attempts=[made]))[1])
    assert (there["spanway.request.start"], there["spanway.request.end"]) == (5, 300_000)
    assert (there["spanway.response.start"], there["spanway.response.end"]) == (16_000, 9_000_000)


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, (1 << 28) - 1, 1 << 28, 1 << 42])
def test_body_sizes_are_there_when_there_was_a_body(size: int) -> None:
    there = values(spans(record(request_body_size=size, response_body_size=size))[0])
    for name in ("http.request.body.size", "http.response.body.size"):
        assert there.get(name, 0) == size
        assert (name in there) == (size > 0)


@pytest.mark.parametrize("us", [0, 1, 16_383, 16_384, (1 << 28) - 1, 1 << 28])
def test_phases_of_any_length(us: int) -> None:
    at = START + us * US
    made = record(
        admit_ns=at,
        route_ns=at + us * US + 999,
        self_ns=us * US + 1,
        loop_lag_us=us,
        end_ns=START + 9 * us * US,
        attempts=[attempt(start_ns=START, sent_ns=at, first_byte_ns=at + us * US, end_ns=at + 3 * us * US)],
    )
    server, client = spans(made)
    names = ("admit", "route", "self", "loop_lag")
    assert [values(server)[f"spanway.{name}.us"] for name in names] == [us] * 4
    assert (values(client)["spanway.wait.us"], values(client)["spanway.relay.us"]) == (us, 2 * us)


# What comes from the wire


def test_bytes_that_are_no_utf8() -> None:
    made = record(user_agent=b"a\xffb", path=b"/\xc3", query=b"q=\x80", host=b"\xfe", method=b"\xff")
    server, client = spans(made)
    there = values(server)
    assert there["user_agent.original"] == "a\ufffdb"
    assert there["url.path"] == "/\ufffd"
    assert there["url.query"] == "q=\ufffd"
    assert there["server.address"] == "\ufffd"
    assert there["http.request.method_original"] == "\ufffd"
    assert values(client)["url.full"] == "http://10.0.1.9:8080/\ufffd?q=\ufffd"


def test_lengths_are_capped() -> None:
    made = record(
        user_agent=b"u" * 5000, path=b"/" + b"p" * 20_000, query=b"q" * 20_000, host=b"h" * 5000, method=b"M" * 5000
    )
    server, client = spans(made)
    there = values(server)
    assert [len(str(there[key])) for key in ("user_agent.original", "url.path", "url.query")] == [1024, 8192, 8192]
    assert len(str(there["server.address"])) == 256
    assert len(str(there["http.request.method_original"])) == 64
    assert len(client.SerializeToString()) < 20_000


def test_secrets_stay_out_of_both_spans() -> None:
    made = record(query=b"id=7&sig=hunter2&X-Amz-Signature=hunter2", host=b"user:hunter2@shop")
    encoded = Encoder(Tracing()).encode(made)
    assert b"hunter2" not in encoded
    server, client = parsed(encoded)
    assert values(server)["url.query"] == "id=7&sig=REDACTED&X-Amz-Signature=REDACTED"
    assert str(values(client)["url.full"]).endswith("?id=7&sig=REDACTED&X-Amz-Signature=REDACTED")


def test_an_ipv6_endpoint_is_bracketed_in_the_url_only() -> None:
    (_, client) = spans(record(attempts=[attempt(host="2001:db8::9", scheme="https", port=443)]))
    assert values(client)["url.full"] == "https://[2001:db8::9]:443/api/cart/items/42"
    assert values(client)["server.address"] == "2001:db8::9"


# Caches


def test_a_connection_keeps_its_own_attributes() -> None:
    encoder = Encoder(Tracing())
    upstream = Upstream()
    encoder.encode(record(attempts=[attempt(connection=upstream)]))
    first = upstream.span_attributes
    assert first
    encoder.encode(record(attempts=[attempt(connection=upstream)]))
    assert upstream.span_attributes is first


def test_other_routes_at_the_same_place_are_other_routes() -> None:
    encoder = Encoder(Tracing())
    for generation in (7, 8):
        for name in ("old", "new"):
            server, _ = spans(record(route=Route(name=name), generation=generation), encoder)
            there = values(server)
            assert (there["spanway.ingress.name"], there["spanway.generation"]) == (name, generation)


def test_thousands_of_routes_and_hosts_take_no_place_in_the_caches() -> None:
    encoder = Encoder(Tracing())
    for number in range(300):
        made = record(route=Route(index=number, path=f"/{number}"), host=b"h%d.example" % number)
        assert parsed(encoder.encode(made)) == expected(made)
    assert (len(encoder._servers), len(encoder._clients), len(encoder._peers)) == (1, 1, 1)


def test_hostile_clients_cannot_grow_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "CACHED", 16)
    encoder = Encoder(Tracing())
    for number in range(100):
        tail = str(number).encode()
        made = record(
            host=b"h" + tail,
            method=b"M" + tail,
            user_agent=b"u" + tail,
            client_address=f"192.0.2.{number}",
            attempts=[attempt(port=1 + number)],
        )
        assert parsed(encoder.encode(made)) == expected(made)
        caches = (encoder._servers, encoder._clients, encoder._peers)
        assert all(0 < len(cache) <= 16 for cache in caches)


def test_what_is_long_is_never_cached() -> None:
    encoder = Encoder(Tracing())
    made = record(user_agent=b"u" * 257, method=b"M" * 33)
    assert parsed(encoder.encode(made)) == expected(made)
    assert not encoder._servers
    assert not encoder._clients
    assert not encoder._peers


def test_repr_says_what_is_cached() -> None:
    encoder = Encoder(Tracing())
    encoder.encode(record())
    assert repr(encoder) == "Encoder(1 server, 1 client, 1 peer chunks)"
