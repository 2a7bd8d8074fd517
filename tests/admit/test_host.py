from __future__ import annotations

import ipaddress
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admit.host import parse_host
from proxy.errors import Fault, Kind

labels = st.from_regex(rb"[A-Za-z0-9_]([A-Za-z0-9_-]{0,20}[A-Za-z0-9_])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=5).map(b".".join)
ports = st.integers(1, 65535)


def refused(value: bytes) -> bool:
    try:
        parse_host(value)
    except Fault as fault:
        assert fault.kind is Kind.BAD_HOST  # noqa: PT017 - either way is right
        return True
    return False


@given(names, st.none() | ports, st.booleans())
def test_names(name: bytes, port: int | None, dot: bool) -> None:
    value = name + b"." * dot + (b"" if port is None else b":%d" % port)
    assert parse_host(value) == (name.lower(), port or 0)


@given(st.ip_addresses(v=6), st.none() | ports, st.sampled_from(["compressed", "exploded"]))
def test_ipv6_literals_have_one_spelling(address: ipaddress.IPv6Address, port: int | None, form: str) -> None:
    value = b"[%b]" % getattr(address, form).upper().encode() + (b"" if port is None else b":%d" % port)
    assert parse_host(value) == (b"[%b]" % address.compressed.encode(), port or 0)


@given(st.ip_addresses(v=4))
def test_ipv4(address: ipaddress.IPv4Address) -> None:
    assert parse_host(str(address).encode()) == (str(address).encode(), 0)


@given(
    st.binary(max_size=30)
    | st.lists(st.sampled_from([b"a", b".", b":", b"[", b"]", b"80", b"@", b"/", b"-", b"%", b"\xc3", b" ", b","])).map(
        b"".join
    )
)
def test_whatever_passes_is_harmless(value: bytes) -> None:
    """A host is printed into spans, logs, other header lines and matched as text."""
    if refused(value):
        return
    host, port = parse_host(value)
    assert 0 <= port <= 65535
    assert host == host.lower()
    assert re.fullmatch(rb"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", host)
    assert not host.endswith(b".")
    assert b".." not in host
    assert parse_host(host) == (host, 0)  # idempotent


@pytest.mark.parametrize(
    "value",
    [
        b"", b".", b"..", b"a..b", b".a", b"-a", b"a-", b"a:b", b"a:80:80", b":80", b"a:0", b"a:65536", b"a:000080",
        b"a:+80", b"a:8 0", b"a b", b"a,b", b"a/b", b"a?b", b"a#b", b"u@a", b"u:p@a", b"a\\b", b"a%41",
        b"a;b", b"a'", b'a"',
        b"\xc3\xa9.test", b"::1", b"[::1", b"::1]", b"[]", b"[::1]x", b"[::1]:0", b"[1]", b"[g::1]",
        b"[fe80::1%25eth0]", b"[fe80::1%eth0]",
        b"[v1.a]", b"[::1].", b"[127.0.0.1]", b"[::ffff:1.2.3.400]", b"*", b"*.a.test",
        b"a" * 300,
    ],
)  # fmt: skip
def test_refused(value: bytes) -> None:
    assert refused(value), value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"A.Test.", (b"a.test", 0)),
        (b"a:", (b"a", 0)),  # port = *DIGIT (RFC 3986 section 3.2.3)
        (b"[::1]:", (b"[::1]", 0)),
        (b"a:00080", (b"a", 80)),
        (b"_dmarc.a", (b"_dmarc.a", 0)),
    ],
)
def test_odd_but_lawful(value: bytes, expected: tuple[bytes, int]) -> None:
    assert parse_host(value) == expected


def test_the_cache_is_bounded_and_holds_no_failures() -> None:
    results = []
    for number in range(10_000):
        results.append(parse_host(b"h%d.test" % number))
        assert results[-1] == (b"h%d.test" % number, 0)
        for _ in range(2):
            with pytest.raises(Fault):
                parse_host(b"h%d@test" % number)
    # The compiled form's cache cannot be looked at: what it holds has one reference more.
    counts = [sys.getrefcount(each) for each in results]
    assert parse_host(b"h9999.test") is results[-1]
    assert 0 < sum(count > min(counts) for count in counts) <= 4096
    assert parse_host(b"h1.test") == (b"h1.test", 0)  # forgotten, and right again
