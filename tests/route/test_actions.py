from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Kind
from proxy.route.actions import Actions, Asked, redirect_parts
from proxy.route.regex import Pattern
from proxy.route.spec import ActionSpec
from proxy.route.template import TemplateError


def asked(url: str = "/", *, scheme: str = "http", host: str = "a.test", authority: str = "") -> Asked:
    target = url.encode()
    path, _, query = target.partition(b"?")
    return Asked(scheme, (authority or host).encode(), host.encode(), path, query, target)


def location(spec: ActionSpec, request: Asked, pattern: str = "") -> tuple[int, str] | None:
    answer = Actions(spec, Pattern(pattern) if pattern else None).answer(request)
    return None if answer is None else (answer[0], answer[1].decode())


def moved(url: str, request: Asked, pattern: str = "") -> str:
    answer = location(ActionSpec(redirect=url, redirect_code=301), request, pattern)
    assert answer is not None
    assert answer[0] == 301
    return answer[1]


@pytest.mark.parametrize(
    ("url", "target", "expected"),
    [
        ("https://b.test", "/x?y", "https://b.test"),
        ("https://b.test/z?q", "/x?y", "https://b.test/z?q"),
        ("HTTPS://b.test$request_uri", "/x/?y", "https://b.test/x/?y"),
        ("https://b.test$uri$is_args$args", "/x?y", "https://b.test/x?y"),
        ("https://b.test$uri$is_args$args", "/x", "https://b.test/x"),
        ("https://www.$host$request_uri", "/x", "https://www.a.test/x"),
        ("http://${host}:8080/", "/x", "http://a.test:8080/"),
        ("$scheme://$http_host/", "/", "http://a.test:81/"),
        ("https://b.test?$args", "/?x", "https://b.test?x"),
        ("https://b.test$args", "/?.evil.test", "https://b.test/.evil.test"),
        ("https://b.test:$args", "/?80", "https://b.test:/80"),
    ],
)
def test_redirects(url: str, target: str, expected: str) -> None:
    assert moved(url, asked(target, authority="a.test:81")) == expected


@pytest.mark.parametrize(
    ("pattern", "target", "expected"),
    [
        ("/old(.*)", "/old/x", "https://b.test/x"),
        ("/old(.*)", "/old.evil", "https://b.test/.evil"),
        ("/old(.*)", "/old", "https://b.test"),
        ("/old", "/old/x", "https://b.test"),
    ],
)
def test_groups_in_redirects(pattern: str, target: str, expected: str) -> None:
    assert moved("https://b.test$1", asked(target), pattern) == expected


@given(st.text("abc./:@\\-%?#x", max_size=20))
def test_no_group_ever_names_a_host(text: str) -> None:
    got = moved("https://b.test$1$2", asked(f"/o{text}"), "/o(.)(.*)")
    assert got.startswith(("https://b.test/", "https://b.test?", "https://b.test#")) or got == "https://b.test"


@pytest.mark.parametrize("url", ["", "/x", "//b.test", "ftp://b.test", "https://", "https://$1/", "https://u@b.test/"])
def test_what_is_no_redirect(url: str) -> None:
    with pytest.raises(TemplateError):
        redirect_parts(url)


def test_https() -> None:
    spec = ActionSpec(https=308)
    assert location(spec, asked("/x?y")) == (308, "https://a.test/x?y")
    assert location(spec, asked("/x", scheme="https")) is None
    assert location(spec, asked("/.well-known/acme-challenge/x")) is None
    assert location(spec, asked("/.well-known/acme-challenge")) == (308, "https://a.test/.well-known/acme-challenge")
    assert location(spec, asked("/", host="")) is None  # HTTP/1.0 may name no host


def test_the_application_s_root() -> None:
    spec = ActionSpec(app_root="/app")
    assert location(spec, asked("/?x", authority="a.test:81")) == (302, "http://a.test:81/app")
    assert location(spec, asked("/x")) is None


def test_the_order_of_answers() -> None:
    spec = ActionSpec(redirect="https://b.test", redirect_code=301, https=308, app_root="/app")
    assert location(spec, asked("/")) == (301, "https://b.test")
    assert location(ActionSpec(https=308, app_root="/app"), asked("/")) == (308, "https://a.test/")
    assert location(ActionSpec(https=308, app_root="/app"), asked("/", scheme="https")) == (302, "https://a.test/app")
    assert not Actions(ActionSpec(rewrite="/")).answers


@pytest.mark.parametrize(
    ("allow", "deny", "client", "kind"),
    [
        ((), (), "192.0.2.1", None),
        (("192.0.2.0/24",), (), "192.0.2.1", None),
        (("192.0.2.0/24",), (), "::ffff:192.0.2.1", None),
        (("192.0.2.0/24",), (), "192.0.3.1", Kind.SOURCE_REFUSED),
        (("192.0.2.0/24",), (), "2001:db8::1", Kind.SOURCE_REFUSED),
        (("2001:db8::/32",), (), "2001:db8::1", None),
        ((), ("192.0.2.0/24",), "192.0.2.1", Kind.SOURCE_REFUSED),
        ((), ("192.0.2.0/24",), "192.0.3.1", None),
        (("0.0.0.0/0",), ("192.0.2.1/32",), "192.0.2.1", Kind.SOURCE_REFUSED),
        (("0.0.0.0/0", "::/0"), (), "", Kind.SOURCE_REFUSED),  # a client without an address is nobody
        (("0.0.0.0/0",), (), "no address", Kind.SOURCE_REFUSED),
    ],
)
def test_source_ranges(allow: tuple[str, ...], deny: tuple[str, ...], client: str, kind: Kind | None) -> None:
    assert Actions(ActionSpec(allow=allow, deny=deny)).refusal(client) is kind
    assert Actions(ActionSpec(allow=allow, deny=deny, closed="why")).refusal(client) is Kind.ROUTE_CLOSED


@pytest.mark.parametrize(
    ("target", "pattern", "path", "expected"),
    [
        ("/", "/x", b"/x/y", b"/"),
        ("/$2", "/s(/|$)(.*)", b"/s/new", b"/new"),
        ("/$2", "/s(/|$)(.*)", b"/s", b"/"),
        ("$1", "/s(/.*)", b"/s/new", b"/new"),
        ("$1", "/s/(.*)", b"/s/new", b"/new"),
        ("$1", "/s(.*)", b"/s", b"/"),
        ("/$3", "/s/(.*)", b"/s/new", b"/"),
        ("/$1", "", b"/s/new", b"/"),
    ],
)
def test_rewrites(target: str, pattern: str, path: bytes, expected: bytes) -> None:
    actions = Actions(ActionSpec(rewrite=target, prefix=target), Pattern(pattern) if pattern else None)
    assert actions.rewritten(path) == expected
    assert actions.forwarded_prefix(path).startswith(b"X-Forwarded-Prefix: ")
    assert actions.forwarded_prefix(path).count(b"\r\n") == 1


def test_response_headers() -> None:
    actions = Actions(ActionSpec(response_headers=(("X-A", "1"), ("Server", "app"), ("X-Gone", ""))))
    assert actions.response_names == {b"x-a", b"server", b"x-gone"}
    assert actions.response_lines == b"X-A: 1\r\nServer: app\r\n"
    assert actions.own_lines == b"X-A: 1\r\n"


def test_retries() -> None:
    actions = Actions(ActionSpec(retry_on=("error", "http_503", "http_404"), retry_timeout=2.0))
    assert actions.retry_on == {"error", "http_503", "http_404"}
    assert actions.retry_statuses == {503, 404}
    assert actions.retry_timeout == 2.0
    assert Actions(ActionSpec()).retry_statuses == set()


def test_repr_says_what_is_done() -> None:
    assert repr(Actions(ActionSpec())) == "Actions()"
    assert "app_root=b'/app'" in repr(Actions(ActionSpec(app_root="/app", allow=("10.0.0.0/8",))))
    assert "Ranges(10.0.0.0/8)" in repr(Actions(ActionSpec(allow=("10.0.0.0/8",))))
