from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balance.hash_key import compile_key
from proxy.errors import SettingsError
from proxy.http1.head import RequestHead
from proxy.http1.scan import scan_request


class Request:
    """A request as `exchange.Exchange` shows it."""

    def __init__(self, head: RequestHead, **changes: object) -> None:
        self.head = head
        self.client_address = "203.0.113.9"
        self.scheme = "https"
        self.method = b"GET"
        self.host = b"shop.test"
        self.path = b"/a%20b"
        self.query = b"id=7&ID=8&empty=&flag&x=1=2&name%3D=no"
        self.request_id = b"r-1"
        vars(self).update(changes)


HEAD = scan_request(
    b"GET /a%20b/./?id=7 HTTP/1.1\r\n"
    b"Host: Shop.Test:8443\r\n"
    b"User-Agent: curl/8\r\n"
    b"X-User:  ann \r\n"
    b"X-Many: 1\r\n"
    b"x-many: 2\r\n"
    b"X-Forwarded-For: 192.0.2.1\r\n"
    b"Cookie: a=1; Session=abc; session=def;bad;  spaced = x \r\n"
    b"Cookie: later=9; b=",
    8192,
    100,
)
REQUEST = Request(HEAD)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("$remote_addr", b"203.0.113.9"),
        ("$binary_remote_addr", b"203.0.113.9"),
        ("$request_uri", b"/a%20b/./?id=7"),
        ("$uri", b"/a%20b"),
        ("$args", REQUEST.query),
        ("$query_string", REQUEST.query),
        ("$host", b"shop.test"),
        ("$scheme", b"https"),
        ("$request_method", b"GET"),
        ("$request_id", b"r-1"),
        ("$http_host", b"Shop.Test:8443"),
        ("$http_user_agent", b"curl/8"),
        ("$http_x_user", b"ann"),
        ("$HTTP_X_User", b"ann"),
        ("$http_x_many", b"1, 2"),
        ("$http_x_forwarded_for", b"192.0.2.1"),
        ("$http_x_none", b""),
        ("$http_x", b""),
        ("$http_x_use", b""),
        ("$arg_id", b"7"),
        ("$arg_ID", b"7"),
        ("$arg_x", b"1=2"),
        ("$arg_empty", b""),
        ("$arg_flag", b""),
        ("$arg_none", b""),
        ("$cookie_session", b"abc"),
        ("$cookie_A", b"1"),
        ("$cookie_later", b"9"),
        ("$cookie_b", b""),
        ("$cookie_spaced", b"x"),
        ("$cookie_bad", b""),
        ("$request_uri$host", b"/a%20b/./?id=7shop.test"),
        ("${remote_addr}x", b"203.0.113.9x"),
        ("${host}_$scheme", b"shop.test_https"),
        ("user:$http_x_user;$arg_id", b"user:ann;7"),
        ("$host/$uri", b"shop.test//a%20b"),
        ("\u00fc$host}{", "\u00fcshop.test}{".encode()),
    ],
)
def test_keys(text: str, key: bytes) -> None:
    assert compile_key(text)(REQUEST) == key


def test_the_uri_of_an_absolute_target_is_what_stands_behind_its_authority() -> None:
    head = RequestHead(b"GET", b"http://shop.test/a?b", 1, b"", {})
    assert compile_key("$request_uri")(Request(head, path=b"/a", query=b"b")) == b"/a?b"
    assert compile_key("$request_uri")(Request(head, path=b"/a", query=b"")) == b"/a"


def test_an_address_with_a_zone_or_ipv6_is_a_key_too() -> None:
    assert compile_key("$remote_addr")(Request(HEAD, client_address="fe80::1%eth0")) == b"fe80::1%eth0"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no variable"),
        ("constant", "has no variable"),
        ("{host}", "has no variable"),
        ("$", "without a variable's name"),
        ("$$host", "without a variable's name"),
        ("$-host", "without a variable's name"),
        ("$host$", "without a variable's name"),
        ("${}", "without a variable's name"),
        ("${ho st}", "without a variable's name"),
        ("${host", "without its '}'"),
        ("$hosts", "unknown variable '$hosts'"),
        ("$http", "unknown variable '$http'"),
        ("$http_", "unknown variable '$http_'"),
        ("$cookie", "unknown variable"),
        ("$arg_", "unknown variable"),
        ("$ssl_protocol", "there are $remote_addr, "),
        ("$h\u00f6st", "unknown variable '$h'"),
    ],
)
def test_bad_syntax_is_refused_with_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        compile_key(text)
    assert reason in str(caught.value)
    assert f"'{text}'" in str(caught.value)


@given(st.text("$ {}ahost_rguri-", max_size=30))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        key = compile_key(text)
    except SettingsError:
        return
    assert isinstance(key(REQUEST), bytes)
    assert "$" in text
