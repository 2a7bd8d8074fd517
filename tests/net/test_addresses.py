from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import SettingsError
from proxy.net import addresses
from proxy.net.addresses import Ranges, Trust, parse_address, parse_networks
from proxy.settings import EVERYONE, PRIVATE, Address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("[2001:DB8:0::1]:65535", Address("2001:db8::1", 65535)),
        ("[::]:0", Address("::", 0)),
        ("localhost:3000", Address("localhost", 3000)),
        ("Shop.Default.SVC:80", Address("shop.default.svc", 80)),
        ("shop.test.:80", Address("shop.test.", 80)),
        ("my_db-1:5432", Address("my_db-1", 5432)),
        ("0.0.0.0:1", Address("0.0.0.0", 1)),
        (":8080", Address("192.0.2.1", 8080)),
        ("8080", Address("192.0.2.1", 8080)),
        ("0", Address("192.0.2.1", 0)),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse_address(text, default_host="192.0.2.1") == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "has no port"),
        ("localhost", "has no port; write localhost:8080"),
        ("127.0.0.1", "has no port"),
        ("[::1]", "with a port behind the bracket"),
        ("[::1]8080", "not an address"),
        ("[::1:8080", "not an address"),
        ("::1:8080", "stands in brackets"),
        ("2001:db8::1", "stands in brackets"),
        ("http://localhost:80", "stands in brackets"),
        ("[::g]:80", "not an IPv6 address"),
        ("[127.0.0.1]:80", "not an IPv6 address"),
        ("localhost:", "not a port"),
        (":", "not a port"),
        ("localhost:65536", "not a port"),
        ("localhost:-1", "not a port"),
        ("localhost:080", "not a port"),
        ("localhost:8_0", "not a port"),
        ("localhost:\u0663", "not a port"),
        ("localhost: 80", "not a port"),
        ("123456", "not a port"),
        ("1.2.3:80", "not an IPv4 address"),
        ("1.2.3.256:80", "not an IPv4 address"),
        ("01.2.3.4:80", "not an IPv4 address"),
        ("a..b:80", "not a host"),
        ("-a:80", "not a host"),
        ("a-.b:80", "not a host"),
        ("a b:80", "not a host"),
        ("sh\u00f6p.test:80", "IDNs as xn--"),
        ("x" * 64 + ":80", "not a host"),
        ("x." * 127 + "xx:80", "not a host"),
        ("*:80", "not a host"),
        ("user@host:80", "not a host"),
    ],
)
def test_what_is_no_address_says_what_would_be(text: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_address(text, default_host="127.0.0.1")
    assert hint in str(caught.value)
    assert f"'{text}'" in str(caught.value)


@pytest.mark.parametrize("text", [":8080", "8080"])
def test_a_host_is_needed_where_there_is_no_default(text: str) -> None:
    with pytest.raises(SettingsError, match=r"has no host; write 127\.0\.0\.1:8080"):
        parse_address(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_reads_what_it_writes(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    written = Address(str(address), port)
    assert parse_address(str(written)) == written


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        parsed = parse_address(text, default_host="h")
    except SettingsError:
        return
    assert parse_address(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        (" 10.0.0.0/8 , 2001:db8::/32,192.0.2.1 ", ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]),
        ("10.0.0.0/8,10.0.0.0/8", ["10.0.0.0/8"]),
        ("::1", ["::1/128"]),
        ("none", []),
        ("all", [str(network) for network in EVERYONE]),
        ("private", [str(network) for network in PRIVATE]),
        ("private,203.0.113.0/24", [*(str(network) for network in PRIVATE), "203.0.113.0/24"]),
    ],
)
def test_networks(text: str, expected: list[str]) -> None:
    assert [str(network) for network in parse_networks(text)] == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "not a network"),
        ("10.0.0.0/8,", "not a network"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("2001:db8::1/32", "write 2001:db8::/32"),
        ("10.0.0.0/33", "not a network"),
        ("localhost", "not a network"),
        ("ALL", "not a network"),
        ("all,10.0.0.0/8", "'all' stands alone"),
        ("10.0.0.0/8,none", "'none' stands alone"),
    ],
)
def test_what_is_no_network_says_what_would_be(text: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_networks(text)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("networks", "address", "trusted"),
    [
        ("private", "127.0.0.1", True),
        ("private", "10.255.255.255", True),
        ("private", "11.0.0.0", False),
        ("private", "::1", True),
        ("private", "::2", False),
        ("private", "fd00::1", True),
        ("private", "fe80::1%eth0", True),
        ("private", "::ffff:10.0.0.1", True),
        ("private", "::ffff:a00:1", True),
        ("private", "::ffff:192.0.2.1", False),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "11.1.2.3", False),
        ("all", "203.0.113.9", True),
        ("all", "2001:db8::1", True),
        ("all", "", False),
        ("all", "/run/spanway.sock", False),
        ("none", "127.0.0.1", False),
        ("0.0.0.0/0", "::1", False),
        ("0.0.0.0/0", "::ffff:1.2.3.4", True),
    ],
)
def test_trust(networks: str, address: str, trusted: bool) -> None:
    trust = Trust(parse_networks(networks))
    assert trust.trusts(address) is trusted
    assert trust.trusts(address) is trusted  # remembered


def test_trust_remembers_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_REMEMBERED", 10)
    trust = Trust(parse_networks("10.0.0.0/8"))
    for number in range(100):
        assert trust.trusts(f"10.0.0.{number}")
        assert not trust.trusts(f"11.0.0.{number}")
        assert len(trust._known) <= 10


def test_trust_shows_its_networks() -> None:
    assert repr(Trust(parse_networks("10.0.0.0/8,::1"))) == "Trust(10.0.0.0/8, ::1/128)"
    assert repr(Trust(())) == "Trust(none)"


_WHERE = st.one_of(
    st.sampled_from(["", "x", "fe80::1%eth0", "::ffff:10.0.0.1", "255.255.255.255", "::"]),
    st.ip_addresses().map(str),
    st.integers(0, 1 << 10).map(lambda number: str(ipaddress.ip_address((10 << 24) + number))),
)
_NETWORKS = st.one_of(
    st.sampled_from(["0.0.0.0/0", "::/0", "::ffff:10.0.0.0/104", "10.0.0.0/23", "10.0.1.128/25", "10.0.0.0/32"]),
    st.integers(0, 1 << 10).map(lambda number: f"{ipaddress.ip_address((10 << 24) + number)}/32"),
)


@given(st.lists(_NETWORKS, max_size=12), st.lists(_WHERE, max_size=20))
def test_ranges_hold_what_trust_trusts(texts: list[str], asked: list[str]) -> None:
    networks = [ipaddress.ip_network(text) for text in texts]
    ranges, trust = Ranges(networks), Trust(networks)
    for address in asked:
        assert ranges.holds(address) is trust.trusts(address)
    assert repr(ranges).startswith("Ranges(")
