from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from proxy.settings import MIB
from proxy.trace import receive
from proxy.trace.receive import JSON, PATH, PROTOBUF, Receiver, Refusal, check_origin, is_loopback, unpack
from proxy.trace.ring import Ring
from tests.trace.spans import batch, span, spans_in
from tests.trace.test_otlp_json import otlp_json

GOOD = batch(span(1, 1), span(1, 2, 1), service="shop")


@asynccontextmanager
async def serving(receiver: Receiver, *, auto_decompress: bool = True) -> AsyncIterator[str]:
    """The receiver in an aiohttp server on a port the kernel chose."""
    app = web.Application()
    app.router.add_post(PATH, receiver.receive)
    runner = web.AppRunner(app, auto_decompress=auto_decompress)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined] # asyncio's, not the abstract one
    try:
        yield f"http://127.0.0.1:{port}{PATH}"
    finally:
        await runner.cleanup()


async def post(
    receiver: Receiver,
    body: Any,
    kind: str = PROTOBUF,
    *,
    auto_decompress: bool = True,
    encoding: str | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, str, bytes]:
    """One request; status, content type and body of the answer."""
    fields = {"Content-Type": kind, **(headers or {})}
    if encoding is not None:
        fields["Content-Encoding"] = encoding
    async with (
        serving(receiver, auto_decompress=auto_decompress) as url,
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=fields) as response,
    ):
        return response.status, response.content_type, await response.read()


def stored(receiver: Receiver) -> list[Span]:
    return [one for kept in receiver.store.since()[1] for one in spans_in(kept)]


async def test_protobuf() -> None:
    receiver = Receiver(Ring(MIB))
    assert await post(receiver, GOOD) == (200, PROTOBUF, b"")
    assert receiver.store.since()[1] == [GOOD]
    assert (receiver.received, receiver.rejected, receiver.refused) == (2, 0, 0)
    assert "2 spans received" in repr(receiver)


async def test_json() -> None:
    receiver = Receiver(Ring(MIB))
    assert await post(receiver, otlp_json(GOOD), "application/json; charset=utf-8") == (200, JSON, b"{}")
    assert stored(receiver) == spans_in(GOOD)


@pytest.mark.parametrize("auto_decompress", [True, False])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
async def test_gzip(kind: str, auto_decompress: bool) -> None:
    receiver = Receiver(Ring(MIB))
    body = gzip.compress(GOOD if kind == PROTOBUF else otlp_json(GOOD))
    status, _, _ = await post(receiver, body, kind, encoding="gzip", auto_decompress=auto_decompress)
    assert status == 200
    assert stored(receiver) == spans_in(GOOD)


async def test_a_large_body_takes_the_threads_way() -> None:
    receiver = Receiver(Ring(8 * MIB))
    many = batch(*(span(1, number, name="x" * 100) for number in range(1, 2001)))
    assert (await post(receiver, many))[0] == 200
    assert receiver.received == 2000


async def test_an_empty_request_is_a_success() -> None:
    receiver = Receiver(Ring(MIB))
    assert await post(receiver, b"") == (200, PROTOBUF, b"")
    assert await post(receiver, b"{}", JSON) == (200, JSON, b"{}")
    assert receiver.store.since()[1] == []


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
async def test_spans_without_valid_ids_are_rejected_one_by_one(kind: str) -> None:
    receiver = Receiver(Ring(MIB))
    nothing, short, zero, good = Span(), span(1, 1), span(0, 5), span(1, 3)
    short.span_id = b"123"
    body = batch(nothing, good, short, zero)
    status, _, answer = await post(receiver, body if kind == PROTOBUF else otlp_json(body), kind)
    assert status == 200
    assert stored(receiver) == [good]
    if kind == PROTOBUF:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
        assert (partial.rejected_spans, "3 spans" in partial.error_message) == (3, True)
    else:
        assert json.loads(answer)["partialSuccess"]["rejectedSpans"] == "3"
    assert (receiver.received, receiver.rejected) == (1, 3)


async def test_what_does_not_fit_into_the_store_is_rejected_not_lost_in_silence() -> None:
    receiver = Receiver(Ring(100))
    _, _, answer = await post(receiver, GOOD)
    assert ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans == 2
    assert (receiver.received, receiver.rejected) == (0, 2)


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "status", "reason"),
    [
        (b"\xff\xff", PROTOBUF, None, 400, "protobuf"),
        (b"{", JSON, None, 400, "not JSON"),
        (
            b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zz"}]}]}]}',
            JSON,
            None,
            400,
            "traceId is not hex",
        ),
        (b"not gzip", PROTOBUF, "gzip", 400, "Content-Encoding"),
        (GOOD, "text/plain", None, 415, "Content-Type"),
        (GOOD, PROTOBUF, "deflate", 415, "Content-Encoding"),
        (b"x" * 2001, PROTOBUF, None, 413, "larger than 2000"),
        (gzip.compress(b"\0" * 50_000), PROTOBUF, "gzip", 413, "unpacks to more than 9000"),
    ],
    ids=["protobuf", "json", "ids", "gzip", "type", "encoding", "size", "bomb"],
)
async def test_refusals(body: bytes, kind: str, encoding: str | None, status: int, reason: str) -> None:
    receiver = Receiver(Ring(MIB), limit=2000, unpacked=9000)
    answer = await post(receiver, body, kind, encoding=encoding)
    assert answer[0] == status
    if kind == JSON:
        assert answer[1] == JSON
        message = json.loads(answer[2])["message"]
    else:
        assert answer[1] == PROTOBUF
        message = Status.FromString(answer[2]).message
    assert reason in message
    assert (receiver.refused, receiver.received) == (1, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b"\0" * 50_000), 413),
        (gzip.compress(GOOD)[:-5], 400),
        (gzip.compress(GOOD) + b"rest", 400),
        (b"\x1f\x8bnonsense", 400),
        (gzip.compress(GOOD[:10]) + gzip.compress(GOOD[10:]), 200),
    ],
    ids=["bomb", "cut", "trailing", "nonsense", "members"],
)
async def test_gzip_that_the_server_left_to_us(body: bytes, status: int) -> None:
    receiver = Receiver(Ring(MIB), limit=2000, unpacked=9000)
    assert (await post(receiver, body, encoding="gzip", auto_decompress=False))[0] == status


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_chunked_body_has_no_announced_length_and_the_same_bounds() -> None:
    receiver = Receiver(Ring(MIB), limit=2000, unpacked=9000)
    assert (await post(receiver, chunks(GOOD[:20], GOOD[20:])))[0] == 200
    assert (await post(receiver, chunks(*[b"x" * 1000] * 20)))[0] == 413
    packed = gzip.compress(b"".join(number.to_bytes(4, "big") for number in range(2000)))
    assert len(packed) > 2000
    assert (await post(receiver, chunks(packed), encoding="gzip", auto_decompress=False))[0] == 413


async def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "BODY_TIME", 0.05)
    receiver = Receiver(Ring(MIB))

    async with serving(receiver) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].partition("/")[0]))
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 5\r\n\r\n"
        writer.write(head.encode() + b"x")
        assert (await reader.readline()).split()[1] == b"408"
        writer.close()
        await writer.wait_closed()
    assert receiver.refused == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:9901"},
        {"Host": "10.0.0.1"},
    ],
)
async def test_web_pages_are_refused(headers: dict[str, str]) -> None:
    receiver = Receiver(Ring(MIB))
    status, _, answer = await post(receiver, GOOD, headers=headers)
    assert status == 403
    assert Status.FromString(answer).code == 7
    assert receiver.store.since()[1] == []


@pytest.mark.parametrize(
    "host", ["localhost:9901", "LOCALHOST.", "shop.localhost", "127.8.9.1:1", "[::1]:9901", "[::1]"]
)
async def test_this_machines_names(host: str) -> None:
    receiver = Receiver(Ring(MIB))
    assert (await post(receiver, GOOD, headers={"Host": host}))[0] == 200


@pytest.mark.parametrize("peer", [("192.0.2.1", 5), ("2001:db8::1", 5, 0, 0), ("::ffff:192.0.2.1", 5, 0, 0), "", None])
def test_other_machines_are_refused(peer: Any) -> None:
    transport = SimpleNamespace(get_extra_info=lambda _: peer)
    request: Any = SimpleNamespace(transport=transport, headers={"Host": "localhost"})
    with pytest.raises(Refusal) as caught:
        check_origin(request)
    assert caught.value.status == 403
    gone: Any = SimpleNamespace(transport=None, headers={"Host": "localhost"})
    with pytest.raises(Refusal):
        check_origin(gone)


def test_loopback_peers_pass() -> None:
    for peer in (("127.0.0.1", 5), ("::1", 5, 0, 0), ("::ffff:127.0.0.1", 5, 0, 0)):
        transport = SimpleNamespace(get_extra_info=lambda _, peer=peer: peer)
        check_origin(SimpleNamespace(transport=transport, headers={"Host": "localhost"}))  # type: ignore[arg-type] # a stand-in


@pytest.mark.parametrize(
    "host", ["", ".", "localhostx", "1", "127.0.0.1x", "0.0.0.0", "::", "169.254.1.1", "xlocalhost"]
)
def test_what_is_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 1000))
def test_unpacking_is_exact_or_refused_at_the_limit(members: list[bytes], limit: int) -> None:
    packed, whole = b"".join(map(gzip.compress, members)), b"".join(members)
    if len(whole) <= limit:
        assert unpack(packed, limit) == whole
    else:
        with pytest.raises(Refusal) as caught:
            unpack(packed, limit)
        assert caught.value.status == 413


@given(st.binary(max_size=100))
def test_unpacking_anything(data: bytes) -> None:
    status = 200
    try:
        unpack(data, 1000)
    except Refusal as refusal:
        status = refusal.status
    assert status in {200, 400, 413}


def test_unpacking_a_bomb_produces_no_more_than_the_limit() -> None:
    import tracemalloc

    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(64)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(Refusal):
            unpack(bomb, 100_000)
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()


async def test_many_at_once_wait_their_turn() -> None:
    receiver = Receiver(Ring(MIB))
    async with serving(receiver) as url, aiohttp.ClientSession() as session:

        async def one() -> int:
            async with session.post(url, data=GOOD, headers={"Content-Type": PROTOBUF}) as response:
                return response.status

        assert set(await asyncio.gather(*(one() for _ in range(30)))) == {200}
    assert receiver.received == 60


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_what_the_sdks_own_exporter_sends(compression: str) -> None:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    receiver = Receiver(Ring(MIB))
    async with serving(receiver) as url:

        def application() -> bool:
            exporter = OTLPSpanExporter(url, compression=Compression(compression))
            provider = TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(exporter))
            tracer = provider.get_tracer("shop")
            with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
                pass
            flushed = provider.force_flush(10_000)
            provider.shutdown()
            return flushed

        assert await asyncio.to_thread(application)
    assert [one.name for one in stored(receiver)] == ["inner", "outer"]
