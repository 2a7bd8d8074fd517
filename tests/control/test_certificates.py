from __future__ import annotations

import base64
import textwrap
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from proxy.control.build import EVERYTHING, Builder, Choices, build
from proxy.control.certificates import CertificateReader, Leaf, Pair, covers
from proxy.control.problem import Problem
from proxy.route.spec import TableSpec
from tests.control.pki import NOW, certificate, key, pem, secret
from tests.control.texts import API, ingress, objects

SHOP = ["shop.test"]


def tls(hosts: str, name: str = "cert") -> str:
    return f"tls: [{{hosts: [{hosts}], secretName: {name}}}]"


def web(hosts: str = "shop.test", name: str = "cert", **options: Any) -> str:
    return ingress("Prefix / -> api:80", extra=tls(hosts, name), **options)


def made(
    *texts: str, choices: Choices = EVERYTHING, reader: CertificateReader | None = None
) -> tuple[TableSpec, list[Problem]]:
    return build(objects(API, *texts), (), 1, choices, reader=reader, now=NOW)


def good(*names: str, name: str = "cert") -> str:
    return secret(name, certificate(*(names or SHOP)), pem())


def test_a_certificate_and_its_hosts() -> None:
    crt = certificate("shop.test", "www.shop.test")
    table, problems = made(web("www.shop.test, shop.test"), secret("cert", crt, pem()))
    assert problems == []
    [found] = table.certificates
    assert (found.secret, found.hosts) == ("shop/cert", ("shop.test", "www.shop.test"))
    assert (found.certificate, found.key) == (crt, pem())


def test_without_hosts_it_is_for_every_name_in_it() -> None:
    table, problems = made(web(""), good("*.Shop.test", "shop.test"))
    assert problems == []
    assert table.certificates[0].hosts == ("*.shop.test", "shop.test")
    table, problems = made(web(""), secret("cert", certificate(), pem()))
    assert (table.certificates, problems) == ((), []), "the common name does not count"


def test_string_data_and_folded_base64() -> None:
    crt = certificate(*SHOP)
    head = "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: cert, namespace: shop}\n"
    folded = textwrap.indent(base64.encodebytes(crt).decode(), "    ")
    plain = textwrap.indent(pem().decode(), "    ")
    text = f"{head}data:\n  tls.crt: |\n{folded}  tls.key: overwritten\nstringData:\n  tls.key: |\n{plain}"
    table, problems = made(web(), text)
    assert problems == []
    assert (table.certificates[0].certificate, table.certificates[0].key) == (crt, pem())


def test_one_secret_for_several_ingresses() -> None:
    table, problems = made(
        web("a.test", host="a.test", annotations="", name="cert"),
        web("b.test", host="b.test").replace("name: web", "name: other"),
        good("*.test"),
    )
    assert problems == []
    assert [(found.secret, found.hosts) for found in table.certificates] == [("shop/cert", ("a.test", "b.test"))]


def test_a_tls_section_without_secret_leaves_its_hosts_to_the_default() -> None:
    table, problems = made(ingress("Prefix / -> api:80", extra="tls: [{hosts: [shop.test]}]"))
    assert (table.certificates, problems) == ((), [])


def test_a_missing_secret_is_a_warning() -> None:
    table, [problem] = made(web(name="certt"), good())
    assert table.certificates == ()
    assert (problem.severity, problem.field, problem.line) == ("warning", "spec.tls[0].secretName", 5)
    assert problem.message == "Secret shop/certt does not exist; its hosts are shown the default certificate"
    assert len(table.routes) == 1


def test_two_secrets_for_one_host() -> None:
    other = ingress("Prefix /b -> api:80", name="a", extra=tls("shop.test", "other"))
    table, problems = made(web(), other, good(), good(name="other"))
    assert [(found.secret, found.hosts) for found in table.certificates] == [("shop/other", ("shop.test",))]
    assert [(problem.name, problem.severity, problem.message) for problem in problems] == [
        ("web", "warning", "shop.test already has Secret shop/other by Ingress shop/a, which goes first")
    ]


def test_a_certificate_for_other_names() -> None:
    table, [problem] = made(web(), good("a.test", "*.b.test"))
    assert table.certificates[0].hosts == ("shop.test",)
    assert problem.severity == "warning"
    assert problem.message == "its certificate is not for shop.test, so clients will refuse it"
    assert problem.hint == "it is for *.b.test, a.test"


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("a.test", True),
        ("b.a.test", False),
        ("x.b.test", True),
        ("b.test", False),
        ("*.b.test", True),
        ("y.x.b.test", False),
    ],
)
def test_covers(host: str, covered: bool) -> None:
    assert covers(("a.test", "*.b.test"), host) is covered


CHAIN = "holds no readable PEM certificate"
KEY = "holds no readable PEM private key"


@pytest.mark.parametrize(
    ("crt", "private", "field", "message"),
    [
        (None, pem(), "data[tls.crt]", "is missing"),
        (certificate(*SHOP), None, "data[tls.key]", "is missing"),
        ("", pem(), "data[tls.crt]", "is missing"),
        ("%%%%", pem(), "data[tls.crt]", "is not base64"),
        ("YWJ", pem(), "data[tls.crt]", "is not base64"),
        (b"", pem(), "data[tls.crt]", "is missing"),
        (b"HUSH", pem(), "data[tls.crt]", CHAIN),
        (b"-----BEGIN CERTIFICATE-----\nSFVTSA==\n-----END CERTIFICATE-----\n", pem(), "data[tls.crt]", CHAIN),
        (pem(), pem(), "data[tls.crt]", CHAIN),
        (certificate(*SHOP), b"HUSH", "data[tls.key]", KEY),
        (certificate(*SHOP), certificate(*SHOP), "data[tls.key]", KEY),
        (certificate(*SHOP), pem(password=b"x"), "data[tls.key]", "is encrypted with a passphrase"),
        (certificate(*SHOP), pem(key("b")), "data[tls.key]", "is not the key of the certificate in tls.crt"),
        (
            certificate(*SHOP, private=key("b")) + certificate(*SHOP),
            pem(),
            "data[tls.crt]",
            "does not begin with the key's own certificate",
        ),
        (
            certificate(*SHOP, private=key("s", "rsa1024")),
            pem(key("s", "rsa1024")),
            "data[tls.key]",
            "is an RSA key of 1024 bits",
        ),
    ],
)
def test_a_pair_that_cannot_be_used_is_an_error_of_its_secret(
    crt: bytes | str | None, private: bytes | str | None, field: str, message: str
) -> None:
    table, problems = made(web(), secret("cert", crt, private))
    assert table.certificates == ()
    assert len(table.routes) == 1
    of_ingress, of_secret = problems
    assert (of_ingress.kind, of_ingress.severity) == ("Ingress", "warning")
    assert of_ingress.message == "Secret shop/cert cannot be used; see its own problem"
    assert (of_secret.kind, of_secret.namespace, of_secret.name) == ("Secret", "shop", "cert")
    assert (of_secret.severity, of_secret.field, of_secret.message) == ("error", field, message)
    lines = {"data[tls.crt]": 5 if crt is None else 7, "data[tls.key]": 5 if private is None else 8}
    assert of_secret.line == lines[field], "the key in the Secret, or its data where there is no such key"
    assert "HUSH" not in str(problems)


BAD = [
    secret("cert", b"HUSH", pem()),
    secret("cert", certificate(*SHOP), pem(key("b"))),
    secret("cert", certificate(*SHOP), None),
]


@pytest.mark.parametrize("bad", BAD)
def test_a_good_certificate_is_not_replaced_by_a_bad_one(bad: str) -> None:
    store = objects(API, web(), good())
    builder = Builder(store)
    builder.update(None, NOW)
    [before] = builder.table(1).certificates
    store.put(next(iter(objects(bad).secrets.values())))
    step = builder.update(store.take(), NOW)
    assert builder.table(2).certificates == (before,)
    assert step.certificates == {}
    wrong, stays = step.problems
    assert (wrong.severity, wrong.kind, wrong.name) == ("error", "Secret", "cert")
    ends = before_ends(before.certificate)
    assert (stays.severity, stays.field) == ("warning", "data")
    assert stays.message == f"cannot be used as it is now; the certificate that ends on {ends} stays"
    # Mended, it is used; taken away, nothing is kept of it.
    other = secret("cert", certificate(*SHOP, private=key("b")), pem(key("b")))
    store.put(next(iter(objects(other).secrets.values())))
    assert builder.update(store.take(), NOW).problems == ()
    assert builder.table(3).certificates != (before,)
    store.remove("Secret", ("shop", "cert"))
    builder.update(store.take(), NOW)
    assert builder.table(4).certificates == ()
    store.put(next(iter(objects(bad).secrets.values())))
    builder.update(store.take(), NOW)
    assert builder.table(5).certificates == ()


def test_nothing_is_kept_of_a_secret_that_nobody_names() -> None:
    kept: dict[Any, Pair] = {}
    store = objects(API, web(), good())
    builder = Builder(store, good=kept)
    builder.update(None, NOW)
    assert list(kept) == [("shop", "cert")]
    store.remove("Ingress", ("shop", "web"))
    builder.update(store.take(), NOW)
    assert kept == {}


def before_ends(certificate: bytes) -> str:
    return f"{x509.load_pem_x509_certificate(certificate).not_valid_after_utc:%Y-%m-%d}"


def test_rsa_and_a_chain() -> None:
    private = key("r", "rsa2048")
    chain = certificate(*SHOP, private=private) + certificate("ca.test", private=key("b"))
    table, problems = made(web(), secret("cert", chain, pem(private)))
    assert (len(table.certificates), problems) == (1, [])
    assert table.certificates[0].certificate == chain


@pytest.mark.parametrize(
    ("begins", "ends", "message"),
    [
        (-9, -1, "expired on 2026-05-31 00:00 UTC; clients refuse it"),
        (-9, 5, "expires on 2026-06-06 00:00 UTC"),
        (1, 90, "is not valid before 2026-06-02 00:00 UTC"),
        (-9, 15, ""),
    ],
)
def test_dates(begins: int, ends: int, message: str) -> None:
    crt = certificate(*SHOP, begins=NOW + timedelta(days=begins), ends=NOW + timedelta(days=ends))
    table, problems = made(web(), secret("cert", crt, pem()))
    assert len(table.certificates) == 1, "it is what there is"
    assert [(problem.severity, problem.field, problem.message) for problem in problems] == (
        [("warning", "data[tls.crt]", message)] if message else []
    )


def test_another_type_of_secret_is_used_and_said() -> None:
    table, [problem] = made(web(), secret("cert", certificate(*SHOP), pem(), kind="Opaque"))
    assert len(table.certificates) == 1
    assert (problem.severity, problem.field, problem.line) == ("warning", "type", 3)
    assert problem.message == "is Opaque, not kubernetes.io/tls"


def test_a_secret_is_told_of_once_and_only_where_it_is_used() -> None:
    broken = secret("cert", b"x", b"y")
    _, problems = made(web(), web("a.test", host="a.test").replace("name: web", "name: other"), broken)
    assert [problem.kind for problem in problems] == ["Ingress", "Ingress", "Secret"]
    assert made(ingress("Prefix / -> api:80"), broken)[1] == []


def test_the_default_certificate() -> None:
    choices = Choices(default_certificate="shop/cert")
    table, problems = made(good(), choices=choices)
    assert problems == []
    assert table.default_certificate is not None
    assert (table.default_certificate.secret, table.default_certificate.hosts) == ("shop/cert", ())
    table, [problem] = made(choices=choices)
    assert table.default_certificate is None
    assert str(problem) == (
        "warning: Secret shop/cert: the default certificate's Secret shop/cert does not exist (add its manifest)"
    )
    table, [problem] = made(secret("cert", b"x", b"y"), choices=choices)
    assert table.default_certificate is None
    assert problem.severity == "error"


def test_a_reader_parses_a_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = CertificateReader()
    text = good()
    first = made(web(), text, reader=reader)
    monkeypatch.setattr("proxy.control.certificates._parse", lambda *_: pytest.fail("parsed again"))
    assert made(web(), text, reader=reader) == first
    assert repr(reader) == "CertificateReader(1 certificates)"


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.control.certificates._MOST_CACHED", 2)
    reader = CertificateReader()
    for number in range(5):
        assert reader.read(b"%d" % number, b"").wrong is not None
    assert repr(reader) == "CertificateReader(1 certificates)"


def test_keys_show_nowhere() -> None:
    private = pem()
    table, problems = made(web(), good())
    shown = repr(table) + repr(problems) + repr(Pair(b"", private, Leaf(("a",)))) + repr(objects(good()).secrets)
    lines = [line for line in private.decode().splitlines() if "-----" not in line]
    assert not any(line in shown for line in lines)
    assert not any(base64.b64encode(private).decode()[30:60] in shown for _ in lines)
