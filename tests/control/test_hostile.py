"""Objects of somebody who may write Ingresses and Secrets of a namespace, and means no good.

What they cost is bounded, and what they do not get is said. Annotations as they act on requests are in tests/edge.
"""

from __future__ import annotations

import base64
import tracemalloc
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy.control.build import Builder, Choices
from proxy.control.certificates import MOST_NAMES, MOST_SECRETS, CertificateReader
from proxy.control.claims import MOST_LENT
from proxy.control.cluster.secrets import named_by
from proxy.control.objects import (
    BackendPort,
    HTTPPath,
    HTTPRule,
    Ingress,
    IngressBackend,
    IngressRule,
    IngressSpec,
    IngressTLS,
    Metadata,
    Secret,
    ServiceBackend,
)
from proxy.control.problem import Problem, Subject
from proxy.control.store import Objects
from proxy.control.validate import check
from proxy.route.spec import TableSpec
from tests.control import pki
from tests.control.texts import API, objects

NGINX = "nginx.ingress.kubernetes.io/"
MIB = 1 << 20
FOREVER = timedelta(days=90)


def path(text: str = "/") -> HTTPPath:
    return HTTPPath(text, "Prefix", IngressBackend(ServiceBackend("api", BackendPort("", 80))))


def ingress(
    *hosts: str, paths: int = 1, tls: tuple[IngressTLS, ...] = (), says: dict[str, str] | None = None
) -> Ingress:
    http = HTTPRule(tuple(path(f"/{number}" if number else "/") for number in range(paths)))
    spec = IngressSpec(rules=tuple(IngressRule(host, http) for host in hosts or ("web.test",)), tls=tls)
    return Ingress(Metadata("web", "shop", "u", "1", annotations=says or {}), spec)


def secret(chain: bytes, private: bytes, name: str = "cert", namespace: str = "shop") -> Secret:
    data = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(private).decode()}
    return Secret(Metadata(name, namespace), "kubernetes.io/tls", data)


def built(*items: Any, **choices: Any) -> tuple[TableSpec, tuple[Problem, ...]]:
    store: Objects = objects(API)
    for item in items:
        store.put(item)
    builder = Builder(store, choices=Choices(**choices))
    step = builder.update(None, pki.NOW)
    return builder.table(1), step.problems


def test_an_ingress_of_very_many_secrets() -> None:
    """Each would be a watch of its own."""
    found = ingress(tls=tuple(IngressTLS((f"h{number}.test",), f"s{number}") for number in range(20_000)))
    assert len(named_by(found)) == MOST_SECRETS
    _, problems = built(found)
    assert len(problems) == MOST_SECRETS + 1  # each is missing, and there are too many
    assert any("at most 100 Secrets" in problem.message for problem in problems)


def test_a_secret_of_another_namespace_is_never_named() -> None:
    names = ("other/secret", "../other/secret", "a,metadata.namespace=other", "a\r\nb", "%2e%2e", "A", "x" * 300)
    for name in names:
        one = ingress(tls=(IngressTLS(("web.test",), name),))
        assert {namespace for namespace, _ in named_by(one)} == {"shop"}
        subject = Subject("Ingress", "shop", "web", objects(API).place("Ingress", ("", "")))
        check(one, subject)
        assert subject.broken, name
    theirs = secret(pki.certificate("web.test"), pki.pem(), namespace="other")
    table, _ = built(theirs, ingress(tls=(IngressTLS(("web.test",), "cert"),)))
    assert table.certificates == ()


def test_messages_do_not_multiply_a_certificate_s_names_by_hosts() -> None:
    names = [f"n{number}.example.org" for number in range(MOST_NAMES)]
    chain = pki.certificate(*names, ends=pki.NOW + FOREVER)
    hosts = tuple(f"h{number}.test" for number in range(2000))
    tracemalloc.start()
    table, problems = built(secret(chain, pki.pem()), ingress(tls=(IngressTLS(hosts, "cert"),)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.certificates) == 1
    assert sum("so clients will refuse it" in problem.message for problem in problems) == len(hosts)
    assert any(problem.hint.endswith("and 1995 more") for problem in problems)
    assert peak < 32 * MIB


def test_a_certificate_of_very_many_names_is_not_used() -> None:
    chain = pki.certificate(*[f"n{number}.example.org" for number in range(MOST_NAMES + 1)], ends=pki.NOW + FOREVER)
    leaf = CertificateReader().read(chain, pki.pem())
    assert leaf.wrong is not None
    assert leaf.wrong[1] == f"is for {MOST_NAMES + 1} names"


def pem(private: Any) -> bytes:
    return bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def signed(private: Any, signer: Any, algorithm: Any, issuer: str = "an authority") -> bytes:
    builder = x509.CertificateBuilder(
        subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "web.test")]),
        issuer_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]),
        public_key=private.public_key(),
        serial_number=1,
        not_valid_before=pki.NOW,
        not_valid_after=pki.NOW + FOREVER,
    )
    return builder.sign(signer, algorithm).public_bytes(Encoding.PEM)


P256 = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("private", "used"),
    [
        (ec.generate_private_key(ec.SECP384R1()), True),
        (ed25519.Ed25519PrivateKey.generate(), True),
        (ec.generate_private_key(ec.SECP256K1()), False),
        (ec.generate_private_key(ec.BrainpoolP256R1()), False),
        (dsa.generate_private_key(2048), False),
    ],
)
def test_keys_that_no_client_speaks_are_not_handed_to_workers(private: Any, used: bool) -> None:
    leaf = CertificateReader().read(signed(private, P256, hashes.SHA256()), pem(private))
    assert (leaf.wrong is None) is used


def test_a_key_that_makes_each_handshake_dear_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    monkeypatch.setattr("proxy.control.certificates.LARGEST_RSA", 2048)
    private = rsa.generate_private_key(65537, 3072)
    leaf = CertificateReader().read(signed(private, P256, hashes.SHA256()), pem(private))
    assert leaf.wrong is not None
    assert leaf.wrong[1] == "is an RSA key of 3072 bits"


def test_signatures_that_workers_would_refuse_are_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that the builder takes and OpenSSL does not would be a problem of no object.

    SHA-512 stands for SHA-1, which nothing here signs with any more.
    """
    monkeypatch.setattr("proxy.control.certificates.WEAK", ("md5", "sha512"))
    private = ec.generate_private_key(ec.SECP256R1())
    for algorithm, used in ((hashes.SHA512(), False), (hashes.SHA256(), True)):
        leaf = CertificateReader().read(signed(private, P256, algorithm), pem(private))
        assert (leaf.wrong is None) is used
    assert CertificateReader().read(signed(private, private, hashes.SHA512(), "web.test"), pem(private)).wrong is None


def test_aliases_of_a_host_of_very_many_paths() -> None:
    aliases = ",".join(f"a{number}.test" for number in range(100))
    table, problems = built(ingress(paths=MOST_LENT // 100 + 1, says={f"{NGINX}server-alias": aliases}))
    assert {route.host for route in table.routes} == {"web.test"}
    assert any("are too many: none is served" in problem.message for problem in problems)
    table, _ = built(ingress(paths=MOST_LENT // 100, says={f"{NGINX}server-alias": aliases}))
    assert len(table.routes) == MOST_LENT + 100


def test_ten_thousand_hosts_are_a_table() -> None:
    table, problems = built(ingress(*[f"h{number}.test" for number in range(10_000)]))
    assert len(table.routes) == 10_000
    assert len(problems) <= 1


BROKEN = ("a\r\nX-Evil: 1", "a\nb", "a\x00b", "a\x7fb", "a\u2028x")


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize(
    "name",
    [
        "upstream-vhost",
        "x-forwarded-prefix",
        "rewrite-target",
        "permanent-redirect",
        "temporal-redirect",
        "app-root",
        "server-alias",
        "upstream-hash-by",
        "opentelemetry-operation-name",
        "backend-protocol",
    ],
)
def test_no_annotation_brings_a_control_character_into_the_table(name: str, text: str) -> None:
    prefix = "/" if name in ("rewrite-target", "x-forwarded-prefix", "app-root") else ""
    prefix = "https://example.org/" if "redirect" in name else prefix
    table, problems = built(ingress(says={f"{NGINX}{name}": prefix + text}))
    assert problems
    assert not any(mark in repr(table.routes) for mark in ("\\r", "\\n", "\\x00", "\\x7f", "\\u2028"))
    assert not any(mark in str(problem) for problem in problems for mark in "\r\n\x00\x7f\u2028")


@pytest.mark.parametrize("text", ["X-A: b\r\nX-Evil: 1\x00", "X-A: a\x0bb", "X A: b", "X-A\n: b", "Set-Cookie: a=b\rc"])
def test_no_response_header_holds_another(text: str) -> None:
    table, problems = built(ingress(says={"spanway.io/response-headers": text}))
    headers = [route.actions.response_headers for route in table.routes if route.actions is not None]
    for name, value in (pair for each in headers for pair in each):
        assert not set("\r\n\x00\x0b") & set(f"{name}{value}")
    assert problems


def test_a_huge_annotation_is_quoted_in_few_words() -> None:
    """An API server takes 256 KiB of annotations."""
    table, problems = built(ingress(says={f"{NGINX}permanent-redirect": "x" * 262_000, "y" * 63: "z"}))
    assert len(table.routes) == 1
    assert all(len(str(problem)) < 1000 for problem in problems)
