"""The encoder in use against `trace.encode`: the same bytes for any record, whatever caches hold; context lines too."""

from __future__ import annotations

import random
import weakref
from types import ModuleType

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from proxy.settings import Tracing
from proxy.trace import encode, lines
from proxy.trace.encoder import Encoder
from proxy.trace.record import Link, RequestRecord
from tests.harness.twins import COMPILED, python_form
from tests.trace.oracle import expected, parsed
from tests.trace.records import START, Route, Upstream, attempt, attempts, record, records

# In the pure form both are one class, and these tests hold that its caches never show.
SHARED = Encoder(Tracing())


def python() -> encode.Encoder:
    """The Python encoder, knowing nothing yet."""
    return encode.Encoder(Tracing())


def alike(made: RequestRecord, encoder: Encoder | None = None) -> bytes:
    """Encode by caches that are empty, that others have filled, and that hold this very record."""
    wanted = python().encode(made)
    for each in (Encoder(Tracing()), SHARED if encoder is None else encoder):
        assert each.encode(made) == wanted
        assert each.encode(made) == wanted
    return wanted


# From 0 to what no row holds, around every width; and what clocks that were set back leave.
NUMBERS = [0, 1, 999, 1000, 127, 128, *(edge + by for edge in (1 << 14, 1 << 28, 1 << 42) for by in (-1, 0)), 1 << 60]
SIGNED = [*NUMBERS, -1, -999, -1000, -1001, -(1 << 14), -(1 << 28), -(1 << 60)]
SMALL = [0, 1, -1, 99, 200, 16_383, 16_384, 65_535, 65_536, (1 << 31) - 1]
PATHS = [0, 1, 254, 255, 256, 257, 480, 511, 512, 513, 2047, 2048, 2049, 8191, 8192, 8193]
STAMPS = ("admit_ns", "route_ns", "self_ns", "loop_lag_us", "request_body_size", "response_body_size")
STREAM = ("request_start", "request_end", "response_start", "response_end")
PHASES = ("write_ns", "sent_ns", "first_byte_ns", "queue_ns", "dns_ns", "connect_ns", "tls_ns", "start_ns", "end_ns")


@st.composite
def extremes(draw: st.DrawFn) -> RequestRecord:
    """A record with some of its numbers and texts at the edges of what the compiled encoder writes itself."""
    made: RequestRecord = draw(records())
    if draw(st.booleans()):
        made.link = None
    start = draw(st.sampled_from([made.start_ns, START, 0, 1, 1 << 60]))
    made.start_ns = start
    made.end_ns = draw(st.sampled_from([made.end_ns, start, start - 1, start + (1 << 40), 0]))
    for name in draw(st.sets(st.sampled_from(STAMPS))):
        value = draw(st.sampled_from(SIGNED))
        setattr(made, name, value if name not in ("admit_ns", "route_ns") else start + value)
    for name in draw(st.sets(st.sampled_from(["peer_port", "server_port", "status", "version", "flags"]))):
        setattr(made, name, draw(st.sampled_from(SMALL)))
    filler = draw(st.sampled_from([b"p", b"%2e", "\u00e9".encode(), b"\x80", b"/"]))
    made.path = (b"/" + filler * 9000)[: draw(st.sampled_from(PATHS))]
    query = draw(st.sampled_from([b"", b"a=1", b"sig=secret&", b"%73ig=secret", b"\xff", b"=", b"&", b"?"]))
    made.query = (query * 3000)[: draw(st.sampled_from(PATHS))]
    made.tracestate = draw(st.sampled_from([made.tracestate, b"", b"a=b", b"a=" + b"b" * 510, b"a=" + b"b" * 40_000]))
    made.parent_id = draw(st.sampled_from([b"", b"parent01", b"\0" * 8]))
    made.attempts = tried = [draw(attempts(start)) for _ in range(draw(st.integers(0, 4)))]
    for each in tried:
        for name in draw(st.sets(st.sampled_from(STREAM))):
            setattr(each, name, draw(st.sampled_from(SIGNED)))
        for name in draw(st.sets(st.sampled_from(PHASES))):
            setattr(each, name, start + draw(st.sampled_from(SIGNED)) if draw(st.booleans()) else 0)
        if draw(st.booleans()):
            each.host = "h" * draw(st.sampled_from([0, 1, 200, 253, 256, 300, 500]))
    if draw(st.booleans()):
        made.attempts = tuple(tried)
    return made


@given(extremes())
@example(record())
@example(record(attempts=()))
@example(record(attempts=[attempt()] * 4))
@example(record(path=b"", query=b"", host=b"", method=b"", user_agent=b"", client_address="", peer_address=""))
@hypothesis_settings(max_examples=500, suppress_health_check=list(HealthCheck))
def test_any_record_is_the_same_bytes(made: RequestRecord) -> None:
    alike(made)


@given(records())
@hypothesis_settings(max_examples=100)
def test_spans_of_the_encoder_in_use_are_the_sdk_s_own(made: RequestRecord) -> None:
    assert parsed(SHARED.encode(made)) == expected(made)


@pytest.mark.parametrize("path", PATHS)
def test_urls_of_every_length(path: int) -> None:
    for query in PATHS:
        alike(record(path=(b"/" + b"p" * path)[:path], query=b"q" * query))


def test_whole_urls_around_the_table_of_heads() -> None:
    # The compiled encoder has url.full below 512 bytes, of a path and a query below 256 each.
    for length in range(440, 520):
        alike(record(path=b"/" + b"p" * (length // 2 - 1), query=b"q" * (length - length // 2)))


@pytest.mark.parametrize("count", [5, 30, 60, 61, 62, 63, 64, 65, 100])
def test_more_spans_than_the_buffer_holds(count: int) -> None:
    alike(record(path=b"/" + b"p" * 200, query=b"q" * 200, attempts=[attempt(resend=each) for each in range(count)]))


def test_a_span_that_just_fits_into_the_buffer() -> None:
    for size in (*range(31_900, 32_300), *range(32_600, 32_780), 40_000):
        alike(record(tracestate=b"a" * size, attempts=[]))


def test_secrets_in_short_and_long_queries() -> None:
    for padding in (0, 200, 240, 250, 300, 3000):
        assert b"hunter2" not in alike(record(query=b"q" * padding + b"&sig=hunter2&%73ig=hunter2"))


@pytest.mark.parametrize("outcome", ["", "client_gone", "upgraded", "cancelled"])
@pytest.mark.parametrize("error", ["", "client_gone", "upstream_timeout", "client_stalled"])
def test_outcomes_with_attempts(outcome: str, error: str) -> None:
    for count in range(5):
        tried = [attempt(status=status, resend=at) for at, status in enumerate((0, 200, 404, 503)[:count])]
        alike(record(outcome=outcome, error_type=error, attempts=tried))


# Caches


def test_thousands_of_everything_in_few_places() -> None:
    # The compiled caches have 256 places each: records that meet in one must not be taken for each other.
    chance = random.Random(4)
    ours, theirs = Encoder(Tracing()), python()
    routes = [Route(index=index, name=f"r{index}") for index in range(20)]
    for number in range(4000):
        kind = chance.randrange(300 if number % 2 else 6000)
        made = record(
            host=b"h%d" % kind,
            method=chance.choice([b"GET", b"POST", b"M%d" % kind]),
            user_agent=b"agent %d" % chance.randrange(4000) * chance.choice([1, 1, 40]),
            client_address=f"192.0.2.{chance.randrange(256)}",
            peer_address=f"198.51.100.{chance.randrange(3)}",
            scheme=chance.choice(["http", "https"]),
            version=chance.randrange(2),
            status=chance.choice([200, 204, 404, 503]),
            server_port=chance.choice([80, 443]),
            error_type=chance.choice(["", "", "upstream_timeout"]),
            outcome=chance.choice(["", "", "client_gone"]),
            route=chance.choice(routes),
            attempts=[
                attempt(
                    host=f"10.0.{kind % 7}.{kind % 251}",
                    port=8080 + kind % 3,
                    status=chance.choice([0, 200, 503]),
                    reused=chance.random() < 0.5,
                    resend=chance.randrange(3),
                    scheme=chance.choice(["http", "https"]),
                    error_type=chance.choice(["", "upstream_reset"]),
                )
                for _ in range(chance.randrange(3))
            ],
        )
        assert ours.encode(made) == theirs.encode(made), number


def test_equal_texts_that_are_other_objects_are_the_same() -> None:
    one, other = record(host=bytes([104] * 9), scheme="HTTP".lower()), record(host=b"h" * 9, scheme="http")
    assert SHARED.encode(one) == SHARED.encode(other) == python().encode(one)


@pytest.mark.parametrize("generations", [0, 1])
def test_a_route_that_went_away_and_another_at_its_place(generations: int) -> None:
    # Memory is used again: neither number nor address is a route.
    encoder = Encoder(Tracing())
    generation = 7
    for number in range(20):
        generation += generations
        route = Route(index=3, generation=generation, name=f"number-{number}")
        made = record(route=route, generation=generation)
        encoded = encoder.encode(made)
        assert b"number-%d" % number in encoded
        assert encoded == python().encode(made)
        gone = weakref.ref(route)
        del made, route
        assert gone() is None, "the encoder holds on to a route that no table may have any more"


@pytest.mark.parametrize("span_name", ["", "checkout", "$request_method", "a$request_method", "$request_method b",
                                       "$request_method$request_method c$request_method", "\u00e9 $request_method",
                                       "\ud800", "\u00ff\u00fe", "n" * 40_000])  # fmt: skip
@pytest.mark.parametrize("path", ["", "/", "/caf\u00e9", "/" + "p" * 126, "/" + "p" * 9000, "/" + "\u00e9" * 5000])
def test_names_of_every_kind(span_name: str, path: str) -> None:
    for method in (b"GET", b"OPTIONS", b"get", b""):
        route = Route(span_name=span_name, path=path)
        alike(record(route=route, method=method))
        alike(record(route=route, method=method, path=b"/" + b"p" * 300))  # the twin reads what was kept, too


def test_names_around_lengths_of_one_byte_and_two() -> None:
    for length in (*range(115, 135), *range(16_370, 16_390)):
        alike(record(route=Route(path="/" + "p" * length)))
        alike(record(route=Route(span_name="n" * length)))


@pytest.mark.parametrize("length", [0, 1, 127, 128, 253, 254, 255, 256, 257, 300])
@pytest.mark.parametrize("filler", [b"h", b"@", b"\xff", "\u00e9".encode(), b"h@"])
def test_hosts_of_every_kind(filler: bytes, length: int) -> None:
    for port in (0, 80, 443, 65_535):
        alike(record(host=(filler * 300)[:length], server_port=port))


def test_a_route_keeps_what_its_spans_repeat() -> None:
    route = Route()
    alike(record(route=route))
    kept = route.span_parts
    assert kept
    alike(record(route=route, method=b"POST", status=503))
    assert route.span_parts is kept
    # Whatever is kept there is what is written: nothing of the route is read again.
    alike(record(route=Route(span_parts=b"\xff done\xfe")))


@pytest.mark.skipif(not COMPILED, reason="of the compiled form, which reads by pointers: Python's own does it itself")
@pytest.mark.parametrize("parts", [b"", b"\xff /api", "text", 1])
def test_broken_parts_of_a_route_are_refused(parts: bytes) -> None:
    with pytest.raises((TypeError, ValueError)):
        Encoder(Tracing()).encode(record(route=Route(span_parts=parts)))


def test_what_was_encoded_before_a_connection_had_its_attributes() -> None:
    upstream = Upstream()
    made = record(attempts=[attempt(connection=upstream), attempt(connection=upstream)])
    wanted = python().encode(record(attempts=[attempt(), attempt()]))
    assert SHARED.encode(made) == wanted
    assert upstream.span_attributes
    assert SHARED.encode(made) == wanted


def test_links_of_every_kind() -> None:
    for link in (None, Link(b"", b"", 0), Link(b"T" * 16, b"S" * 8, 0x1FF, b"a=1"), Link(b"T" * 16, b"S" * 8, 0)):
        alike(record(link=link))


# What may not be, and must not be read beyond its end

BROKEN: list[tuple[str, bytes | None]] = [
    *(("trace_id", value) for value in (None, b"", b"x" * 15, b"x" * 17)),
    *(("span_id", value) for value in (None, b"", b"x" * 7, b"x" * 9)),
    *(("parent_id", value) for value in (b"x" * 7, b"x" * 9)),
    *((name, None) for name in ("path", "query", "host", "method", "user_agent", "client_address", "attempts")),
]


@pytest.mark.skipif(not COMPILED, reason="of the compiled form, which reads by pointers: Python's own does it itself")
@pytest.mark.parametrize(("name", "value"), BROKEN)
def test_broken_records_are_refused(name: str, value: bytes | None) -> None:
    with pytest.raises((TypeError, ValueError)):
        Encoder(Tracing()).encode(record(**{name: value}))


@pytest.mark.skipif(not COMPILED, reason="of the compiled form, which reads by pointers: Python's own does it itself")
@pytest.mark.parametrize("span_id", [None, b"", b"x" * 7, b"x" * 9])
def test_broken_attempts_are_refused(span_id: bytes | None) -> None:
    with pytest.raises((TypeError, ValueError)):
        Encoder(Tracing()).encode(record(attempts=[attempt(span_id=span_id)]))
    for wrong in (None, object()):
        with pytest.raises((TypeError, AttributeError)):
            Encoder(Tracing()).encode(record(attempts=[wrong]))
        with pytest.raises((TypeError, AttributeError)):
            Encoder(Tracing()).encode(wrong)  # type: ignore[arg-type] # on purpose


# Context lines: each form against the formats' own words

FORMS = {"in-use": lines, "python": python_form("proxy.trace.lines")}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    flags=st.integers(0, (1 << 31) - 1),
    tracestate=st.just(b"") | st.binary(max_size=600),
)
@example(trace_id=b"\xff" * 16, span_id=b"\xff" * 8, flags=0x1FF, tracestate=b"a=b")
def test_context_lines(form: ModuleType, trace_id: bytes, span_id: bytes, flags: int, tracestate: bytes) -> None:
    trace, span = trace_id.hex(), span_id.hex()
    jaeger = 3 if flags & 0x100 else flags & 1
    wanted = (
        f"traceparent: 00-{trace}-{span}-{flags & 0xFF:02x}\r\nuber-trace-id: {trace}:{span}:0:{jaeger}\r\n".encode()
    )
    if tracestate:
        wanted += b"tracestate: " + tracestate + b"\r\n"
    assert form.default_lines(trace_id, span_id, flags, tracestate) == wanted


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(value=st.binary(max_size=100))
@example(value=b"")
@example(value=bytes(range(256)))
def test_hexadecimal_digits(form: ModuleType, value: bytes) -> None:
    assert form.hexed(value) == value.hex().encode()


@pytest.mark.skipif(not COMPILED, reason="of the compiled form, which writes ids into a line of a fixed size")
@pytest.mark.parametrize(("trace_id", "span_id"), [(b"", b"s" * 8), (b"t" * 17, b"s" * 8), (b"t" * 16, b"s" * 7)])
def test_ids_of_another_size_are_refused(trace_id: bytes, span_id: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        lines.default_lines(trace_id, span_id, 1, b"")
    with pytest.raises(TypeError):
        lines.default_lines(None, None, 1, None)  # type: ignore[arg-type] # on purpose
