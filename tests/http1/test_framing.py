"""Body framing, the table of RFC 9112 section 6.3."""

from __future__ import annotations

import pytest

from proxy.errors import Fault, Kind
from proxy.http1.framing import CHUNKED, UNTIL_CLOSE, request_framing, response_framing
from proxy.http1.head import RequestHead, ResponseHead


def framing(minor: int = 1, /, **fields: bytes) -> int:
    noted = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return request_framing(RequestHead(b"POST", b"/", minor, b"", noted))


def answer(status: int, method: bytes = b"GET", minor: int = 1, /, **fields: bytes) -> int:
    noted = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return response_framing(ResponseHead(status, b"", minor, b"", noted), method)


def test_requests() -> None:
    assert framing() == 0
    assert framing(content_length=b"5") == 5
    assert framing(content_length=b"003") == 3
    assert framing(transfer_encoding=b"chunked") == CHUNKED
    assert framing(transfer_encoding=b"Chunked") == CHUNKED


@pytest.mark.parametrize(
    "value", [b"", b"+5", b"-0", b"1_0", b"0x5", b"1 0", b"5, 5", b"5,6", b"9" * 30, b"0" * 65, b"\xb2", b"5\t"]
)
def test_lengths_refused(value: bytes) -> None:
    with pytest.raises(Fault) as caught:
        framing(content_length=value)
    assert caught.value.kind is Kind.BAD_FRAMING


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"gzip", Kind.NOT_IMPLEMENTED),
        (b"identity", Kind.NOT_IMPLEMENTED),
        (b"gzip, chunked", Kind.NOT_IMPLEMENTED),
        (b"xchunked", Kind.NOT_IMPLEMENTED),
        (b"chunked, chunked", Kind.BAD_FRAMING),
        (b"chunked, gzip", Kind.BAD_FRAMING),
        (b"", Kind.BAD_FRAMING),
        (b",chunked", Kind.BAD_FRAMING),
        (b"chunked,", Kind.BAD_FRAMING),
    ],
)
def test_codings_refused(value: bytes, kind: Kind) -> None:
    with pytest.raises(Fault) as caught:
        framing(transfer_encoding=value)
    assert caught.value.kind is kind


def test_both_and_old_versions_are_refused() -> None:
    for fields in ({"content_length": b"5", "transfer_encoding": b"chunked"},):
        with pytest.raises(Fault):
            framing(**fields)
    with pytest.raises(Fault):
        framing(0, transfer_encoding=b"chunked")


def test_responses() -> None:
    assert answer(200) == UNTIL_CLOSE
    assert answer(200, content_length=b"7") == 7
    assert answer(200, transfer_encoding=b"chunked") == CHUNKED
    for status in (204, 304):
        assert answer(status, content_length=b"7") == 0
    assert answer(200, b"HEAD", content_length=b"7") == 0
    assert answer(200, b"HEAD", transfer_encoding=b"chunked") == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"content_length": b"5", "transfer_encoding": b"chunked"},
        {"transfer_encoding": b"gzip, chunked"},
        {"transfer_encoding": b"chunked, chunked"},
        {"content_length": b"x"},
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_bad_responses(fields: dict[str, bytes], method: bytes) -> None:
    with pytest.raises(Fault) as caught:
        answer(200, method, **fields)
    assert caught.value.kind is Kind.BAD_RESPONSE
