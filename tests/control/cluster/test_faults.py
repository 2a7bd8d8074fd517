from __future__ import annotations

import json

import pytest

from proxy.control.cluster.faults import (
    AlreadyExists,
    ApiFault,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    ServerFault,
    TooMany,
    Unauthorized,
    fault_of,
)


def status(message: str, reason: str = "", code: int = 0) -> bytes:
    return json.dumps({"kind": "Status", "message": message, "reason": reason, "code": code}).encode()


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", ApiFault),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (422, "Invalid", ApiFault),
        (429, "TooManyRequests", TooMany),
        (500, "InternalError", ServerFault),
        (504, "Timeout", ServerFault),
    ],
)
def test_each_answer_has_a_class_of_its_own(code: int, reason: str, kind: type[ApiFault]) -> None:
    fault = fault_of("list services", code, status("no", reason, code))
    assert type(fault) is kind
    assert (fault.what, fault.message, fault.code) == ("list services", "no", code)
    assert str(fault) == f"list services: no ({code})"


def test_a_refusal_says_verb_and_resource() -> None:
    said = 'services is forbidden: User "x" cannot list resource "services" in API group "" at the cluster scope'
    assert said in str(fault_of("list /api/v1/services", 403, status(said)))


def test_an_event_of_a_watch_has_its_code_in_the_status() -> None:
    assert type(fault_of("watch services", 0, status("too old", "Expired", 410))) is Gone
    assert type(fault_of("watch services", 0, b"{}")) is ServerFault


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"\xff\xfe", b'{"message": 3}', b"[" * 100_000])
def test_a_body_that_is_no_status_still_makes_a_fault(body: bytes) -> None:
    assert str(fault_of("list services", 502, body)) == "list services: the API server answered 502 (502)"


def test_a_servers_words_are_cut_short() -> None:
    assert len(fault_of("x", 500, status("y" * 10_000)).message) == 300


@pytest.mark.parametrize(("field", "seconds"), [("", 0), ("7", 7), ("86400", 120), ("-1", 0), ("tomorrow", 0)])
def test_retry_after_is_believed_within_bounds(field: str, seconds: float) -> None:
    fault = fault_of("x", 429, b"", field)
    assert isinstance(fault, TooMany)
    assert fault.retry_after == seconds
