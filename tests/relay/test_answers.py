from __future__ import annotations

import json
from email.utils import parsedate_to_datetime

import pytest

from proxy.errors import Kind
from proxy.http1.scan import scan_response
from proxy.relay.answers import CONTINUE, REASONS, answer, fault_body

ANSWERED = [kind for kind in Kind if kind.status]


@pytest.mark.parametrize("kind", ANSWERED, ids=lambda kind: kind.label)
@pytest.mark.parametrize("accept", [b"", b"text/html, application/JSON;q=0.5"])
def test_a_fault_explains_itself(kind: Kind, accept: bytes) -> None:
    body, content_type = fault_body(kind, "0af7651916cd43dd8448eb211c80319c", accept)
    if accept:
        assert content_type == b"application/json"
        assert json.loads(body) == {
            "status": kind.status,
            "error": kind.label,
            "message": kind.text,
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
        }
    else:
        assert content_type == b"text/plain; charset=utf-8"
        for part in (str(kind.status), kind.label, kind.text, "0af7651916cd43dd8448eb211c80319c"):
            assert part in body.decode()
    assert body.endswith(b"\n")


@pytest.mark.parametrize("kind", ANSWERED, ids=lambda kind: kind.label)
def test_every_answer_is_a_response(kind: Kind) -> None:
    data = answer(kind.status, b"body", b"text/plain", b"Allow: GET\r\n", keep=False, minor=1, head_only=False)
    head, _, body = data.partition(b"\r\n\r\n")
    scanned = scan_response(head, 100)
    assert (scanned.status, scanned.noted[b"content-length"], body) == (kind.status, b"4", b"body")
    assert scanned.noted[b"connection"] == b"close"
    assert b"Allow: GET" in scanned.lines
    (date,) = [line for line in scanned.lines if line.startswith(b"Date: ")]
    assert parsedate_to_datetime(date[6:].decode()).tzinfo is not None


@pytest.mark.parametrize(
    ("keep", "minor", "connection"),
    [(True, 1, None), (True, 0, b"keep-alive"), (False, 1, b"close"), (False, 0, b"close")],
)
def test_whether_the_connection_stays(keep: bool, minor: int, connection: bytes | None) -> None:
    data = answer(404, b"", b"text/plain", b"", keep=keep, minor=minor, head_only=False)
    assert scan_response(data[:-4], 100).noted.get(b"connection") == connection


def test_head_has_the_length_and_no_body() -> None:
    data = answer(502, b"body", b"text/plain", b"", keep=True, minor=1, head_only=True)
    assert data.endswith(b"\r\n\r\n")
    assert b"Content-Length: 4\r\n" in data


def test_no_content_has_no_entity() -> None:
    data = answer(204, b"", b"", b"", keep=True, minor=1, head_only=False)
    assert b"Content-" not in data


def test_a_status_without_a_name() -> None:
    assert answer(299, b"", b"text/plain", b"", keep=True, minor=1, head_only=False).startswith(
        b"HTTP/1.1 299 Unknown\r\n"
    )
    assert REASONS[413].isascii()


def test_continue_is_an_interim_response() -> None:
    assert scan_response(CONTINUE[:-4], 0).status == 100
