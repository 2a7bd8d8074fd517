"""TLS termination: certificates by name, changed live; versions, ALPN, broken handshakes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import pytest

from tests.harness import poll
from tests.harness.certificates import Certificate, any_server, served
from tests.harness.client import Client
from tests.harness.edge import Edge, request, sized
from tests.harness.manifests import documents, secret, site

# TLS.


@pytest.fixture(scope="module")
def certificates() -> dict[str, Certificate]:
    names = {
        "exact": "tls.test",
        "wild": "*.tls.test",
        "other": "other.test",
        "new": "tls.test",
        "deep": "deep.tls.test",
    }
    return {key: Certificate(name) for key, name in names.items()}


def tls_site(edge: Edge, certificates: dict[str, Certificate], exact: str = "exact") -> str:
    def keep(name: str, certificate: Certificate) -> dict[str, object]:
        return secret(name, certificate.pem, certificate.key)

    port = [edge.a.port]
    return documents(
        *edge.site,
        *site("tls", port, secret="exact"),
        *site("wildtls", port, host="*.tls.test", secret="wild"),
        *site("deeptls", port, host="deep.tls.test", secret="deep"),
        keep("exact", certificates[exact]),
        keep("wild", certificates["wild"]),
        keep("deep", certificates["deep"]),
    )


@pytest.fixture
def secure(start: Callable[..., Edge], certificates: dict[str, Certificate]) -> Edge:
    edge = start(https=True)
    generation = edge.proxy.generation()
    edge.proxy.write("site.yaml", tls_site(edge, certificates))
    edge.proxy.applied(generation)
    return edge


def shown(edge: Edge, name: str | None) -> bytes:
    """The certificate a client asking for ``name`` gets."""
    with Client(edge.proxy.tls_address, tls=any_server(), server_name=name) as client:
        return served(client.socket)


def test_certificate_by_name(secure: Edge, certificates: dict[str, Certificate]) -> None:
    assert shown(secure, "tls.test") == certificates["exact"].der
    assert shown(secure, "TLS.test") == certificates["exact"].der
    assert shown(secure, "x.tls.test") == certificates["wild"].der
    assert shown(secure, "deep.tls.test") == certificates["deep"].der, "exact before wildcard"
    known = {certificate.der for certificate in certificates.values()}
    assert shown(secure, "x.y.tls.test") not in known, "a wildcard is one label"
    assert shown(secure, "unknown.test") not in known
    shown(secure, None)  # a client without SNI gets some certificate


def test_certificate_change_is_live(secure: Edge, certificates: dict[str, Certificate]) -> None:
    with Client(secure.proxy.tls_address, tls=any_server(), server_name="tls.test") as client:
        assert client.ask(request(host="tls.test")).status == 200
        secure.proxy.write("site.yaml", tls_site(secure, certificates, "new"))
        poll.until(lambda: shown(secure, "tls.test") == certificates["new"].der, "the new certificate")
        assert client.ask(request(host="tls.test")).status == 200, "the old connection was dropped"
        assert served(client.socket) == certificates["exact"].der


def test_broken_certificate_keeps_the_old(secure: Edge, certificates: dict[str, Certificate]) -> None:
    text = tls_site(secure, certificates)
    bad = certificates["new"]
    wrong = documents(secret("exact", bad.pem, certificates["other"].key))  # a key that does not fit
    parts = [part for part in text.split("---\n") if part and '"name": "exact"' not in part]
    secure.proxy.write("site.yaml", "".join(f"---\n{part}" for part in parts) + wrong)
    poll.until(lambda: "exact" in secure.proxy.said(), "a word about the Secret")
    assert shown(secure, "tls.test") != bad.der
    assert "PRIVATE" not in secure.proxy.said()
    with Client(secure.proxy.tls_address, tls=any_server(), server_name="x.tls.test") as client:
        assert client.ask(request(host="x.tls.test")).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions(secure: Edge, version: ssl.TLSVersion) -> None:
    context = any_server()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Client(secure.proxy.tls_address, tls=context, server_name="tls.test") as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.selected_alpn_protocol() == "http/1.1"
        assert client.ask(sized(b"hello", host="tls.test")).status == 200
        assert client.ask(request(host="tls.test")).status == 200


def test_plain_http_to_the_tls_listener(secure: Edge) -> None:
    with Client(secure.proxy.tls_address) as client:
        client.send(request(host="tls.test"))
        client.stream.rest()  # whatever it says, it ends
    with Client(secure.proxy.tls_address, tls=any_server(), server_name="tls.test") as client:
        assert client.ask(request(host="tls.test")).status == 200


def test_client_that_breaks_off_the_handshake(secure: Edge) -> None:
    for said in (b"", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\xff\xff" + b"x" * 100, b"\x80" * 50):
        with socket.create_connection(secure.proxy.tls_address) as raw:
            raw.sendall(said)
    with Client(secure.proxy.tls_address, tls=any_server(), server_name="tls.test") as client:
        assert client.ask(request(host="tls.test")).status == 200
    assert "Traceback" not in secure.proxy.said()
