from __future__ import annotations

import pytest

from proxy.control import names


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("http", True),
        ("a-1", True),
        ("1a", True),
        ("abcdefghijklmno", True),
        ("abcdefghijklmnop", False),
        ("80", False),
        ("-a", False),
        ("a-", False),
        ("a--b", False),
        ("A", False),
        ("a_b", False),
        ("a\n", False),
    ],
)
def test_port_names(name: str, good: bool) -> None:
    assert (names.port_name(name) == "") is good


@pytest.mark.parametrize(
    ("name", "good"), [("a", True), ("1", True), ("a-b", True), ("x" * 63, True), ("x" * 64, False), ("a.b", False)]
)
def test_labels(name: str, good: bool) -> None:
    assert (names.label(name) == "") is good
    assert names.label(f"{name}-")
    assert names.label(f"{name}\n")


@pytest.mark.parametrize("text", ["1.2.3.4", "01.2.3.4", "::1", "1::", "::ffff:1.2.3.4"])
def test_addresses(text: str) -> None:
    assert names.is_address(text)


@pytest.mark.parametrize("text", ["", "a", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4:80", "[::1]", "1.2.3.x"])
def test_no_addresses(text: str) -> None:
    assert not names.is_address(text)


@pytest.mark.parametrize(("number", "good"), [(0, False), (1, True), (65535, True), (65536, False), (-1, False)])
def test_port_numbers(number: int, good: bool) -> None:
    assert (names.port_number(number) == "") is good
