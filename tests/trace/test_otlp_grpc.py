from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import DebugInfo, RetryInfo

from proxy.errors import SettingsError
from proxy.settings import Tracing
from proxy.trace.otlp_grpc import RETRYABLE, GrpcTransport
from proxy.trace.transport import Outcome
from tests.harness.certificates import Certificate
from tests.trace.collectors import (
    Failure,
    Gate,
    GrpcCollector,
    HttpCollector,
    partial,
    retry_info,
    status_details,
    unused_port,
)
from tests.trace.spans import batch, span, spans_in

DETAILS = "grpc-status-details-bin"
WAIT = 10.0


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[GrpcTransport] = []

    def build(endpoint: str, **settings: Any) -> GrpcTransport:
        transport = GrpcTransport(Tracing(endpoint=endpoint, **settings), "1.2")
        made.append(transport)
        return transport

    yield build
    for transport in made:
        transport.close()


def test_bytes_arrive_as_they_are(make: Any) -> None:
    with GrpcCollector() as collector:
        transport = make(collector.url)
        assert transport.send(batch(span(1, 2)), WAIT) == Outcome("accepted", "OK")
        assert spans_in(collector.requests[0]) == [span(1, 2)]
        assert transport.endpoint == collector.url
        assert str(collector.metadata[0]["user-agent"]).startswith("spanway-otlp-exporter-python/1.2 ")


def test_an_empty_request_is_a_probe_that_succeeds(make: Any) -> None:
    with GrpcCollector() as collector:
        assert make(collector.url).send(b"", WAIT).verdict == "accepted"


def test_partial_success(make: Any) -> None:
    with GrpcCollector(partial(3, "too old"), partial(0, "a warning"), b"\xff") as collector:
        transport = make(collector.url)
        assert transport.send(b"", WAIT) == Outcome("accepted", "OK", rejected=3, text="too old")
        assert transport.send(b"", WAIT) == Outcome("accepted", "OK", rejected=0, text="a warning")
        assert "OTLP collector?" in transport.send(b"", WAIT).text


FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_every_status(make: Any, code: grpc.StatusCode) -> None:
    with GrpcCollector(Failure(code, "why")) as collector:
        outcome = make(collector.url).send(b"", WAIT)
    assert (outcome.code, outcome.text) == (code.name, "why")
    # RESOURCE_EXHAUSTED is not retryable without RetryInfo (OTLP specification).
    assert outcome.verdict == ("retry" if code.name in RETRYABLE else "refused")
    assert outcome.delay is None


def test_the_retryable_codes_are_those_of_the_specification() -> None:
    expected = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
    assert expected == RETRYABLE


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "UNAVAILABLE"])
@pytest.mark.parametrize(
    ("details", "delay"),
    [
        ((retry_info(2.5),), 2.5),
        ((DebugInfo(detail="x"), retry_info(7.0)), 7.0),
        ((RetryInfo(),), 0.0),
        ((RetryInfo(retry_delay=Duration(seconds=-1)),), 0.0),
    ],
)
def test_throttling(make: Any, code: str, details: tuple[Any, ...], delay: float) -> None:
    failure = Failure(grpc.StatusCode[code], "busy", ((DETAILS, status_details(*details)),))
    with GrpcCollector(failure) as collector:
        outcome = make(collector.url).send(b"", WAIT)
    assert outcome == Outcome("retry", code, delay=delay, text="busy", hint=outcome.hint)


@pytest.mark.parametrize("details", [b"\xff\xff", status_details(DebugInfo(detail="x")), b""])
def test_resource_exhausted_with_other_details_is_final(make: Any, details: bytes) -> None:
    failure = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("x-other", b"y"), (DETAILS, details)))
    # Keys of binary trailers end in -bin; the other one is text.
    failure.trailers = (("x-other", "y"), (DETAILS, details))  # type: ignore[assignment] # gRPC takes both
    with GrpcCollector(failure) as collector:
        assert make(collector.url).send(b"", WAIT).verdict == "refused"


def test_retry_info_does_not_make_a_final_status_retryable(make: Any) -> None:
    failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "no", ((DETAILS, status_details(retry_info(1.0))),))
    with GrpcCollector(failure) as collector:
        assert make(collector.url).send(b"", WAIT).verdict == "refused"


def test_hints(make: Any) -> None:
    with GrpcCollector(
        Failure(grpc.StatusCode.UNAUTHENTICATED),
        Failure(grpc.StatusCode.UNIMPLEMENTED),
        Failure(grpc.StatusCode.INTERNAL),
    ) as collector:
        transport = make(collector.url)
        assert "OTEL_EXPORTER_OTLP_HEADERS" in transport.send(b"", WAIT).hint
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" in transport.send(b"", WAIT).hint
        assert transport.send(b"", WAIT).hint == ""


def test_headers_go_along_and_their_secrets_never_come_back(make: Any) -> None:
    echo = Failure(grpc.StatusCode.PERMISSION_DENIED, "key s3cr3t\nis bad (Bearer s3cr3t)")
    with GrpcCollector(echo) as collector:
        transport = make(collector.url, headers=(("Authorization", "Bearer s3cr3t"), ("x-raw-bin", "abc")))
        outcome = transport.send(b"", WAIT)
        assert collector.metadata[0]["authorization"] == "Bearer s3cr3t"
        assert collector.metadata[0]["x-raw-bin"] == b"abc"
    assert outcome.text == "key REDACTED is bad (REDACTED)"
    assert "s3cr3t" not in repr(transport)


def test_compression(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server's handler cannot see how its request was encoded, so the channel's making is watched.
    used: list[Any] = []
    channel = grpc.insecure_channel

    def watched(*arguments: Any, compression: Any, **more: Any) -> Any:
        used.append(compression)
        return channel(*arguments, compression=compression, **more)

    monkeypatch.setattr(grpc, "insecure_channel", watched)
    with GrpcCollector() as collector:
        body = batch(*(span(1, number) for number in range(1, 200)))
        assert make(collector.url, compression="gzip").send(body, WAIT).verdict == "accepted"
        assert len(spans_in(collector.requests[0])) == 199
        assert make(collector.url).send(body, WAIT).verdict == "accepted"
    assert used == [grpc.Compression.Gzip, grpc.Compression.NoCompression]


def test_nobody_listens(make: Any) -> None:
    port = unused_port()
    outcome = make(f"http://127.0.0.1:{port}").send(b"", WAIT)
    assert (outcome.verdict, outcome.code) == ("retry", "UNAVAILABLE")
    assert outcome.hint.startswith("Start a collector there, correct --otlp or OTEL_EXPORTER_OTLP_ENDPOINT, or turn")
    assert "--otlp none" in outcome.hint
    bare = make(f"127.0.0.1:{port}").send(b"", WAIT)
    assert bare.hint == f"Without http:// it is TLS; write http://127.0.0.1:{port} for plain text. {outcome.hint}"
    assert make(f"https://127.0.0.1:{port}").send(b"", WAIT).hint == outcome.hint
    assert make(f"127.0.0.1:{port}", insecure=True).send(b"", WAIT).hint == outcome.hint


def test_a_collector_that_does_not_answer(make: Any) -> None:
    with GrpcCollector(b"", Gate()) as collector:
        transport = make(collector.url)
        assert transport.send(b"", WAIT).verdict == "accepted"
        outcome = transport.send(b"", 0.2)
    assert (outcome.verdict, outcome.code) == ("retry", "DEADLINE_EXCEEDED")


def test_the_http_port_is_recognised(make: Any) -> None:
    with HttpCollector() as collector:
        outcome = make(collector.url).send(b"", WAIT)
    assert outcome.verdict == "retry"
    assert "http/protobuf" in outcome.hint


def test_a_collector_that_restarts(make: Any) -> None:
    with GrpcCollector() as collector:
        transport = make(collector.url)
        assert transport.send(b"", WAIT).verdict == "accepted"
        port = collector.port
    assert transport.send(b"", WAIT).verdict == "retry"
    with GrpcCollector(port=port):
        for _ in range(2000):
            if transport.send(b"", WAIT).verdict == "accepted":
                return
            threading.Event().wait(0.01)
    pytest.fail("the channel did not come back")


def test_abort_ends_a_call_from_another_thread(make: Any) -> None:
    gate = Gate()
    with GrpcCollector(gate) as collector:
        transport = make(collector.url)
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(transport.send(b"", 60.0)))
        thread.start()
        assert gate.reached.wait(WAIT)
        transport.abort()
        thread.join(WAIT)
        assert [(outcome.verdict, outcome.code) for outcome in outcomes] == [("retry", "CANCELLED")]
        assert transport.send(b"", WAIT).code == "CANCELLED"
        assert "aborted" in repr(transport)


class TestTls:
    def test_with_the_collectors_certificate(self, make: Any, tmp_path: Path) -> None:
        certificate = Certificate("localhost", "127.0.0.1")
        ca = tmp_path / "ca.pem"
        ca.write_bytes(certificate.pem)
        credentials = grpc.ssl_server_credentials(((certificate.key, certificate.pem),))
        with GrpcCollector(credentials=credentials) as collector:
            for endpoint in (f"https://localhost:{collector.port}", f"localhost:{collector.port}"):
                assert make(endpoint, certificate=str(ca)).send(b"", WAIT).verdict == "accepted"
            # The scheme decides before the insecure setting.
            secure = make(f"https://localhost:{collector.port}", certificate=str(ca), insecure=True)
            assert secure.send(b"", WAIT).verdict == "accepted"
            unknown = make(f"https://localhost:{collector.port}").send(b"", WAIT)
            assert (unknown.verdict, unknown.code) == ("retry", "UNAVAILABLE")

    def test_with_a_client_certificate(self, make: Any, tmp_path: Path) -> None:
        server, client = Certificate("localhost"), Certificate("spanway")
        for name, content in (("ca", server.pem), ("cert", client.pem), ("key", client.key)):
            (tmp_path / name).write_bytes(content)
        credentials = grpc.ssl_server_credentials(((server.key, server.pem),), client.pem, require_client_auth=True)
        with GrpcCollector(credentials=credentials) as collector:
            url = f"https://localhost:{collector.port}"
            mutual = make(
                url,
                certificate=str(tmp_path / "ca"),
                client_certificate=str(tmp_path / "cert"),
                client_key=str(tmp_path / "key"),
            )
            assert mutual.send(b"", WAIT).verdict == "accepted"
            assert make(url, certificate=str(tmp_path / "ca")).send(b"", WAIT).verdict == "retry"

    def test_a_certificate_file_that_vanished_meanwhile(self, make: Any, tmp_path: Path) -> None:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(Certificate("localhost").pem)
        transport = make("https://localhost:1", certificate=str(ca))
        ca.unlink()
        outcome = transport.send(b"", WAIT)
        assert (outcome.verdict, outcome.text) == ("retry", f"No such file or directory: {ca}")


@pytest.mark.parametrize(
    ("endpoint", "insecure", "expected"),
    [
        ("http://collector:4317", False, ("collector:4317", False, "http://collector:4317")),
        ("http://collector:4317/", True, ("collector:4317", False, "http://collector:4317")),
        ("https://collector:4317", True, ("collector:4317", True, "https://collector:4317")),
        ("collector:4317", False, ("collector:4317", True, "https://collector:4317")),
        ("collector:4317", True, ("collector:4317", False, "http://collector:4317")),
        ("http://collector", False, ("collector:4317", False, "http://collector:4317")),
        ("collector", True, ("collector:4317", False, "http://collector:4317")),
        ("https://api.example", False, ("api.example:443", True, "https://api.example:443")),
        ("http://[::1]:4317", False, ("[::1]:4317", False, "http://[::1]:4317")),
        ("unix:/run/otel.sock", False, ("unix:/run/otel.sock", False, "unix:/run/otel.sock")),
    ],
)
def test_targets(endpoint: str, insecure: bool, expected: tuple[str, bool, str]) -> None:
    transport = GrpcTransport(Tracing(endpoint=endpoint, insecure=insecure))
    assert (transport._target, transport._secure, transport.endpoint) == expected
    assert "not opened" in repr(transport)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("ftp://collector:4317", "scheme 'ftp'"),
        ("http://collector:4318/v1/traces", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        ("http://collector:4317?key=hunter2", "path or query"),
        ("http://me:hunter2@collector:4317", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("", "host name"),
    ],
)
def test_endpoints_that_are_not_for_grpc(endpoint: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        GrpcTransport(Tracing(endpoint=endpoint))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["grpc-timeout", "x!y", "a|b"])
def test_headers_that_are_not_for_grpc(name: str) -> None:
    with pytest.raises(SettingsError, match="gRPC metadata"):
        GrpcTransport(Tracing(endpoint="http://c:4317", headers=((name, "x"),)))
