from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from proxy.control.cluster import client as clients
from proxy.control.cluster.access import find
from proxy.control.cluster.client import Client, TooLarge
from proxy.control.cluster.faults import (
    Forbidden,
    Garbled,
    Gone,
    ServerFault,
    TooMany,
    Unauthorized,
    Unreachable,
)
from proxy.control.cluster.lines import Lines
from proxy.control.cluster.spans import PROPAGATORS, template, trace_config
from proxy.errors import SettingsError
from tests.control.cluster.answers import TURNS
from tests.control.cluster.scripted import Scripted, scripted
from tests.harness.certificates import Certificate
from tests.harness.kube_api import FakeApiServer

PATH = "/api/v1/services"


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Scripted, Client]]:
    async with scripted(tmp_path) as pair:
        yield pair


async def lines_of(client: Client, silence: float = 5.0, lines: Lines | None = None) -> list[bytes]:
    async with client.watch(PATH, {}, silence, lines or Lines()) as stream:
        return [line async for line in stream]


async def test_a_call_logs_in_and_says_who_it_is(served: tuple[Scripted, Client]) -> None:
    script, client = served
    await client.page(PATH, {"limit": "5", "continue": "a+b/c="})
    [(path, query, headers)] = script.asked
    assert (path, query) == (PATH, {"limit": "5", "continue": "a+b/c="})
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["User-Agent"].startswith("spanway/")
    assert headers["Accept"] == "application/json"


async def test_documents_are_sent_as_json_in_the_form_that_is_said(served: tuple[Scripted, Client]) -> None:
    script, client = served
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, request.content_type, await request.json()))
        return web.json_response({"done": True}, status=201)

    script.handler = handler
    assert json.loads(await client.send("POST", PATH, {"a": "ü"})) == {"done": True}
    await client.send("PATCH", PATH, {"a": None}, clients.MERGE_PATCH)
    assert seen == [
        ("POST", "application/json", {"a": "ü"}),
        ("PATCH", "application/merge-patch+json", {"a": None}),
    ]


@pytest.mark.parametrize(
    ("code", "kind"), [(401, Unauthorized), (403, Forbidden), (410, Gone), (500, ServerFault), (503, ServerFault)]
)
async def test_what_is_no_success_is_a_fault_with_the_servers_words(
    code: int, kind: type[Exception], served: tuple[Scripted, Client]
) -> None:
    script, client = served
    script.answers(json.dumps({"message": "services is forbidden"}), code)
    with pytest.raises(kind) as caught:
        await client.page(PATH, {})
    assert str(caught.value) == f"list {PATH}: services is forbidden ({code})"
    with pytest.raises(kind):
        await lines_of(client)


async def test_too_many_requests_say_when_to_come_again(served: tuple[Scripted, Client]) -> None:
    script, client = served
    script.answers(b"", 429, retry_after="3")
    with pytest.raises(TooMany) as caught:
        await client.page(PATH, {})
    assert caught.value.retry_after == 3


async def test_after_a_401_the_log_in_is_read_again_but_not_in_a_hurry(
    served: tuple[Scripted, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, client = served

    async def handler(request: web.Request) -> web.StreamResponse:
        fits = request.headers["Authorization"] == "Bearer another"
        return web.json_response({"metadata": {"resourceVersion": "1"}}, status=200 if fits else 401)

    script.handler = handler
    script.token = "another"
    script.kubeconfig()
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await client.page(PATH, {})
    monkeypatch.setattr(clients, "AGAIN", 0.0)
    with pytest.raises(Unauthorized):
        await client.page(PATH, {})
    await client.page(PATH, {})


async def test_after_the_authority_has_changed_the_log_in_is_read_again(
    fake: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake.kubeconfig()
    right = path.read_text()
    wrong = base64.b64encode(Certificate("127.0.0.1").pem).decode()
    path.write_text(right.replace(base64.b64encode(fake.authority.pem).decode(), wrong))
    client = Client(find(str(path), {}))
    await client.open()
    try:
        path.write_text(right)
        monkeypatch.setattr(clients, "AGAIN", 0.0)
        with pytest.raises(Unreachable):
            await client.page(PATH, {})
        assert b"ServiceList" in await client.page(PATH, {})
    finally:
        await client.close()
        await asyncio.sleep(TURNS)


async def test_a_kubeconfig_that_is_half_written_does_not_end_what_works(
    served: tuple[Scripted, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, client = served
    monkeypatch.setattr(clients, "AGAIN", 0.0)
    (script.folder / "kubeconfig").write_text("clusters: [")
    script.answers(b"", 401)
    with pytest.raises(Unauthorized):
        await client.page(PATH, {})
    script.answers(b"{}")
    assert await client.page(PATH, {}) == b"{}"


async def test_no_server_is_unreachable(served: tuple[Scripted, Client]) -> None:
    script, _ = served
    script.url = "http://127.0.0.1:1"
    gone = Client(find(script.kubeconfig(), {}))
    with pytest.raises(Unreachable, match="the client is closed"):
        await gone.page(PATH, {})
    await gone.open()
    with pytest.raises(Unreachable, match=f"list {PATH}: Cannot connect to host 127.0.0.1:1"):
        await gone.page(PATH, {})
    with pytest.raises(Unreachable):
        await lines_of(gone)
    await gone.close()


async def test_a_server_that_says_nothing_is_unreachable(
    served: tuple[Scripted, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, client = served
    monkeypatch.setattr(clients, "CALL", 0.05)

    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    script.handler = handler
    with pytest.raises(Unreachable, match="no answer within"):
        await client.page(PATH, {})
    with pytest.raises(Unreachable, match="no answer within"):
        await lines_of(client)


async def test_a_body_that_never_ends_is_given_up(
    served: tuple[Scripted, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, client = served
    monkeypatch.setattr(clients, "CALL", 0.1)

    async def drip(response: web.StreamResponse) -> None:
        for _ in range(1000):
            await response.write(b" ")
            await asyncio.sleep(0.01)

    script.streams(drip)
    with pytest.raises(Unreachable):
        await client.page(PATH, {})


async def test_a_body_that_breaks_off_is_unreachable(served: tuple[Scripted, Client]) -> None:
    script, client = served

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"items":')
        assert request.transport is not None
        request.transport.abort()
        return response

    script.handler = handler
    with pytest.raises(Unreachable):
        await client.page(PATH, {})


async def test_pages_have_a_bound_also_when_they_are_packed(
    served: tuple[Scripted, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, client = served
    monkeypatch.setattr(clients, "PAGE", 100_000)
    script.answers(b"x" * 100_001)
    with pytest.raises(TooLarge, match="larger than 100000 bytes"):
        await client.page(PATH, {})
    script.answers(gzip.compress(b"x" * 50_000_000), encoding="gzip")
    with pytest.raises(TooLarge):
        await client.page(PATH, {})
    script.answers(gzip.compress(b"{}"), encoding="gzip")
    assert await client.page(PATH, {}) == b"{}"


async def test_a_token_with_a_line_break_does_not_reach_the_wire_nor_a_message(
    served: tuple[Scripted, Client],
) -> None:
    script, _ = served
    script.token = "t0ken\r\nX-Evil: 1"
    evil = Client(find(script.kubeconfig(), {}))
    await evil.open()
    with pytest.raises(Unreachable) as caught:
        await evil.page(PATH, {})
    assert "t0ken" not in str(caught.value)
    assert script.asked == []
    await evil.close()


async def test_a_kubeconfig_that_cannot_be_used_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        await Client(find(str(tmp_path / "none"), {})).open()


# Watches.


async def test_a_watch_yields_lines_until_the_server_ends_it(served: tuple[Scripted, Client]) -> None:
    script, client = served

    async def produce(response: web.StreamResponse) -> None:
        for piece in (b'{"a"', b':1}\n{"b":2}\n', b"{}\n"):
            await response.write(piece)
            await asyncio.sleep(0.01)

    script.streams(produce)
    assert await lines_of(client) == [b'{"a":1}', b'{"b":2}', b"{}"]
    assert script.asked[0][1] == {"watch": "1"}


async def test_a_watch_that_is_silent_is_given_up(served: tuple[Scripted, Client]) -> None:
    script, client = served

    async def produce(response: web.StreamResponse) -> None:
        await response.write(b"{}\n")
        await asyncio.sleep(5)

    script.streams(produce)
    with pytest.raises(Unreachable, match=r"nothing came for 0\.1 s"):
        await lines_of(client, 0.1)


async def test_a_watch_whose_line_never_ends_is_given_up_and_costs_little(served: tuple[Scripted, Client]) -> None:
    script, client = served

    async def produce(response: web.StreamResponse) -> None:
        for _ in range(100_000):
            await response.write(b"x" * 1000)
            await asyncio.sleep(0)

    script.streams(produce)
    lines = Lines(10_000)
    with pytest.raises(Unreachable):
        await lines_of(client, 0.2, lines)
    assert lines.dropped == 1
    assert "Lines(0 bytes held" in repr(lines)


async def test_a_watch_that_is_cut_is_unreachable(served: tuple[Scripted, Client]) -> None:
    script, client = served

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{}\n")
        await asyncio.sleep(0.02)
        assert request.transport is not None
        request.transport.abort()
        return response

    script.handler = handler
    with pytest.raises(Unreachable):
        await lines_of(client)


async def test_a_storm_of_events_leaves_others_their_turn(served: tuple[Scripted, Client]) -> None:
    script, client = served
    number = 20_000

    async def produce(response: web.StreamResponse) -> None:
        await response.write(b'{"type":"MODIFIED"}\n' * number)

    script.streams(produce)
    turns = 0
    done = False

    async def others() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(others())
    assert len(await lines_of(client)) == number
    done = True
    await task
    assert turns >= number // 64


async def test_leaving_a_watch_closes_its_connection(served: tuple[Scripted, Client]) -> None:
    script, client = served
    ended = asyncio.Event()

    async def produce(response: web.StreamResponse) -> None:
        try:
            while True:
                await response.write(b"{}\n")
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    script.streams(produce)
    async with client.watch(PATH, {}, 5.0, Lines()) as stream:
        async for _ in stream:
            break
    async with asyncio.timeout(5):
        await ended.wait()


# Spans.


class Kept(SpanProcessor):
    """Keeps what ends."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


async def test_calls_are_spans_and_carry_their_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROPAGATORS, "tracecontext,baggage,jaeger")
    kept, provider = Kept(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(kept)
    async with scripted(tmp_path, trace_config(provider)) as (script, client):
        await client.page("/apis/networking.k8s.io/v1/namespaces/shop/ingresses", {"limit": "5"})
    [span] = kept.spans
    assert span.name == "GET /apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses"
    assert span.context is not None
    traceparent = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
    headers = {name.lower(): value for name, value in script.asked[0][2].items()}
    assert headers["traceparent"] == traceparent
    attributes = dict(span.attributes or {})
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.response.status_code"] == 200
    assert "t0ken" not in span.to_json()


async def test_a_quiet_call_is_no_span(tmp_path: Path) -> None:
    kept, provider = Kept(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(kept)
    async with scripted(tmp_path, trace_config(provider)) as (script, client):
        await client.get(PATH, quiet=True)
        await client.send("PUT", PATH, {}, quiet=True)
        assert kept.spans == []
        await client.get(PATH)
    assert len(kept.spans) == 1
    assert ["traceparent" in headers for _, _, headers in script.asked] == [False, False, True]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/api/v1/services", "/api/v1/services"),
        ("/api/v1/namespaces/shop/secrets/tls", "/api/v1/namespaces/{namespace}/secrets/{name}"),
        (
            "/apis/networking.k8s.io/v1/namespaces/a/ingresses/b/status",
            "/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}/status",
        ),
        ("/apis/networking.k8s.io/v1/ingressclasses", "/apis/networking.k8s.io/v1/ingressclasses"),
        ("/", "/"),
    ],
)
def test_what_tells_objects_apart_is_in_no_spans_name(path: str, shape: str) -> None:
    assert template(path) == shape


def test_faults_are_what_they_are_derived_from() -> None:
    assert issubclass(TooLarge, Garbled)
