from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admit.forwarded import Claim, address, forwarded_line, lines, read, valid_request_id
from proxy.net.addresses import Trust, parse_networks

TRUST = Trust(parse_networks("10.0.0.0/8,2001:db8:1::/48"))
PEER = "10.0.0.1"

trusted = st.sampled_from(["10.0.0.2", "10.9.8.7", "2001:db8:1::7"])
strangers = st.sampled_from(["192.0.2.1", "198.51.100.7", "2001:db8:2::7"])
written = st.sampled_from(["{}", "{}:4711", " {}\t"])
rubbish = st.sampled_from(["", "unknown", "_hidden", "10.0.0", "256.1.1.1", "a.test", "10.0.0.1/8", "::g", "é"])


def write(text: str, form: str) -> bytes:
    if ":" in text and ":4711" in form:
        text = f"[{text}]"
    return form.format(text).encode("latin-1")


hops = st.tuples(trusted | strangers | rubbish, written)


@given(st.lists(hops, max_size=40), st.sampled_from([b",", b", "]))
def test_the_walk(chain: list[tuple[str, str]], comma: bytes) -> None:
    """The client is the right-most hop that is not trusted; nothing left of an unreadable hop is believed."""
    claim = read({b"x-forwarded-for": comma.join(write(*hop) for hop in chain)}, TRUST, PEER)
    known: list[str] = []
    for text, _ in reversed(chain[-32:]):
        try:
            known.append(str(ipaddress.ip_address(text)))
        except ValueError:
            break
    client = PEER
    for text in known:
        client = text
        if not TRUST.trusts(text):
            break
    if sum(len(write(*hop)) + len(comma) for hop in chain) <= 1024:
        assert claim.client == client
        assert claim.chain == ", ".join(reversed(known)).encode()
    else:
        assert claim.client == client or TRUST.trusts(claim.client)


@pytest.mark.parametrize("padding", [b"x" * 2000, b"10.0.0.1" * 200, b"10.0.0.1," * 200, b"10.0.0.1, " * 102 + b"1"])
def test_nothing_in_front_hides_the_address_that_a_trusted_peer_has_put_behind(padding: bytes) -> None:
    claim = read({b"x-forwarded-for": padding + b", 192.0.2.1, 10.0.0.2"}, TRUST, PEER)
    assert claim.client == "192.0.2.1"
    assert claim.chain.endswith(b"192.0.2.1, 10.0.0.2")
    assert len(claim.chain) <= 1024


def test_an_address_that_is_cut_off_is_none() -> None:
    # Of the stranger's only "2.0.2.1" would be left, or less.
    for pad in range(1000, 1030):
        value = b"198.51.100.7" + b", 10.0.0.2" * 102 + b" " * (pad - 1000)
        assert read({b"x-forwarded-for": value}, TRUST, PEER).client in ("198.51.100.7", "10.0.0.2")


@given(st.dictionaries(
    st.sampled_from([b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"]),
    st.binary(max_size=60) | st.lists(st.sampled_from(b'0123456789abcdef.:[],;% "\x80')).map(bytes),
))  # fmt: skip
def test_whatever_comes_the_claim_is_harmless(noted: dict[bytes, bytes]) -> None:
    claim = read(noted, TRUST, PEER)
    for hop in [claim.client, *(claim.chain.decode().split(", ") if claim.chain else ())]:
        assert re.fullmatch(r"[0-9a-f.:]+", str(ipaddress.ip_address(hop)))
    assert claim.proto in ("", "http", "https")
    assert re.fullmatch(rb"[A-Za-z0-9_.\-:\[\]]*", claim.host)
    assert 0 <= claim.port <= 65535


def test_too_long_a_chain_is_cut_at_the_left() -> None:
    chain = b", ".join([b"192.0.2.1"] * 200)
    assert read({b"x-forwarded-for": chain}, TRUST, PEER) == Claim("192.0.2.1", chain[-32 * 11 + 2 :], "", b"", 0)


def test_too_long_an_address_counts_as_absent() -> None:
    assert read({b"x-forwarded-for": b"1" * 2000}, TRUST, PEER) == Claim(PEER, b"", "", b"", 0)


def test_all_trusted_is_the_left_most() -> None:
    assert read({b"x-forwarded-for": b"10.0.0.3, 10.0.0.2"}, TRUST, PEER).client == "10.0.0.3"


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        (b"x-forwarded-proto", b"HTTPS", "proto", "https"),
        (b"x-forwarded-proto", b"http, https", "proto", "https"),  # the nearest proxy's word
        (b"x-forwarded-proto", b"wss", "proto", ""),
        (b"x-forwarded-proto", b"https,", "proto", ""),
        (b"x-forwarded-host", b"A.test:8443", "host", b"A.test:8443"),
        (b"x-forwarded-host", b"a.test, b.test", "host", b"b.test"),
        (b"x-forwarded-host", b"a.test/path", "host", b""),
        (b"x-forwarded-host", b'a"b', "host", b""),
        (b"x-forwarded-host", b"a" * 262, "host", b""),
        (b"x-forwarded-port", b"8443", "port", 8443),
        (b"x-forwarded-port", b"80, 443", "port", 443),
        (b"x-forwarded-port", b"0", "port", 0),
        (b"x-forwarded-port", b"65536", "port", 0),
        (b"x-forwarded-port", b"4_3", "port", 0),
        (b"x-forwarded-port", b"+443", "port", 0),
        (b"x-forwarded-port", b"000443", "port", 0),
    ],
)
def test_the_other_fields(name: bytes, value: bytes, field: str, expected: object) -> None:
    assert getattr(read({name: value}, TRUST, PEER), field) == expected


@pytest.mark.parametrize(
    ("hop", "expected"),
    [
        (b"192.0.2.1", "192.0.2.1"),
        (b"192.0.2.1:80", "192.0.2.1"),
        (b"[2001:DB8::1]:80", "2001:db8::1"),
        (b"[2001:db8::1]", "2001:db8::1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"unknown", ""),
        (b"", ""),
        (b"\xff", ""),
        (b"192.0.2", ""),
        (b"0300.0.2.1", ""),
        (b"3232235521", ""),  # an integer is no address
        (b"[", ""),
        # A zone (RFC 4007 section 11) is free text to `ipaddress`, means nothing to another host, and would be printed.
        (b"fe80::1%eth0", ""),
        (b'::1%";host="evil.test', ""),
        (b"[fe80::1%25eth0]:80", ""),
    ],
)
def test_addresses(hop: bytes, expected: str) -> None:
    assert address(hop) == expected


@given(st.ip_addresses(), st.integers(0, 65535) | st.none())
def test_every_address_in_every_form(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None) -> None:
    text = str(ip)
    if port is not None:
        text = f"[{text}]:{port}" if ip.version == 6 else f"{text}:{port}"
    assert address(text.encode()) == str(ip)


def test_lines() -> None:
    assert lines(b"192.0.2.1", b"10.0.0.1", b"https", b"a.test", 443, b"192.0.2.1") == (
        b"X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\n"
        b"X-Forwarded-Host: a.test\r\n"
        b"X-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Port: 443\r\n"
        b"X-Real-IP: 192.0.2.1\r\n"
    )


# RFC 7239 section 4: Forwarded = 1#forwarded-element; a value is a token or a quoted-string.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PAIR = _TOKEN + rb"=(?:" + _TOKEN + rb'|"[^"\\]*")'
_ELEMENT = _PAIR + rb"(?:;" + _PAIR + rb")*"
_FORWARDED = re.compile(rb"Forwarded: " + _ELEMENT + rb"(?:, " + _ELEMENT + rb")*\r\n")


@given(
    st.lists(st.ip_addresses().map(str), max_size=5),
    st.ip_addresses().map(str),
    st.sampled_from([b"http", b"https"]),
    st.sampled_from([b"a.test", b"a.test:8080", b"[::1]:80", b""]),
)
def test_forwarded_follows_its_grammar(chain: list[str], peer: str, proto: bytes, host: bytes) -> None:
    line = forwarded_line(", ".join(chain).encode(), peer.encode(), proto, host)
    assert _FORWARDED.fullmatch(line), line
    nodes = re.findall(rb'for="?\[?([0-9a-f:.]+)', line)
    assert [node.decode() for node in nodes] == [*chain, peer]
    assert all((b'for="[%b]"' % node.encode() in line) == (":" in node) for node in (*chain, peer))
    assert line.endswith(b';host="%b";proto=%b\r\n' % (host, proto))


@pytest.mark.parametrize("value", [b"a", b"x" * 128, b"0af7651916cd43dd8448eb211c80319c", b"a-b_c.d/e+f=g:h"])
def test_request_ids_that_stay(value: bytes) -> None:
    assert valid_request_id(value)


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b"a\n", b'a"', b"<b>", b"\xc3\xa9", b"a,b", b"a\\"])
def test_request_ids_that_are_replaced(value: bytes) -> None:
    assert not valid_request_id(value)
