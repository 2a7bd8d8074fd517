import io
import json
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from proxy.admin.control import ControlSample, Followed
from proxy.admin.server import Admin
from proxy.admin.source import Cursor, Readiness
from proxy.errors import SettingsError
from proxy.route.spec import BackendSpec, CertificateSpec, EndpointSpec, RouteSpec, TableSpec
from proxy.settings import Address
from proxy.trace.ring import Ring
from tests.admin.samples import endpoint, observe, route_stats, worker
from tests.admin.spans import TRACE, checkout, plain

OTHER = "4bf900000000000000000000000000aa"
FAST = "99f92f3577b34da6a3ce929d0e0e4736"


class Problem:
    severity, kind, namespace, name, file, line = "warning", "no_endpoints", "demo", "cart", "cart.yaml", 7
    field, message, hint = "spec.rules[0]", "no endpoint is ready", "start one"


class FakeSource:
    def __init__(self):
        self.ring = Ring(1 << 20)
        self.ready = Readiness(True)
        key = b"-----BEGIN PRIVATE KEY-----"
        self.spec = TableSpec(
            7,
            (RouteSpec("demo", "shop", "u1", "12", "shop.localhost", "/", "Prefix", "demo/shop:80"),),
            (
                BackendSpec(
                    "demo/shop:80",
                    "demo",
                    "shop",
                    "80",
                    (EndpointSpec("10.0.0.7", 8080, "a"), EndpointSpec("fd00::1", 80)),
                ),
            ),
            certificates=(CertificateSpec("demo/tls", ("shop.localhost",), b"-----BEGIN CERTIFICATE-----", key),),
            default_route=RouteSpec("demo", "rest", "", "", "", "", "Prefix", "demo/shop:80"),
            default_certificate=CertificateSpec("demo/default", (), b"-----BEGIN CERTIFICATE-----", key),
        )

    async def samples(self):
        return [worker(stats=[observe(route_stats())], endpoints=[endpoint(requests=9, ejected=True, latency=0.0123)])]

    async def batches(self):
        return self.ring.since()[1]

    async def batches_since(self, cursor):
        position, batches = self.ring.since(cursor.positions.get("1", 0))
        return Cursor({"1": position}), batches

    def table(self):
        return self.spec

    def problems(self):
        return [Problem()]

    def cluster(self):
        return None

    def control(self):
        return ControlSample()

    def followed(self, trace_id):
        if trace_id != "a" * 32:
            return None
        return Followed((("Ingress", "shop", "web", "42"),), 7, served=True, traces=("b" * 32,), first="c" * 32)

    def exits(self):
        return 0

    def readiness(self):
        return self.ready


@asynccontextmanager
async def admin(source=None, host="127.0.0.1", receiver=True):
    source = source or FakeSource()
    server = Admin(source, Address(host, 0), source.ring if receiver else None)
    async with TestClient(TestServer(server.application())) as client:
        yield client, source


async def fetch(client, path, status=200, **headers):
    async with client.get(path, headers=headers) as answer:
        assert answer.status == status, await answer.text()
        assert answer.content_type == "application/json"
        return await answer.json()


async def test_the_index_lists_every_page_and_every_page_is_there():
    async with admin() as (client, _):
        async with client.get("/") as answer:
            index = await answer.text()
        for path in ("/healthz", "/readyz", "/metrics", "/routes", "/traces"):
            assert f"\n  {path} " in index
            async with client.get(path) as answer:
                assert answer.status == 200, path
                assert "Access-Control-Allow-Origin" not in answer.headers
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cache-Control"] == "no-store"


async def test_ready_and_why_not():
    async with admin() as (client, source):
        assert await fetch(client, "/readyz") == {"ready": True, "reasons": []}
        source.ready = Readiness(False, ("worker 2 serves generation 6 of 7",))
        assert (await fetch(client, "/readyz", 503))["reasons"] == ["worker 2 serves generation 6 of 7"]
        async with client.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")


async def test_metrics_in_the_format_that_was_asked_for():
    async with admin() as (client, _):
        async with client.get("/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert 'spanway_requests_total{code="200"' in await answer.text()
        async with client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"}) as answer:
            assert answer.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
            text = await answer.text()
    families = {family.name: family for family in parse_openmetrics(text)}
    assert any(sample.exemplar for sample in families["http_server_request_duration_seconds"].samples)
    assert [s.value for s in families["spanway_config_problems"].samples if s.labels["severity"] == "warning"] == [1]


async def test_routes_show_the_table_its_health_and_its_problems_but_no_key():
    async with admin() as (client, _), client.get("/routes") as answer:
        text = await answer.text()
    assert "BEGIN" not in text
    page = json.loads(text)
    assert page["generation"] == 7
    assert page["workers"] == [{"pid": 101, "generation": 3}]
    (route,) = page["routes"]
    assert (route["ingress"], route["host"], route["path"], route["backend"]) == (
        "shop",
        "shop.localhost",
        "/",
        "demo/shop:80",
    )
    assert page["defaults"][0]["host"] == "*"
    known, unknown = page["backends"][0]["endpoints"]
    assert (known["address"], known["ejected"], known["requests"], known["latency_ms"]) == (
        "10.0.0.7:8080",
        True,
        9,
        12.3,
    )
    assert unknown == {"address": "[fd00::1]:80", "zone": ""}
    assert page["certificates"] == [{"secret": "demo/tls", "hosts": ["shop.localhost"]}]
    assert page["default_certificate"] == {"secret": "demo/default", "hosts": []}
    assert page["problems"][0]["file"] == "cart.yaml"
    assert page["problems"][0]["line"] == 7


def fill(source):
    for each in (*checkout(failed=True), plain(OTHER, start_ms=1000), plain(FAST, start_ms=2000, ms=1.0)):
        assert source.ring.add(each)


async def test_traces_newest_first_and_filtered():
    async with admin() as (client, source):
        assert await fetch(client, "/traces") == {"traces": [], "matching": 0, "kept": 0}
        fill(source)

        async def ids(query=""):
            return [trace["trace_id"] for trace in (await fetch(client, f"/traces{query}"))["traces"]]

        assert await ids() == [FAST, OTHER, TRACE]
        assert await ids("?limit=1") == [FAST]
        assert await ids("?service=stock") == [TRACE]
        assert await ids("?min_ms=4") == [OTHER, TRACE]
        assert await ids("?min_ms=4.3") == [TRACE]
        assert await ids("?error=1") == [TRACE]
        page = await fetch(client, "/traces?limit=1&min_ms=2")
        assert (page["matching"], page["kept"]) == (2, 3)


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "limit=nan", "min_ms=inf", "error=yes", "errors=1"])
async def test_a_query_that_makes_no_sense_is_named(query):
    async with admin() as (client, _):
        assert query.partition("=")[0] in (await fetch(client, f"/traces?{query}", 400))["error"]


async def test_one_trace_by_the_beginning_of_its_id():
    async with admin() as (client, source):
        fill(source)
        page = await fetch(client, f"/traces/{TRACE}")
        for prefix in (TRACE[:6].upper(), TRACE[:20]):
            assert await fetch(client, f"/traces/{prefix}") == page
        assert page["trace_id"] == TRACE
        assert [span["depth"] for span in page["spans"]][:4] == [0, 1, 2, 3]
        assert page["spans"][0]["service"] == "spanway"
        assert "4 or more" in (await fetch(client, "/traces/4bf", 400))["error"]
        assert "hexadecimal" in (await fetch(client, "/traces/checkout", 400))["error"]
        assert "only the newest are kept" in (await fetch(client, "/traces/ffff", 404))["error"]
        several = await fetch(client, "/traces/4bf9", 409)
        assert sorted(several["traces"]) == sorted([TRACE, OTHER])


async def test_spans_sent_to_the_receiver_are_in_the_next_answer():
    async with admin() as (client, _):
        body = checkout()[1]
        async with client.post("/v1/traces", data=body, headers={"Content-Type": "application/x-protobuf"}) as answer:
            assert answer.status == 200
            assert ExportTraceServiceResponse.FromString(await answer.read()) == ExportTraceServiceResponse()
        page = await fetch(client, f"/traces/{TRACE}")
        sent = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
        assert {span["span_id"] for span in page["spans"]} == {span.span_id.hex() for span in sent}


async def test_a_body_larger_than_a_page_needs_reaches_the_receiver():
    source = FakeSource()
    source.ring = Ring(8 << 20)
    async with admin(source) as (client, _):
        big = b"".join(checkout()) * 1200
        assert len(big) > 2 << 20
        async with client.post(
            "/v1/traces", data=io.BytesIO(big), headers={"Content-Type": "application/x-protobuf"}
        ) as answer:
            assert answer.status == 200
        assert len((await fetch(client, f"/traces/{TRACE}"))["spans"]) == 13


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:9901", "127.1.2.3", "[::1]:80", "admin.localhost:1", "LOCALHOST."]
)
async def test_loopback_names_are_answered(host):
    async with admin() as (client, _), client.get("/traces", headers={"Host": host}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "", "[::1", "localhost:x"],
)
@pytest.mark.parametrize("path", ["/traces", "/metrics", "/nothing"])
async def test_a_rebound_name_is_refused_on_loopback(host, path):
    async with admin() as (client, _):
        assert "loopback" in (await fetch(client, path, 421, Host=host))["error"]


async def test_a_listener_that_is_open_on_purpose_answers_to_any_name():
    async with (
        admin(host="0.0.0.0") as (client, _),
        client.get("/readyz", headers={"Host": "spanway.ingress:9901"}) as answer,
    ):
        assert answer.status == 200


@pytest.mark.parametrize(
    "fields", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}]
)
async def test_a_page_of_another_site_cannot_write_spans(fields):
    async with admin() as (client, source):
        headers = {"Content-Type": "application/x-protobuf", **fields}
        async with client.post("/v1/traces", data=checkout()[0], headers=headers) as answer:
            assert answer.status in (403, 421)
        assert len(source.ring) == 0


async def test_errors_are_json_and_say_what_to_do():
    async with admin() as (client, _):
        assert "/ lists what there is" in (await fetch(client, "/nothing", 404))["error"]
        async with client.post("/routes") as answer:
            assert answer.status == 405
            assert "GET" in answer.headers["Allow"]
            assert "POST is not possible" in (await answer.json())["error"]


async def test_a_source_that_fails_is_a_500_without_its_words(caplog):
    class Broken(FakeSource):
        async def samples(self):
            raise RuntimeError("secret detail")

    async with admin(Broken()) as (client, _):
        page = await fetch(client, "/metrics", 500)
    assert "secret" not in json.dumps(page)
    assert "secret detail" in caplog.text


async def test_without_a_receiver_spans_are_not_taken():
    async with admin(receiver=False) as (client, _):
        async with client.post("/v1/traces", data=b"") as answer:
            assert answer.status == 404
        async with client.get("/") as answer:
            assert "/v1/traces" not in await answer.text()


async def test_what_has_become_of_the_objects_of_a_trace() -> None:
    async with admin() as (client, _):
        answer = await client.get(f"/followed/{'A' * 32}")
        assert await answer.json() == {
            "objects": [["Ingress", "shop", "web", "42"]],
            "generation": 7,
            "idle": [],
            "served": True,
            "traces": ["b" * 32],
            "first": "c" * 32,
        }
        answer = await client.get("/followed/nothing")
        assert answer.status == 404
        assert "no object that carries this trace" in await answer.text()


async def test_it_listens_says_where_and_stops():
    server = Admin(FakeSource(), Address("127.0.0.1", 0))
    address = await server.start()
    assert address.port > 0
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address}/healthz") as answer:
            assert answer.status == 200
        await server.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"http://{address}/healthz")


async def test_a_port_that_is_taken_is_a_settings_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{port}.*--admin"):
            await Admin(FakeSource(), Address("127.0.0.1", port)).start()
