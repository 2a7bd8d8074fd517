"""Rows 8 to 14, 25 and 26: the grammar of a head, Host, and how large a head may be (RFC 9112 sections 2, 3, 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.edge.conftest import clean
from tests.harness.edge import Edge, request, sized
from tests.harness.feed import Feed
from tests.harness.wire import Request

START = "GET / HTTP/1.1\r\nHost: a.test\r\n"

# Row 8: obs-fold MUST be refused or replaced (RFC 9112 section 5.2); refused, wherever it stands.
FOLDS = {
    "space": START + "X-A: 1\r\n 2\r\n\r\n",
    "tab": START + "X-A: 1\r\n\t2\r\n\r\n",
    "empty-fold": START + "X-A: 1\r\n \r\n\r\n",
    "first-line": "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n",
    "first-line-with-host": "GET / HTTP/1.1\r\n X-A: 1\r\nHost: a.test\r\n\r\n",
    "host": "GET / HTTP/1.1\r\nHost: a.test\r\n b.test\r\n\r\n",
    "host-value": "GET / HTTP/1.1\r\nHost:\r\n a.test\r\n\r\n",
    "hidden-length": START + "X-A: 1\r\n Content-Length: 5\r\n\r\nhello",
    "length": START + "Content-Length:\r\n 5\r\n\r\nhello",
    "last-line": START + " \r\n\r\n",
}

# Row 9: whitespace between name and colon (RFC 9112 section 5.1: MUST 400).
BEFORE_COLON = {
    "host": "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
    "second-host": START + "Host : b.test\r\n\r\n",
    "length": START + "Content-Length : 5\r\n\r\nhello",
    "coding": START + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "tab": START + "X-A\t: 1\r\n\r\n",
    "two": START + "X-A  : 1\r\n\r\n",
    "last": START + "X-A : 1\r\n\r\n",
}

# Row 10: a line ends with CRLF and nothing else; RFC 9112 section 2.2 lets a recipient accept LF, we do not.
BARE_LF = {
    "everywhere": "GET / HTTP/1.1\nHost: a.test\n\n",
    "request-line": "GET / HTTP/1.1\nHost: a.test\r\n\r\n",
    "field": START + "X-A: 1\nX-B: 2\r\n\r\n",
    "last-field": START + "X-A: 1\n\r\n",
    "empty-line": START + "\n",
    "lf-lf": START + "X-A: 1\n\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "leading": "\n" + START + "\r\n",
    "cr-cr-lf": START + "X-A: 1\r\r\n\r\n",
    "lf-cr": START + "X-A: 1\n\r\r\n",
    "cr-cr": START + "\r\r\n",
}

# Row 11: field-vchar, SP, HTAB and obs-text are values; every other octet is not (RFC 9110 section 5.5).
CONTROLS = [*range(0x09), *range(0x0A, 0x20), 0x7F]

# Row 12: a name is a token (RFC 9110 section 5.1), and every line has one and a colon.
BAD_LINES = {
    "space": "X A: 1",
    "parenthesis": "X(A): 1",
    "slash": "X/A: 1",
    "at": "X@A: 1",
    "quote": '"X": 1',
    "bracket": "[X]: 1",
    "brace": "X{A}: 1",
    "equals": "X=A: 1",
    "comma": "X,A: 1",
    "backslash": "X\\A: 1",
    "question": "X?A: 1",
    "semicolon": "X;A: 1",
    "null": "X\x00A: 1",
    "null-behind": "Content-Length\x00: 5",
    "delete": "X\x7fA: 1",
    "obs-text": "X\xe9: 1",
    "no-break-space": "X\xa0: 1",
    "no-colon": "foobar",
    "no-colon-but-length": "Content-Length 5",
    "empty-name": ": value",
    "only-colon": ":",
    "two-colons": "::",
}


@pytest.mark.parametrize("raw", FOLDS.values(), ids=FOLDS)
def test_row_8_obs_fold(edge: Edge, raw: str, how: Feed) -> None:
    edge.refused(raw.encode(), 400, how)


@pytest.mark.parametrize("raw", BEFORE_COLON.values(), ids=BEFORE_COLON)
def test_row_9_space_before_colon(edge: Edge, raw: str, how: Feed) -> None:
    edge.refused(raw.encode(), 400, how)


@pytest.mark.parametrize("raw", BARE_LF.values(), ids=BARE_LF)
def test_row_10_bare_lf(edge: Edge, raw: str, how: Feed) -> None:
    edge.refused(raw.encode(), 400, how)


@pytest.mark.parametrize("octet", CONTROLS, ids=lambda octet: f"{octet:02x}")
def test_row_11_control_in_value(edge: Edge, octet: int, how: Feed) -> None:
    edge.refused(request(f"X-A: a{chr(octet)}b"), 400, how)


@pytest.mark.parametrize("octet", [0x00, 0x0B, 0x0C, 0x1F, 0x7F], ids=lambda octet: f"{octet:02x}")
@pytest.mark.parametrize("place", ["X-A:{}b", "X-A: a{}", "X-A:{}"], ids=["first", "last", "only"])
def test_row_11_control_at_the_ends(edge: Edge, octet: int, place: str, how: Feed) -> None:
    # Python's strip() would take 0B, 0C and 1C to 1F for whitespace.
    edge.refused(request(place.format(chr(octet))), 400, how)


def test_row_11_bare_cr(edge: Edge, how: Feed) -> None:
    edge.refused(request("X-A: 1\rContent-Length: 5"), 400, how)


@pytest.mark.parametrize(
    "value", ["a\tb", "\xe9\xff\x80", "a  b", '"quoted, \\" text"', "(){}[]<>@,;:\\/?=", "%00%0d%0a", ""]
)
def test_row_11_what_a_value_may_hold(edge: Edge, value: str, how: Feed) -> None:
    seen = edge.passed(request(f"X-A: {value}"), how)
    assert seen.fields.one("X-A") == value


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_row_12_malformed_line(edge: Edge, line: str, how: Feed) -> None:
    edge.refused(request(line, "X-Behind: 1"), 400, how)


def test_row_12_every_token_character(edge: Edge, how: Feed) -> None:
    # Without "_", which row 13 drops.
    seen = edge.passed(request("!#$%&'*+-.^`|~09azAZ: 1"), how)
    assert seen.fields.one("!#$%&'*+-.^`|~09azAZ") == "1"


# Row 13: names with "_" are dropped, as nginx does: CGI-like applications cannot tell them from "-".


def without_underscores(seen: Request) -> None:
    assert not [name for name in seen.fields.names() if "_" in name], seen.fields


def test_row_13_underscore_is_dropped(edge: Edge, how: Feed) -> None:
    seen = edge.passed(request("X_A: 1", "X-A: 2", "_: 3", "X_Forwarded_For: 6.6.6.6"), how, check=without_underscores)
    assert seen.fields.one("X-A") == "2"


@pytest.mark.parametrize("line", ["Content_Length: 5", "Transfer_Encoding: chunked", "Content_Length: x"])
def test_row_13_underscore_is_never_framing(edge: Edge, line: str, how: Feed) -> None:
    edge.passed(request(line), how, check=without_underscores, body=b"")


def test_row_13_underscore_is_not_a_host(edge: Edge, how: Feed) -> None:
    edge.refused(request("HOST_: a.test", "_Host: a.test", host=None), 400, how)


@pytest.fixture(scope="module")
def lenient(launch: Callable[..., Edge]) -> Edge:
    return launch(settings={"underscores": True})


@pytest.fixture
def underscored(lenient: Edge) -> Iterator[Edge]:
    yield from clean(lenient)


def test_row_13_underscore_is_kept_by_setting(underscored: Edge, how: Feed) -> None:
    seen = underscored.passed(request("X_A: 1", "Content_Length: 5", "Transfer_Encoding: chunked"), how, body=b"")
    assert seen.fields.one("X_A") == "1"


# Row 14: Host exactly once, uri-host [":" port], not empty (RFC 9112 section 3.2: MUST 400).

BAD_HOSTS = {
    "missing": [],
    "twice-identical": ["Host: a.test", "Host: a.test"],
    "twice-different": ["Host: a.test", "Host: b.test"],
    "twice-apart": ["Host: a.test", "X-Between: 1", "hOST: b.test"],
    "twice-one-empty": ["Host: a.test", "Host:"],
    "empty": ["Host:"],
    "blank": ["Host:  "],
    "userinfo": ["Host: user@a.test"],
    "userinfo-password": ["Host: user:secret@a.test"],
    "empty-userinfo": ["Host: @a.test"],
    "path": ["Host: a.test/x"],
    "slash": ["Host: a.test/"],
    "query": ["Host: a.test?x"],
    "fragment": ["Host: a.test#x"],
    "url": ["Host: http://a.test"],
    "space": ["Host: a.test b.test"],
    "tab": ["Host: a.test\tb.test"],
    "list": ["Host: a.test, b.test"],
    "list-tight": ["Host: a.test,b.test"],
    "null": ["Host: a.test\x00b.test"],
    "obs-text": ["Host: \xe4.test"],
    "backslash": ["Host: a.test\\b"],
    "quotes": ['Host: "a.test"'],
    "angle": ["Host: <a.test>"],
    "port-word": ["Host: a.test:http"],
    "port-too-large": ["Host: a.test:65536"],
    "port-huge": ["Host: a.test:99999999999999999999"],
    "port-minus": ["Host: a.test:-1"],
    "port-plus": ["Host: a.test:+80"],
    "port-space": ["Host: a.test: 80"],
    "two-ports": ["Host: a.test:80:80"],
    "only-port": ["Host: :80"],
    "open-bracket": ["Host: [::1"],
    "bracket-behind": ["Host: [::1]x"],
    "empty-brackets": ["Host: []"],
    "bad-ipv6": ["Host: [::zz]"],
    "bare-ipv6": ["Host: ::1"],
    "percent-null": ["Host: a%00.test"],
    "bad-percent": ["Host: a%zz.test"],
}


@pytest.mark.parametrize("lines", BAD_HOSTS.values(), ids=BAD_HOSTS)
def test_row_14_bad_host(edge: Edge, lines: list[str], how: Feed) -> None:
    edge.refused(request(*lines, host=None), 400, how)


@pytest.mark.parametrize("lines", [["Host: a.test", "Host: a.test"], ["Host: user@a.test"], ["Host:"]])
def test_row_14_bad_host_in_http_1_0(edge: Edge, lines: list[str], how: Feed) -> None:
    edge.refused(request(*lines, host=None, version="1.0"), 400, how)


@pytest.mark.parametrize("host", ["a.test", "A.TesT", "a.test:8080", "a.test.", "a.test.:80", "a.test:1"])
def test_row_14_good_host(edge: Edge, host: str, how: Feed) -> None:
    # Hosts are case-insensitive and routed without port and trailing dot (RFC 3986 section 3.2.2, DNS's root label).
    seen = edge.passed(request(host=host), how)
    assert seen.host.lower().startswith("a.test")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::1]:8080", "[2001:DB8::1]", "x-y.z", "1.2"])
def test_row_14_well_formed_but_unknown_host(edge: Edge, host: str, how: Feed) -> None:
    edge.refused(request(host=host), 404, how, closes=None)


def test_row_14_http_1_0_needs_no_host(edge: Edge, how: Feed) -> None:
    # RFC 9112 section 3.2 asks it of HTTP/1.1 only. The upstream gets one all the same, since we speak 1.1 to it.
    seen = edge.passed(request(host=None, version="1.0", target="/any/x"), how, closes=True, target="/any/x")
    assert len(seen.fields.all("Host")) == 1
    assert seen.fields.one("X-Forwarded-Port") == str(edge.proxy.address[1])
    assert seen.fields.one("X-Forwarded-For") == "127.0.0.1"


# Rows 25 and 26: limits, each with its own status. Small ones, so that a head can be fed byte by byte.


@pytest.fixture(scope="module")
def small_limits(launch: Callable[..., Edge]) -> Edge:
    return launch(settings={"limits.request_line": 64, "limits.head": 256, "limits.fields": 8})


@pytest.fixture
def tight(small_limits: Edge) -> Iterator[Edge]:
    yield from clean(small_limits)


def test_row_25_one_large_field(tight: Edge, how: Feed) -> None:
    tight.refused(request(f"X-A: {'a' * 300}"), 431, how)


def test_row_25_many_small_fields(tight: Edge, how: Feed) -> None:
    tight.refused(request(*[f"X-{number}: {'a' * 40}" for number in range(7)]), 431, how)


def test_row_25_too_many_fields(tight: Edge, how: Feed) -> None:
    tight.refused(request(*[f"A{number}: 1" for number in range(9)]), 431, how)


def test_row_25_endless_line(tight: Edge, how: Feed) -> None:
    # No end in sight: refused without waiting for one.
    tight.refused(f"{START}X-A: {'a' * 400}".encode(), 431, how)


def test_row_25_endless_name(tight: Edge, how: Feed) -> None:
    tight.refused((START + "X" * 400).encode(), 431, how)


def test_row_25_dropped_fields_count(tight: Edge, how: Feed) -> None:
    tight.refused(request(*[f"A_{number}: 1" for number in range(9)]), 431, how)


def test_row_25_within_the_limits(tight: Edge, how: Feed) -> None:
    # A body does not count.
    lines = [f"A{number}: {'a' * 20}" for number in range(5)]
    tight.passed(sized(b"x" * 400, *lines), how, body=b"x" * 400)


def test_row_26_target_too_long(tight: Edge, how: Feed) -> None:
    tight.refused(request(target="/" + "a" * 100), 414, how)


def test_row_26_endless_target(tight: Edge, how: Feed) -> None:
    tight.refused(b"GET /" + b"a" * 400, 414, how)


def test_row_26_query_counts(tight: Edge, how: Feed) -> None:
    tight.refused(request(target="/?" + "a" * 100), 414, how)


def test_row_26_within_the_limit(tight: Edge, how: Feed) -> None:
    target = "/" + "a" * (64 - len("GET / HTTP/1.1\r\n"))
    tight.passed(request(target=target), how, target=target)


def test_row_25_default_head(edge: Edge) -> None:
    edge.passed(request(*[f"X-{number}: {'a' * 300}" for number in range(90)]))  # 27 KiB, 91 fields


def test_row_25_default_head_too_large(edge: Edge) -> None:
    edge.refused(request(*[f"X-{number}: {'a' * 700}" for number in range(50)]), 431)


def test_row_25_default_count(edge: Edge) -> None:
    edge.refused(request(*[f"X-{number}: 1" for number in range(101)]), 431)


def test_row_26_default_accepts_8000(edge: Edge) -> None:
    # RFC 9112 section 3: "RECOMMENDED ... at a minimum, request-line lengths of 8000 octets".
    target = "/" + "a" * 7_980
    edge.passed(request(target=target), target=target)


def test_row_26_default_refuses_9000(edge: Edge) -> None:
    edge.refused(request(target="/" + "a" * 9_000), 414)


# What else may stand before a request.


def test_one_empty_line_before_a_request_is_ignored(edge: Edge, how: Feed) -> None:
    # RFC 9112 section 2.2: "SHOULD ignore at least one empty line (CRLF) received prior to the request-line".
    edge.passed(b"\r\n" + request(target="/x"), how, target="/x")


@pytest.mark.parametrize("before", [b" ", b"\t", b"\x00", b"\xef\xbb\xbf", b"\r", b"\x16\x03\x01"])
def test_anything_else_before_a_request_is_refused(edge: Edge, before: bytes, how: Feed) -> None:
    edge.refused(before + request(), 400, how)
