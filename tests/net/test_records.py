"""Two sides of `Records` wired by bytes alone."""

from __future__ import annotations

import os
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.net.contexts import upstream_context
from proxy.net.records import Records
from tests.harness.certificates import Certificate


def pair(
    server: ssl.SSLContext, client: ssl.SSLContext | None = None, *, step: int = 1 << 20
) -> tuple[Records, Records]:
    """A server and a client after their handshake, its flights delivered ``step`` bytes at a time."""
    ours = Records(server, server_side=True)
    theirs = Records(client or upstream_context(), server_side=False, server_hostname="shop.test")
    flight = theirs.shake(b"")
    to, other = ours, theirs
    while flight:
        answer = b""
        for start in range(0, len(flight), step):
            piece = flight[start : start + step]
            if to.done:
                assert to.decrypt(piece) == b""
            else:
                answer += to.shake(piece)
        flight, to, other = answer, other, to
    return ours, theirs


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_handshake_in_pieces(server: ssl.SSLContext, version: ssl.TLSVersion, step: int) -> None:
    client = upstream_context()
    client.maximum_version = version
    ours, theirs = pair(server, client, step=step)
    assert ours.done
    assert theirs.done
    assert ours.tls.version() == version.name.replace("_", ".")
    assert ours.tls.selected_alpn_protocol() == theirs.tls.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("size", [1, 16384, 16385, 40_000, 1 << 20])
def test_sizes(server: ssl.SSLContext, size: int) -> None:
    ours, theirs = pair(server)
    body = os.urandom(size)
    for kind in (bytes, bytearray, memoryview):
        ciphertext = theirs.encrypt(kind(body))
        assert len(ciphertext) > size
        assert ours.decrypt(ciphertext) == body
        assert theirs.decrypt(ours.encrypt(kind(body))) == body


@settings(deadline=None, max_examples=40)
@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=5), st.integers(1, 70_000))
def test_any_split_gives_the_same_plaintext(server: ssl.SSLContext, bodies: list[bytes], step: int) -> None:
    ours, theirs = pair(server)
    ciphertext = b"".join(theirs.encrypt(body) for body in bodies)
    got = b"".join(ours.decrypt(ciphertext[start : start + step]) for start in range(0, len(ciphertext), step))
    assert got == b"".join(bodies)


def test_data_with_the_end_of_the_handshake_is_not_lost(server: ssl.SSLContext) -> None:
    ours = Records(server, server_side=True)
    theirs = Records(upstream_context(), server_side=False)
    finished = theirs.shake(ours.shake(theirs.shake(b"")))
    assert theirs.done
    ours.shake(finished + theirs.encrypt(b"GET / HTTP/1.1\r\n\r\n"))
    assert ours.done
    assert ours.undelivered
    assert ours.decrypt(b"") == b"GET / HTTP/1.1\r\n\r\n"
    assert not ours.undelivered


def test_close_notify_ends_the_stream_after_its_data(server: ssl.SSLContext) -> None:
    ours, theirs = pair(server)
    last = theirs.encrypt(b"last")
    assert ours.decrypt(last + theirs.close()) == b"last"
    assert ours.close_notify
    assert ours.error is None
    assert ours.decrypt(b"anything after it") == b""
    assert theirs.decrypt(ours.encrypt(b"half-closed")) == b"half-closed"  # RFC 8446 section 6.1


def test_close_with_undelivered_data_still_writes_close_notify(server: ssl.SSLContext) -> None:
    ours, theirs = pair(server)
    ours._incoming.write(theirs.encrypt(b"never read"))
    theirs.decrypt(ours.close())
    assert theirs.close_notify


def test_a_forged_record_delivers_what_stood_before_it_and_is_answered_by_an_alert(server: ssl.SSLContext) -> None:
    ours, theirs = pair(server)
    good = theirs.encrypt(b"good")
    bad = bytearray(theirs.encrypt(b"bad"))
    bad[-1] ^= 1
    assert ours.decrypt(good + bytes(bad)) == b"good"
    assert ours.error is not None
    assert ours.error.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    assert not ours.close_notify
    assert ours.decrypt(theirs.encrypt(b"more")) == b""
    alert = ours.drain()
    assert theirs.decrypt(alert) == b""
    assert theirs.error is not None
    assert theirs.error.reason == "SSLV3_ALERT_BAD_RECORD_MAC"


@pytest.mark.filterwarnings("ignore:.*TLSVersion.TLSv1_1.*:DeprecationWarning")
def test_tls_1_1_is_refused_with_an_alert(server: ssl.SSLContext) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    ours = Records(server, server_side=True)
    theirs = Records(client, server_side=False)
    alert = ours.shake(theirs.shake(b""))
    assert ours.failure == "unsupported protocol"
    theirs.shake(alert)
    assert theirs.failure == "tlsv1 alert protocol version"


def test_plain_http_is_named(server: ssl.SSLContext) -> None:
    ours = Records(server, server_side=True)
    ours.shake(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    assert ours.failure == "http request"
    assert not ours.done


@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [
        ("shop.test", True, ""),
        ("shop.test", False, "the certificate was not accepted: self-signed certificate"),
        ("bank.test", True, "the certificate was not accepted: Hostname mismatch"),
    ],
)
def test_verifying_client(
    server: ssl.SSLContext, certificate: Certificate, name: str, trusted: bool, reason: str
) -> None:
    client = upstream_context(verify=True)
    if trusted:
        client.load_verify_locations(cadata=certificate.pem.decode())
    theirs = Records(client, server_side=False, server_hostname=name)
    ours = Records(server, server_side=True)
    ours.shake(theirs.shake(ours.shake(theirs.shake(b""))))
    assert theirs.failure[: len(reason) or None] == reason
    assert theirs.done is (not reason)


def test_repr_tells_the_state(server: ssl.SSLContext) -> None:
    ours = Records(server, server_side=True)
    assert "handshake" in repr(ours)
    ours, _ = pair(server)
    assert "done TLSv1.3" in repr(ours)
