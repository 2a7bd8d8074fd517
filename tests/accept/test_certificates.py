"""`Certificates` behind real handshakes: which certificate is shown, what is refused, what a reload changes."""

from __future__ import annotations

import gc
import os
import ssl
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxy.accept.certificates import Certificates, ignore_malformed_names
from proxy.accept.selfsigned import NAME
from proxy.net.records import Records
from proxy.route.spec import CertificateSpec, TableSpec
from tests.harness.certificates import Certificate, any_server

SHOP, WILD, OTHER, DEFAULT = Certificate("shop.test"), Certificate("*.shop.test"), Certificate("o"), Certificate("d")


def spec(secret: str, made: Certificate, *hosts: str) -> CertificateSpec:
    return CertificateSpec(secret, hosts, made.pem, made.key)


def table(*certificates: CertificateSpec, default: CertificateSpec | None = None) -> TableSpec:
    return TableSpec(1, certificates=certificates, default_certificate=default)


def shaken(
    certificates: Certificates, name: str | None, client: ssl.SSLContext | None = None
) -> tuple[Records, Records]:
    """Both sides after a handshake that asks for ``name``."""
    ours = Records(certificates.context, server_side=True)
    theirs = Records(client or any_server(), server_side=False, server_hostname=name)
    flight = theirs.shake(b"")
    while not (ours.done or ours.failure):
        flight = ours.shake(flight)
        flight = theirs.decrypt(flight) if theirs.done else theirs.shake(flight)
    if theirs.done:
        theirs.decrypt(flight)
    return ours, theirs


def shown(certificates: Certificates, name: str | None) -> bytes | None:
    ours, theirs = shaken(certificates, name)
    assert not ours.failure
    return theirs.tls.getpeercert(binary_form=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop.test", SHOP),
        ("SHOP.Test", SHOP),
        ("a.shop.test", WILD),
        ("A.SHOP.TEST", WILD),
        ("exact.shop.test", OTHER),
        ("a.b.shop.test", DEFAULT),
        ("shop.test.evil", DEFAULT),
        ("xshop.test", DEFAULT),
        ("192.0.2.1", DEFAULT),
        (None, DEFAULT),
    ],
)
def test_exact_over_one_label_wildcard_over_default(name: str | None, expected: Certificate) -> None:
    certificates = Certificates()
    problems = certificates.update(
        table(
            spec("ns/wild", WILD, "*.shop.test"),
            spec("ns/shop", SHOP, "shop.test"),
            spec("ns/other", OTHER, "exact.shop.test", "shop.test"),  # too late for shop.test
            default=spec("ns/default", DEFAULT, "default.test"),
        )
    )
    assert problems == []
    assert shown(certificates, name) == expected.der


def test_the_default_of_the_table_is_made_up_once_where_there_is_none() -> None:
    certificates = Certificates()
    certificates.update(table(spec("ns/shop", SHOP, "shop.test")))
    first = shown(certificates, "unknown.test")
    assert first is not None
    certificate = x509.load_der_x509_certificate(first)
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == f"CN={NAME}"
    assert (
        certificate.not_valid_after_utc - certificate.not_valid_before_utc >= certificate.not_valid_after_utc.resolution
    )
    certificates.update(table())
    assert shown(certificates, "shop.test") == first
    certificates.update(table(default=spec("ns/default", DEFAULT)))
    assert shown(certificates, "unknown.test") == DEFAULT.der
    certificates.update(table())
    assert shown(certificates, "unknown.test") == first
    assert Certificates().context is not certificates.context


def test_before_the_first_table_every_handshake_fails_cleanly() -> None:
    ours, theirs = shaken(Certificates(), "shop.test")
    assert ours.failure == "no suitable signature algorithm"
    assert theirs.failure == "sslv3 alert handshake failure"


def test_a_reload_swaps_what_changed_and_keeps_what_did_not() -> None:
    certificates = Certificates()
    certificates.update(table(spec("ns/shop", SHOP, "shop.test"), spec("ns/wild", WILD, "*.shop.test")))
    context = certificates.context
    before = shaken(certificates, "shop.test")[0].tls.context
    certificates.update(table(spec("ns/shop", SHOP, "shop.test", "more.test"), spec("ns/wild", OTHER, "*.shop.test")))
    assert certificates.context is context
    assert shaken(certificates, "shop.test")[0].tls.context is before
    assert shaken(certificates, "more.test")[0].tls.context is before
    assert shown(certificates, "a.shop.test") == OTHER.der
    certificates.update(table(spec("ns/shop", OTHER, "shop.test")))
    assert shown(certificates, "shop.test") == OTHER.der


def test_a_session_outlives_a_reload() -> None:
    certificates = Certificates()
    certificates.update(table(spec("ns/shop", SHOP, "shop.test")))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = any_server()
        client.maximum_version = version
        theirs = shaken(certificates, "shop.test", client)[1]
        assert not theirs.tls.session_reused
        session = theirs.tls.session
        certificates.update(table(spec("ns/shop", OTHER, "shop.test")))
        ours = Records(certificates.context, server_side=True)
        again = Records(client, server_side=False, server_hostname="shop.test", session=session)
        ours.shake(again.shake(ours.shake(again.shake(b""))))
        assert ours.tls.session_reused


def pem_of(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encrypted(kind: serialization.PrivateFormat) -> bytes:
    key = serialization.load_pem_private_key(SHOP.key, None)
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.BestAvailableEncryption(b"secret"))


BAD = {
    "another's key": (SHOP.pem, WILD.key, "the key does not belong to the certificate"),
    "no certificate": (b"", SHOP.key, "there is no PEM certificate"),
    "DER": (SHOP.der, SHOP.key, "there is no PEM certificate"),
    "no key": (SHOP.pem, b"", "there is no PEM private key"),
    "swapped": (SHOP.key, SHOP.pem, "there is no PEM certificate"),
    "cut": (SHOP.pem[:-60], SHOP.key, "its PEM is damaged"),
    "bad base64": (SHOP.pem.replace(b"MI", b"!!"), SHOP.key, "its PEM is damaged"),
    "bad link in the chain": (
        SHOP.pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        SHOP.key,
        "its PEM is damaged",
    ),
    "key of another kind": (
        SHOP.pem,
        pem_of(rsa.generate_private_key(65537, 1024)),
        "the key does not belong to the certificate",
    ),
    "encrypted key": (SHOP.pem, encrypted(serialization.PrivateFormat.PKCS8), "the key is encrypted"),
    "encrypted key, old": (SHOP.pem, encrypted(serialization.PrivateFormat.TraditionalOpenSSL), "the key is encrypted"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_certificate_is_reported_and_leaves_the_others_alone(name: str) -> None:
    pem, key, reason = BAD[name]
    bad = CertificateSpec("ns/shop", ("shop.test",), pem, key)
    good, default = spec("ns/wild", WILD, "*.shop.test"), spec("ns/default", DEFAULT)

    fresh = Certificates()
    problems = fresh.update(table(bad, good, default=default))
    assert len(problems) == 1
    assert problems[0].startswith(f"TLS secret ns/shop: {reason}; it is left out. ")
    assert "PRIVATE" not in problems[0]
    assert shown(fresh, "shop.test") == DEFAULT.der
    assert shown(fresh, "a.shop.test") == WILD.der

    running = Certificates()
    assert running.update(table(spec("ns/shop", SHOP, "shop.test"), good)) == []
    for _ in range(2):
        problems = running.update(table(bad, good))
        assert len(problems) == 1
        assert problems[0].startswith(f"TLS secret ns/shop: {reason}; its former certificate stays in use. ")
        assert shown(running, "shop.test") == SHOP.der
        assert shown(running, "a.shop.test") == WILD.der


def test_a_bad_default_is_reported_and_replaced() -> None:
    certificates = Certificates()
    bad = CertificateSpec("ns/default", (), SHOP.pem, WILD.key)
    assert len(certificates.update(table(default=bad))) == 1
    assert NAME.encode() in (shown(certificates, "shop.test") or b"")


def test_a_chain_is_served_whole() -> None:
    certificates = Certificates()
    certificates.update(table(CertificateSpec("ns/shop", ("shop.test",), SHOP.pem + WILD.pem + OTHER.pem, SHOP.key)))
    client = any_server()
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # where certificates are in the clear
    ours = Records(certificates.context, server_side=True)
    answer = ours.shake(Records(client, server_side=False, server_hostname="shop.test").shake(b""))
    assert answer.index(SHOP.der) < answer.index(WILD.der) < answer.index(OTHER.der)


def test_keys_stay_off_the_disk_and_descriptors_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(context: ssl.SSLContext, chain: str, key: str, password: object) -> None:
        paths.extend((chain, key))
        load(context, chain, key, password)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    certificates = Certificates()
    assert certificates.update(table(spec("ns/shop", SHOP, "shop.test"))) == []
    assert all(path.startswith("/proc/self/fd/") for path in paths)

    def forbidden(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", forbidden)
    paths.clear()
    certificates = Certificates()
    assert certificates.update(table(spec("ns/shop", SHOP, "shop.test"))) == []
    assert all(path.startswith("/dev/fd/") for path in paths)
    assert shown(certificates, "shop.test") == SHOP.der
    large = CertificateSpec("ns/large", ("large.test",), SHOP.pem * 2000, SHOP.key)
    assert "larger than a pipe holds" in certificates.update(table(large))[0]
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_nothing_shows_the_key() -> None:
    certificates = Certificates()
    certificates.update(table(spec("ns/shop", SHOP, "shop.test"), spec("ns/wild", WILD, "*.shop.test")))
    assert repr(certificates).startswith("Certificates(ns/shop, ns/wild; ")
    assert "for shop.test, *.shop.test)" in repr(certificates)
    for text in (repr(certificates), repr(spec("ns/shop", SHOP, "shop.test"))):
        assert "PRIVATE" not in text


def test_only_strong_suites_are_offered() -> None:
    for suite in Certificates().context.get_ciphers():
        assert suite["aead"]
        assert suite["strength_bits"] >= 128
        assert suite["name"].startswith(("TLS_", "ECDHE-"))


def test_a_malformed_name_fails_its_handshake_and_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    ignore_malformed_names()
    certificates = Certificates()
    certificates.update(table(spec("ns/shop", SHOP, "shop.test")))
    hello = Records(any_server(), server_side=False, server_hostname="shop.test").shake(b"")
    ours = Records(certificates.context, server_side=True)
    ours.shake(hello.replace(b"shop.test", b"sh\xffp.test"))
    assert ours.failure
    assert reports == []

    class Failing:
        def __del__(self) -> None:
            raise UnicodeDecodeError("ascii", b"", 0, 0, "no name")

    Failing()
    gc.collect()
    assert len(reports) == 1  # everything else is
