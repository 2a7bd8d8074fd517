"""Reports from files as a Collector writes them, and from a proxy's admin pages."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from proxy.errors import SettingsError
from proxy.layers import report_source
from proxy.layers.report_source import from_admin, from_file
from proxy.trace.tree import find, summaries, summary_document, trace_document
from proxy.trace.view import decode
from tests.admin.spans import batch, plain, span

OTHER = "ab" * 16


def batches() -> list[bytes]:
    wire = span(20, 2, "wire", 0.2, 3.9, spanway__wire__split="backend 3.7 ms", spanway__wire__us__backend=3700)
    return [plain(), batch("spanway-wire", wire), plain(OTHER)]


def as_json(message: bytes) -> bytes:
    document = MessageToDict(ExportTraceServiceRequest.FromString(message))
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for each in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in each:
                        each[name] = base64.b64decode(each[name]).hex()
    return json.dumps(document).encode()


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "traces"
    path.write_bytes(data)
    return path


def test_lines_of_json(tmp_path: Path) -> None:
    lines = b"\n".join(map(as_json, batches())) + b"\n\n"
    assert from_file(written(tmp_path, lines)) == decode(batches())
    # The last one is still being written.
    assert from_file(written(tmp_path, lines + as_json(plain())[:50])) == decode(batches())


def test_one_document_over_many_lines(tmp_path: Path) -> None:
    text = json.dumps(json.loads(as_json(plain())), indent=2).encode()
    assert from_file(written(tmp_path, text)) == decode([plain()])


def test_messages_with_their_lengths(tmp_path: Path) -> None:
    data = b"".join(struct.pack(">I", len(each)) + each for each in batches())
    assert from_file(written(tmp_path, data)) == decode(batches())
    assert from_file(written(tmp_path, data + struct.pack(">I", 1000) + b"half")) == decode(batches())


def test_one_message(tmp_path: Path) -> None:
    assert from_file(written(tmp_path, plain())) == decode([plain()])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "neither OTLP/JSON nor OTLP protobuf"),
        (b"hello, world, this is no trace at all", "neither OTLP/JSON nor OTLP protobuf"),
        (b'{"resourceSpans": 1}\n{}\n', "traces:1: not an export request"),
        (
            b'{}\n{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}\n',
            "traces:2: traceId is not",
        ),
        (b"{}\n{broken}\n", "traces:2: not JSON"),
    ],
)
def test_what_is_no_file_of_traces(data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        from_file(written(tmp_path, data))
    assert says in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        from_file(tmp_path / "nowhere")


@pytest.fixture
def admin() -> Iterator[tuple[str, dict[str, Any]]]:
    """An admin listener's address, and its pages by path."""
    pages: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            body = json.dumps(page).encode() if not isinstance(page, bytes) else page
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", pages
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_traces_of_a_proxy(admin: tuple[str, dict[str, Any]]) -> None:
    url, pages = admin
    listed = [summary_document(each) for each in summaries(batches())]
    pages["/traces"] = {"traces": [*listed, {**listed[0], "trace_id": "gone"}]}
    for summary in listed:
        found = find(batches(), summary["trace_id"])
        assert found is not None
        pages[f"/traces/{summary['trace_id']}"] = trace_document(found)
    age = time.time() - 1_790_000_000
    spans = from_admin(url + "/", age + 60)
    key = lambda each: (each.trace_id, each.span_id)  # noqa: E731
    wanted = sorted(decode(batches()), key=key)
    for one, other in zip(sorted(spans, key=key), wanted, strict=True):
        assert (key(one), one.parent_id, one.kind, one.scope) == (key(other), other.parent_id, other.kind, other.scope)
        assert (one.start_ns, one.end_ns, one.attributes) == (other.start_ns, other.end_ns, other.attributes)
    assert from_admin(url, age - 60) == [], "they are older"


def test_that_not_all_of_the_time_is_read_is_said(
    admin: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, pages = admin
    listed = [summary_document(each) for each in summaries(batches())]
    pages["/traces"] = {"traces": listed}
    for summary in listed:
        found = find(batches(), summary["trace_id"])
        assert found is not None
        pages[f"/traces/{summary['trace_id']}"] = trace_document(found)
    age = time.time() - 1_790_000_000
    monkeypatch.setattr(report_source, "_TRACES", len(listed))
    assert from_admin(url, age + 60)
    assert f"the latest {len(listed)} traces are read" in capsys.readouterr().err
    assert from_admin(url, age - 60) == []
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(report_source, "_TRACES", len(listed) + 1)
    assert from_admin(url, age + 60)
    assert capsys.readouterr().err == ""


def test_a_proxy_that_is_not_there(admin: tuple[str, dict[str, Any]]) -> None:
    url, pages = admin
    with pytest.raises(SettingsError, match="answered 404; name the admin address"):
        from_admin(url, 60)
    pages["/traces"] = b"<html>"
    with pytest.raises(SettingsError, match="cannot be read"):
        from_admin(url, 60)
    with pytest.raises(SettingsError, match=r"cannot be read: .*refused"):
        from_admin("http://127.0.0.1:1", 60)
