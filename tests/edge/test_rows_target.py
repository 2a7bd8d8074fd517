"""Rows 15 to 18 and 29: the request line and the path's normal form (RFC 9112 section 3, RFC 3986 section 6.2.2)."""

from __future__ import annotations

import pytest

from tests.harness.edge import Edge, request
from tests.harness.feed import Feed

# Row 15: absolute-form is accepted and becomes origin-form; its authority is the Host (RFC 9112 section 3.2.2).

ABSOLUTE = {
    "http://a.test/x?y=1": "/x?y=1",
    "http://a.test": "/",
    "http://a.test/": "/",
    "http://a.test?y=1": "/?y=1",
    "HTTP://A.test/x": "/x",
    "http://a.test/b/../x": "/x",
}


@pytest.mark.parametrize("target", ABSOLUTE)
def test_row_15_absolute_form(edge: Edge, target: str, how: Feed) -> None:
    seen = edge.passed(request(target=target), how, target=ABSOLUTE[target])
    assert seen.host.lower() == "a.test"


@pytest.mark.parametrize(
    ("target", "host"),
    [("http://a.test:80/", "a.test"), ("http://a.test/", "a.test:80"), ("http://a.test:8080/", "a.test:8080")],
)
def test_row_15_default_ports_are_equal(edge: Edge, target: str, host: str, how: Feed) -> None:
    edge.passed(request(target=target, host=host), how, target="/")


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://b.test/", "a.test"),
        ("http://a.test/", "b.test"),
        ("http://a.test:81/", "a.test"),
        ("http://a.test/", "a.test:81"),
        ("http://a.test.evil.test/", "a.test"),
        ("http://127.0.0.1/", "a.test"),
    ],
)
def test_row_15_mismatch(edge: Edge, target: str, host: str, how: Feed) -> None:
    edge.refused(request(target=target, host=host), 400, how)


@pytest.mark.parametrize(
    "target",
    [
        "ftp://a.test/",
        "http:///x",  # RFC 9110 section 4.2.1: an empty host MUST be rejected
        "http://",
        "http:/x",
        "http:a.test",
        "http://user@a.test/",
        "http://user:secret@a.test/",
        "http://a.test:99999/",
        "http://a.test:x/",
        "http://a.test/#f",
        "//a.test/x://y",  # not http: an origin-form with two slashes; see below for what it may become
        "a.test/x",
        "a.test",
        "x",
        "?x",
        "\\x",
        "http://a.test\\@b.test/",
        "javascript:x",
        "://a.test/",
    ],
)
def test_row_15_neither_origin_nor_absolute(edge: Edge, target: str, how: Feed) -> None:
    if target.startswith("//"):
        # Origin-form: merged slashes, never an authority.
        seen = edge.passed(request(target=target), how)
        assert seen.target.startswith("/a.test/")
        assert seen.host == "a.test"
        return
    edge.refused(request(target=target), 400, how)


@pytest.mark.parametrize("lines", [[], ["Host:"], ["Host: a.test", "Host: a.test"]], ids=["none", "empty", "two"])
def test_row_15_host_is_still_needed(edge: Edge, lines: list[str], how: Feed) -> None:
    # RFC 9112 section 3.2.2: a client MUST send Host even in absolute-form.
    edge.refused(request(*lines, target="http://a.test/", host=None), 400, how)


def test_row_15_absolute_form_in_http_1_0_needs_no_host(edge: Edge, how: Feed) -> None:
    # RFC 9112 section 3.2.2: the target's authority is the host; section 3.2 asks HTTP/1.0 for no Host field.
    raw = request(target="http://a.test/x", host=None, version="1.0")
    seen = edge.passed(raw, how, target="/x", closes=True)
    assert seen.host == "a.test"
    assert seen.fields.one("X-Forwarded-Host") == "a.test"


# Row 16: the forms that are not for us.


def test_row_16_get_asterisk(edge: Edge, how: Feed) -> None:
    edge.refused(request(target="*"), 400, how)


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "FOO"])
def test_row_16_asterisk_is_only_for_options(edge: Edge, method: str, how: Feed) -> None:
    edge.refused(request(target="*", method=method), 400, how, method=method)


def test_row_16_options_asterisk_is_answered_here(edge: Edge, how: Feed) -> None:
    edge.refused(request(target="*", method="OPTIONS"), 204, how, closes=False)


def test_row_16_options_of_a_path_is_forwarded(edge: Edge, how: Feed) -> None:
    edge.passed(request(target="/x", method="OPTIONS"), how, target="/x")


@pytest.mark.parametrize("target", ["a.test:443", "a.test:80", "127.0.0.1:22"])
def test_row_16_connect(edge: Edge, target: str, how: Feed) -> None:
    edge.refused(request(target=target, method="CONNECT", host=target), 405, how, closes=None, method="CONNECT")


@pytest.mark.parametrize("target", ["/", "*", "http://a.test/"])
def test_row_16_connect_to_no_authority(edge: Edge, target: str, how: Feed) -> None:
    edge.refused(request(target=target, method="CONNECT"), {400, 405}, how, closes=None)


def test_row_16_trace(edge: Edge, how: Feed) -> None:
    # It would show the client what we add for the upstream (RFC 9110 section 9.3.8).
    edge.refused(request(method="TRACE"), 405, how, closes=None)


@pytest.mark.parametrize(
    ("method", "target", "host"), [("TRACE", "/", "a.test"), ("CONNECT", "a.test:443", "a.test:443")]
)
def test_row_16_405_names_what_is_allowed(edge: Edge, method: str, target: str, host: str) -> None:
    # RFC 9110 section 15.5.6: the origin server MUST generate an Allow header field in a 405.
    response = edge.refused(request(method=method, target=target, host=host), 405, closes=None)
    allowed = {item.strip() for item in response.fields.one("Allow").split(",")}
    assert {"GET", "POST"} <= allowed
    assert method not in allowed


# Row 17: octets no target has (RFC 3986 section 2); "#" never leaves a client.

BAD_OCTETS = [*range(0x21), 0x23, 0x7F, 0x80, 0xA0, 0xE9, 0xFF]


@pytest.mark.parametrize("octet", BAD_OCTETS, ids=lambda octet: f"{octet:02x}")
def test_row_17_octet_in_path(edge: Edge, octet: int, how: Feed) -> None:
    edge.refused(request(target=f"/a{chr(octet)}b"), 400, how)


@pytest.mark.parametrize("octet", [0x00, 0x09, 0x0B, 0x20, 0x23, 0x7F, 0xE9], ids=lambda octet: f"{octet:02x}")
def test_row_17_octet_in_query(edge: Edge, octet: int, how: Feed) -> None:
    edge.refused(request(target=f"/?a{chr(octet)}b"), 400, how)


@pytest.mark.parametrize(
    "line",
    [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET\x0b/ HTTP/1.1",
        "GET  HTTP/1.1",
        "GET HTTP/1.1",
        "GET",
        "/ HTTP/1.1",
        "GET / HTTP/1.1 HTTP/1.1",
        "GET / /x HTTP/1.1",
        "GET / HTTP/1.1\r",
        "HTTP/1.1 200 OK",
        "G\x00T / HTTP/1.1",
        "G@T / HTTP/1.1",
        "G\xc9T / HTTP/1.1",
        "(GET) / HTTP/1.1",
        "GET: / HTTP/1.1",
    ],
)
def test_row_17_malformed_request_line(edge: Edge, line: str, how: Feed) -> None:
    # RFC 9112 section 3: single SP; being lenient here is what request splitting lives on.
    edge.refused(f"{line}\r\nHost: a.test\r\n\r\n".encode("latin-1"), 400, how)


@pytest.mark.parametrize("target", ["/a-._~!$&'()*+,;=:@b", "/?a=1&b=/?:@", "/?", "/a%20b", "/%C3%A9", "/?q=%2e%2e"])
def test_row_17_what_a_target_may_hold(edge: Edge, target: str, how: Feed) -> None:
    edge.passed(request(target=target), how, target=target)


# Row 18: versions and methods.


@pytest.mark.parametrize("version", ["9.9", "2.0", "3.0", "0.1"])
def test_row_18_other_major_version(edge: Edge, version: str, how: Feed) -> None:
    wanted = {505} if version[0] > "1" else {400, 505}
    edge.refused(request(version=version), wanted, how)


@pytest.mark.parametrize(
    "version", ["1.01", "0.9", "01.1", "1.", "1", "11", "1.1.1", "1.1x", "1,1", " 1.1", "1.-1", "", "x"]
)
def test_row_18_malformed_version(edge: Edge, version: str, how: Feed) -> None:
    edge.refused(request(version=version), 400, how)


@pytest.mark.parametrize("name", ["http/1.1", "Http/1.1", "HTTPS/1.1", "HTTP-1.1", "HTCPCP/1.1", "/1.1"])
def test_row_18_protocol_name_is_case_sensitive(edge: Edge, name: str, how: Feed) -> None:
    # RFC 9112 section 2.3.
    edge.refused(f"GET / {name}\r\nHost: a.test\r\n\r\n".encode(), 400, how)


def test_row_18_http_0_9(edge: Edge, how: Feed) -> None:
    edge.refused(b"GET /\r\n\r\n", 400, how)


def test_row_18_http_2_preface(edge: Edge, how: Feed) -> None:
    edge.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, how)


def test_row_18_higher_minor_version(edge: Edge) -> None:
    # RFC 9110 section 2.5: to be processed as the highest minor version we know; a refusal is allowed to the strict.
    with edge.client() as client:
        assert client.ask(request(version="1.2")).status in (200, 400, 505)


@pytest.mark.parametrize("method", ["get", "Get", "FOO", "PROPFIND", "M-SEARCH", "a!#$%&'*+-.^_`|~9", "X" * 30])
def test_row_18_methods_are_tokens_and_pass(edge: Edge, method: str, how: Feed) -> None:
    edge.passed(request(method=method), how, method=method)


# Row 29: one normal form routes and goes on, so that no upstream sees a path the routing did not judge.

NORMAL = {
    "/a/./b": "/a/b",
    "/./a": "/a",
    "/a/.": "/a/",
    "/a/../b": "/b",
    "/a/b/..": "/a/",
    "/a/b/../": "/a/",
    "/a/b/../../c": "/c",
    "//a": "/a",
    "/a//b": "/a/b",
    "/a///": "/a/",
    "//": "/",
    "/%61": "/a",
    "/%7Ea": "/~a",
    "/%7ea": "/~a",
    "/%2e/a": "/a",
    "/a/%2e%2e/b": "/b",
    "/a/%2E./b": "/b",
    "/a/.%2e/b": "/b",
    "/a/..;/b": "/a/..;/b",  # a segment of its own by RFC 3986; Tomcat's trick is Tomcat's business
    "/a/.../b": "/a/.../b",
    "/a..": "/a..",
    "/.a": "/.a",
    "/a%252e%252e/b": "/a%252e%252e/b",  # decoded once, never twice
    "/%252e%252e/b": "/%252e%252e/b",
    "/a/?b=/../c//d&e=%2e%2e": "/a/?b=/../c//d&e=%2e%2e",  # a query is none of our business
}


@pytest.mark.parametrize("target", NORMAL)
def test_row_29_normal_form(edge: Edge, target: str, how: Feed) -> None:
    edge.passed(request(target=target), how, target=NORMAL[target])


@pytest.mark.parametrize(
    "target",
    ["/a%2fb", "/a%2Fb", "/a/..%2fb", "/a/%2e%2e%2fb", "/a%5cb", "/a/..%5cb", "/%3f", "/a%23b", "/a%0d%0ab", "/a%20b"],
)
def test_row_29_reserved_octets_stay_encoded(edge: Edge, target: str, how: Feed) -> None:
    # RFC 3986 section 2.2: decoding a reserved octet changes what the path means. Hex digits may change case
    # (section 6.2.2.1), and dots may be decoded.
    seen = edge.passed(request(target=target), how)
    assert seen.target.lower() == target.lower().replace("%2e", ".")


@pytest.mark.parametrize(
    "target",
    ["/%00", "/a%00b", "/a%00.png", "/%", "/a%", "/a%4", "/a%zz", "/a%4g", "/%-1", "/% 1", "/a%%41", "/%u0041"],
)
def test_row_29_null_and_malformed_percent(edge: Edge, target: str, how: Feed) -> None:
    edge.refused(request(target=target), 400, how)


@pytest.mark.parametrize(
    "target",
    [
        "/..",
        "/../",
        "/../a",
        "/a/../..",
        "/a/../../b",
        "/%2e%2e",
        "/%2e%2e/a",
        "/.%2e/a",
        "/a/%2e%2e/%2e%2e/b",
        "/./../a",
        "/a/../../a",
        "//../a",
        "/a//../../../b",
    ],
)
def test_row_29_above_the_root(edge: Edge, target: str, how: Feed) -> None:
    edge.refused(request(target=target), 400, how)


@pytest.mark.parametrize(
    ("target", "admin"),
    [
        ("/admin", True),
        ("/admin/", True),
        ("/admin/x", True),
        ("/x/../admin", True),
        ("//admin", True),
        ("/./admin", True),
        ("/%61dmin", True),
        ("/x/%2e%2e/%61%64min/y", True),
        ("http://paths.test/x/../admin", True),
        ("/administrator", False),
        ("/Admin", False),
        ("/admin%2fx", False),
        ("/x/admin", False),
        ("/admin/../x", False),
        ("/admin/%2e%2e/x", False),
        ("/?/admin", False),
        ("/admin;x", False),
        ("/admi%256e", False),
    ],
)
def test_row_29_routed_and_forwarded_alike(edge: Edge, target: str, admin: bool) -> None:
    # /admin belongs to b, everything else to a: each must see only its own paths.
    with edge.client() as client:
        assert client.ask(request(target=target, host="paths.test")).status == 200
    wanted, other = (edge.b, edge.a) if admin else (edge.a, edge.b)
    path = wanted.one().target.partition("?")[0]
    assert (path == "/admin" or path.startswith("/admin/")) is admin
    assert not other.requests
