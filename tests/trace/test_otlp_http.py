from __future__ import annotations

import email.utils
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import SettingsError
from proxy.settings import Tracing
from proxy.trace.otlp_http import ANSWER_LIMIT, RETRYABLE, HttpTransport, retry_after
from proxy.trace.transport import Outcome
from tests.harness.certificates import Certificate
from tests.trace.collectors import Answer, Gate, GrpcCollector, HttpCollector, partial, unused_port
from tests.trace.spans import batch, span, spans_in

WAIT = 10.0
TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[HttpTransport] = []

    def build(endpoint: str, **settings: Any) -> HttpTransport:
        transport = HttpTransport(Tracing(endpoint=endpoint, protocol="http/protobuf", **settings), "1.2")
        made.append(transport)
        return transport

    yield build
    for transport in made:
        transport.close()


def test_bytes_arrive_as_they_are_on_one_kept_connection(make: Any) -> None:
    with HttpCollector() as collector:
        transport = make(collector.url)
        for number in (1, 2, 3):
            assert transport.send(batch(span(1, number)), WAIT) == Outcome("accepted", "200")
        assert [spans_in(request.message) for request in collector.requests] == [[span(1, n)] for n in (1, 2, 3)]
        assert collector.connections == 1
        first = collector.requests[0]
        assert first.target == "/v1/traces"
        assert first.headers["content-type"] == "application/x-protobuf"
        assert first.headers["user-agent"] == "spanway-otlp-exporter-python/1.2"
        assert "content-encoding" not in first.headers
        assert "connected" in repr(transport)


def test_a_request_in_pieces_is_one_request(make: Any) -> None:
    with HttpCollector() as collector:
        whole = batch(*(span(1, number) for number in range(100)))
        assert make(collector.url).send([whole[:7], whole[7:-9], whole[-9:]], WAIT).verdict == "accepted"
        (request,) = collector.requests
        assert request.body == whole
        assert request.headers["content-length"] == str(len(whole))
        assert "transfer-encoding" not in request.headers


def test_an_empty_request_is_a_probe_that_succeeds(make: Any) -> None:
    with HttpCollector() as collector:
        assert make(collector.url).send(b"", WAIT).verdict == "accepted"
        assert collector.requests[0].headers["content-length"] == "0"


def test_gzip(make: Any) -> None:
    with HttpCollector() as collector:
        body = batch(*(span(1, number) for number in range(1, 200)))
        assert make(collector.url, compression="gzip").send(body, WAIT).verdict == "accepted"
        request = collector.requests[0]
        assert request.headers["content-encoding"] == "gzip"
        assert len(request.body) < len(body) // 2
        assert len(spans_in(request.message)) == 199


def test_headers_override_ours_only_where_they_may(make: Any) -> None:
    with HttpCollector(Answer(401, b"Bearer s3cr3t: s3cr3t is bad", TEXT)) as collector:
        transport = make(
            collector.url,
            headers=(
                ("Authorization", "Bearer s3cr3t"),
                ("USER-AGENT", "me"),
                ("Content-Type", "x/y"),
                ("X-Team", "a b"),
            ),
        )
        outcome = transport.send(b"", WAIT)
        sent = collector.requests[0].headers
    assert (sent["authorization"], sent["user-agent"], sent["x-team"]) == ("Bearer s3cr3t", "me", "a b")
    assert sent["content-type"] == "application/x-protobuf"
    assert outcome.text == "REDACTED: REDACTED is bad"
    assert "OTEL_EXPORTER_OTLP_HEADERS" in outcome.hint


def test_credentials_in_the_endpoint_become_basic_authorization(make: Any) -> None:
    with HttpCollector(Answer(403, b"dXNlcjpwQHNz or p@ss or sesame", TEXT)) as collector:
        transport = make(f"http://user:p%40ss@127.0.0.1:{collector.port}/base/?key=sesame")
        outcome = transport.send(b"", WAIT)
        assert collector.requests[0].headers["authorization"] == "Basic dXNlcjpwQHNz"
        assert collector.requests[0].target == "/base/v1/traces?key=sesame"
    assert transport.endpoint == f"http://127.0.0.1:{collector.port}/base/v1/traces"
    assert "p@ss" not in outcome.text + repr(transport)
    assert "dXNlcjpwQHNz" not in outcome.text


@pytest.mark.parametrize("status", [*range(200, 207), 300, 301, 307, 400, 401, 403, 404, 405, 408, 413, 415, 418, 429])
@pytest.mark.parametrize("more", [0, 100])
def test_every_status(make: Any, status: int, more: int) -> None:
    status += more if status >= 400 else 0
    headers = {"Location": "http://elsewhere/"} if 300 <= status < 400 else {}
    with HttpCollector(Answer(status, b"" if status in {204, 205} else partial(0), headers)) as collector:
        outcome = make(collector.url).send(b"", WAIT)
        assert len(collector.requests) == 1  # nothing is followed or repeated here
    assert outcome.code == str(status)
    expected = "accepted" if status < 300 else "retry" if status in RETRYABLE else "refused"
    assert outcome.verdict == expected


def test_the_retryable_statuses_are_those_of_the_specification() -> None:
    assert {429, 502, 503, 504} == RETRYABLE


@pytest.mark.parametrize("status", sorted(RETRYABLE))
def test_retry_after(make: Any, status: int) -> None:
    with HttpCollector(Answer(status, b"later", {**TEXT, "Retry-After": " 17 "})) as collector:
        assert make(collector.url).send(b"", WAIT) == Outcome("retry", str(status), delay=17.0, text="later")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 5000, 999_999_999.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),  # a digit, but not one of HTTP's
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59.0),
        ("Fri, 31 Dec 1999 23:58:00 GMT", 0.0),
        ("Friday, 31-Dec-99 23:59:59 GMT", 59.0),
        ("Fri, 31 Dec 99999999999999 23:59:59 GMT", None),
    ],
)
def test_retry_after_values(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=946_684_740.0) == seconds


@given(st.text(max_size=40) | st.datetimes().map(email.utils.format_datetime))
def test_any_retry_after(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or seconds >= 0


def test_partial_success(make: Any) -> None:
    with HttpCollector(Answer(body=partial(3, "too old")), Answer(body=partial(0, "a warning"))) as collector:
        transport = make(collector.url)
        assert transport.send(b"", WAIT) == Outcome("accepted", "200", rejected=3, text="too old")
        assert transport.send(b"", WAIT) == Outcome("accepted", "200", text="a warning")


@pytest.mark.parametrize(
    ("answer", "asks"),
    [
        (Answer(body=b"{}", headers={"Content-Type": "application/json"}), False),
        (Answer(body=b"", headers={"Content-Type": "text/html"}), False),
        (Answer(body=b"<html>", headers={"Content-Type": "text/html"}), True),
        (Answer(body=b"<html>"), True),
    ],
)
def test_successes_out_of_the_ordinary(make: Any, answer: Answer, asks: bool) -> None:
    with HttpCollector(answer) as collector:
        outcome = make(collector.url).send(b"", WAIT)
    assert outcome.verdict == "accepted"
    assert ("is this an OTLP collector?" in outcome.text) is asks


def test_the_message_of_a_failure(make: Any) -> None:
    status = Status(code=3, message="span 4 has\nno id").SerializeToString()
    with HttpCollector(
        Answer(400, status),
        Answer(400, b"\xff\xff"),
        Answer(400, b"x" * 9999, TEXT),
        Answer(400, b"<p>", {"Content-Type": "text/html"}),
    ) as collector:
        transport = make(collector.url)
        assert transport.send(b"", WAIT) == Outcome("refused", "400", text="span 4 has no id")
        assert transport.send(b"", WAIT).text == "Whatever"  # the reason phrase
        assert len(transport.send(b"", WAIT).text) < 500
        assert transport.send(b"", WAIT).text == "Whatever"


@pytest.mark.parametrize("status", [404, 405, 307])
def test_a_wrong_path_has_a_hint(make: Any, status: int) -> None:
    with HttpCollector(Answer(status)) as collector:
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" in make(collector.url).send(b"", WAIT).hint


def test_a_kept_connection_that_was_closed_meanwhile_is_no_failure(make: Any) -> None:
    with HttpCollector() as collector:
        transport = make(collector.url)
        assert transport.send(b"1", WAIT).verdict == "accepted"
        collector.hang_up()
        assert transport.send(b"22", WAIT).verdict == "accepted"
        assert [request.body for request in collector.requests] == [b"1", b"22"]
        assert collector.connections == 2


def test_connection_close_is_respected(make: Any) -> None:
    with HttpCollector(Answer(headers={"Connection": "close"}, close=True)) as collector:
        transport = make(collector.url)
        assert transport.send(b"", WAIT).verdict == "accepted"
        assert "not connected" in repr(transport)
        assert transport.send(b"", WAIT).verdict == "accepted"
        assert collector.connections == 2


def test_an_endless_answer_is_not_read_to_its_end(make: Any) -> None:
    with HttpCollector(Answer(400, b"x" * (ANSWER_LIMIT + 1), TEXT)) as collector:
        transport = make(collector.url)
        assert transport.send(b"", WAIT).verdict == "refused"
        assert "not connected" in repr(transport)
        assert transport.send(b"", WAIT).verdict == "accepted"


def test_a_chunked_answer(make: Any) -> None:
    body = partial(2, "x")
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\n"
    with HttpCollector(Answer(raw=head + chunk)) as collector:
        transport = make(collector.url)
        assert transport.send(b"", WAIT).rejected == 2
        assert transport.send(b"", WAIT).verdict == "accepted"
        assert collector.connections == 1


@pytest.mark.parametrize("cut", [0, 1, 9, 11])
def test_an_answer_cut_before_its_status_is_retried_by_the_sender(make: Any, cut: int) -> None:
    with HttpCollector(Answer(cut=cut)) as collector:
        transport = make(collector.url)
        outcome = transport.send(b"", WAIT)
        assert outcome.verdict == "retry"
        assert len(collector.requests) == 1
        assert transport.send(b"", WAIT).verdict == "accepted"


@pytest.mark.parametrize("missing", [1, 5])
def test_an_answer_cut_after_its_status_counts_by_its_status(make: Any, missing: int) -> None:
    good, bad = Answer(body=partial(2, "x")), Answer(400, b"because", TEXT)
    for answer in (good, bad):
        answer.cut = len(answer.encode()) - missing
    with HttpCollector(good, bad) as collector:
        transport = make(collector.url)
        assert transport.send(b"", WAIT) == Outcome("accepted", "200", text="its answer was cut short")
        assert transport.send(b"", WAIT).verdict == "refused"
        assert "not connected" in repr(transport)


@pytest.mark.parametrize("raw", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 40 + b"\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_does_not_speak_http(make: Any, raw: bytes) -> None:
    with HttpCollector(Answer(raw=raw, close=True)) as collector:
        outcome = make(collector.url).send(b"", WAIT)
    assert (outcome.verdict, outcome.code) == ("retry", "bad_answer")


def test_the_grpc_port_is_recognised(make: Any) -> None:
    with GrpcCollector() as collector:
        outcome = make(collector.url).send(b"", WAIT)
    assert outcome.verdict == "retry"
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in outcome.hint


def test_nobody_listens(make: Any) -> None:
    outcome = make(f"http://127.0.0.1:{unused_port()}").send(b"", WAIT)
    assert (outcome.verdict, outcome.code) == ("retry", "unreachable")
    assert "--otlp none" in outcome.hint
    assert make("http://nowhere.invalid:4318").send(b"", WAIT).code == "unreachable"


def test_a_collector_that_does_not_answer(make: Any) -> None:
    with HttpCollector(Answer(gate=Gate())) as collector:
        transport = make(collector.url)
        outcome = transport.send(b"", 0.1)
        assert (outcome.verdict, outcome.code) == ("retry", "timeout")
        # On a kept connection the timeout of the new call holds, not that of the old one.
        assert transport.send(b"", WAIT).verdict == "accepted"
        collector.script.append(Answer(gate=Gate()))
        assert transport.send(b"", 0.1).code == "timeout"


def test_abort_ends_a_call_from_another_thread(make: Any) -> None:
    gate = Gate()
    with HttpCollector(Answer(gate=gate)) as collector:
        transport = make(collector.url)
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(transport.send(b"", 60.0)))
        thread.start()
        assert gate.reached.wait(WAIT)
        transport.abort()
        thread.join(WAIT)
        assert [outcome.verdict for outcome in outcomes] == ["retry"]
        assert transport.send(b"", WAIT).verdict == "retry"
        assert len(collector.requests) == 1
        assert "aborted" in repr(transport)
    make("http://127.0.0.1:1").abort()  # nothing under way


class TestTls:
    def test_with_the_collectors_certificate(self, make: Any, tmp_path: Path) -> None:
        certificate = Certificate("localhost", "127.0.0.1")
        ca = tmp_path / "ca.pem"
        ca.write_bytes(certificate.pem)
        with HttpCollector(tls=certificate.server_context(tmp_path)) as collector:
            url = f"https://localhost:{collector.port}"
            transport = make(url, certificate=str(ca))
            assert transport.send(b"", WAIT).verdict == "accepted"
            assert transport.send(b"", WAIT).verdict == "accepted"
            assert collector.connections == 1
            unknown = make(url).send(b"", WAIT)
            assert (unknown.verdict, unknown.code) == ("retry", "tls_failed")
            assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in unknown.hint

    def test_the_name_must_match(self, make: Any, tmp_path: Path) -> None:
        certificate = Certificate("elsewhere.example")
        ca = tmp_path / "ca.pem"
        ca.write_bytes(certificate.pem)
        with HttpCollector(tls=certificate.server_context(tmp_path)) as collector:
            assert make(f"https://localhost:{collector.port}", certificate=str(ca)).send(b"", WAIT).code == "tls_failed"

    def test_a_renewed_certificate_is_read_after_a_failed_handshake(self, make: Any, tmp_path: Path) -> None:
        old, new = Certificate("localhost"), Certificate("localhost")
        ca = tmp_path / "ca.pem"
        ca.write_bytes(old.pem)
        with HttpCollector(tls=new.server_context(tmp_path)) as collector:
            transport = make(f"https://localhost:{collector.port}", certificate=str(ca))
            assert transport.send(b"", WAIT).code == "tls_failed"
            ca.write_bytes(new.pem)
            assert transport.send(b"", WAIT).verdict == "accepted"

    def test_with_a_client_certificate(self, make: Any, tmp_path: Path) -> None:
        server, client = Certificate("localhost"), Certificate("spanway")
        for name, content in (("ca", server.pem), ("cert", client.pem), ("key", client.key)):
            (tmp_path / name).write_bytes(content)
        context = server.server_context(tmp_path)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client.pem.decode())
        with HttpCollector(tls=context) as collector:
            url = f"https://localhost:{collector.port}"
            mutual = make(
                url,
                certificate=str(tmp_path / "ca"),
                client_certificate=str(tmp_path / "cert"),
                client_key=str(tmp_path / "key"),
            )
            assert mutual.send(b"", WAIT).verdict == "accepted"
            assert make(url, certificate=str(tmp_path / "ca")).send(b"", WAIT).verdict == "retry"

    def test_a_certificate_file_that_is_none(self, make: Any, tmp_path: Path) -> None:
        ca = tmp_path / "ca.pem"
        ca.write_text("not a certificate")
        assert make("https://localhost:1", certificate=str(ca)).send(b"", WAIT).code == "tls_failed"


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp", "https://c/otlp/v1/traces"),
        ("http://c:4318/v1/traces", "http://c:4318/v1/traces"),
        ("http://c:4318/v1/traces/", "http://c:4318/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_the_path_is_appended(endpoint: str, url: str) -> None:
    assert HttpTransport(Tracing(endpoint=endpoint)).endpoint == url


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://c:4317", "http://", "unix:/x"])
def test_endpoints_that_are_not_for_http(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        HttpTransport(Tracing(endpoint=endpoint))
