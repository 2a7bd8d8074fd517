"""Answers the proxy writes itself."""

from __future__ import annotations

import json
import re
import secrets

import pytest

from tests.harness.edge import Edge, request, sized
from tests.harness.traced import PARENT

MIB = 1024 * 1024


# Error pages.

ERRORS = {
    "404": (request(host="nowhere.test"), 404, "no_route"),
    "502": (request(host="dead.test"), 502, "connect_failed"),
    "503": (request(host="none.test"), 503, "no_endpoint"),
    "413": (sized(b"x" * 20, host="small.test"), 413, "body_too_large"),
    "405": (request(method="TRACE"), 405, "method_not_allowed"),
    "417": (request("Expect: x"), 417, "expectation_failed"),
    "400": (request(target="/%00"), 400, "bad_target"),
}


@pytest.mark.parametrize(("raw", "status", "label"), ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "application/json", "text/plain, application/json;q=0.5"])
def test_error_page(edge: Edge, raw: bytes, status: int, label: str, accept: str) -> None:
    trace_id = secrets.token_hex(16)
    lines = f"traceparent: 00-{trace_id}-{PARENT}-01\r\n" + (f"Accept: {accept}\r\n" if accept else "")
    raw = raw.replace(b"\r\n", b"\r\n" + lines.encode(), 1)
    with edge.client() as client:
        response = client.ask(raw)
    assert response.status == status
    kind = response.fields.one("Content-Type")
    if accept == "application/json":
        assert kind.startswith("application/json")
        page = json.loads(response.body)
        assert (page["status"], page["error"]) == (status, label)
        assert page["message"]
        shown = page["trace_id"]
    elif "json" not in accept:
        assert kind.startswith("text/plain")
        assert label in response.text
        found = re.search(r"\b[0-9a-f]{32}\b", response.text)
        assert found
        shown = found[0]
    else:
        return
    assert len(response.body) < 600
    if status != 400:  # a malformed request need not have been read to its traceparent
        assert shown == trace_id


def test_error_page_for_head_has_no_body(edge: Edge) -> None:
    with edge.client() as client:
        response = client.ask(request(host="none.test", method="HEAD"), method="HEAD")
        assert response.status == 503
        edge.probe(client)


def test_error_page_for_http_1_0(edge: Edge) -> None:
    with edge.client() as client:
        assert client.ask(request(host="none.test", version="1.0")).status == 503
        assert client.closed()


def test_error_page_repeats_nothing_of_the_request(edge: Edge) -> None:
    evil = "<script>alert(1)</script>"
    with edge.client() as client:
        response = client.ask(
            request(f"X-A: {evil}", f"User-Agent: {evil}", target="/%3Cscript%3Ealert(1)", host="nowhere.test")
        )
    assert response.status == 404
    assert b"script" not in response.body
    assert "script" not in repr(response.fields)
