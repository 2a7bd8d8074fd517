from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.route.regex import BUDGET, LARGEST, LONGEST, Pattern, PatternError, RegexPaths, affordable, precedence


def matches(pattern: str, path: str) -> bool:
    raw = path.encode()
    return Pattern(pattern).matches(raw, raw.lower())


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/foo", "/foo", True),
        ("/foo", "/foobar", True),  # a prefix by text, not by element
        ("/foo", "/FOO/x", True),
        ("/foo", "/x/foo", False),
        ("/", "/anything", True),
        ("/[A-Z]{3}", "/uuid", True),  # the example of "Before You Migrate: Five Surprising Ingress-NGINX Behaviors"
        ("/[A-Z]{3}", "/u1id", False),
        ("/foo.html", "/fooxhtml", True),
        ("/foo\\.html", "/fooxhtml", False),
        ("/a/?", "/a", True),
        ("/ab?c", "/ac", True),
        ("/ab*c", "/ac", True),
        ("/ab{0,2}c", "/ac", True),
        ("/a|/b", "/b", True),
        ("/a|/b", "/x/b", False),
        ("/(a|b)/c", "/b/c", True),
        ("/x[|]y", "/x|y", True),
        ("/x\\|y", "/x|y", True),
        ("/x[]|]y", "/x]y", True),
        ("/x[^]|]y", "/x|y", False),
        ("/x[[:alpha:]|]y", "/x|y", True),
        ("/\\Qa|b\\E", "/a|b", True),
        ("/caf\u00e9", "/caf%C3%A9", True),
        ("/caf\u00e9.x", "/caf%C3%A9/x", True),
        ("/a b", "/a%20b", True),
        ("/$", "/", True),
        ("/$", "/x", False),
        ("/(?-i)Ab", "/ab", False),
        ("/(?-i)Ab", "/Ab", True),
    ],
)
def test_matching(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


PIECES = st.sampled_from(
    ["/", "a", "B", "b", ".", "(a|b)", "[ab]", "a?", "b*", "a+", "(/|$)", "(.*)", "\\.", "[^/]+", "|"]
)


@given(st.lists(PIECES, max_size=6).map(lambda each: "/" + "".join(each)), st.text("/abAB.", max_size=8))
def test_agrees_with_python_s_own(pattern: str, rest: str) -> None:
    """Where the two mean the same; and the plain beginning that spares an expression never spares a match."""
    path = f"/{rest}"
    while "//" in pattern:  # no request path in normal form has two slashes in a row, and of plain text they are one
        pattern = pattern.replace("//", "/")
    try:
        oracle = re.compile(f"(?:{pattern})", re.IGNORECASE | re.ASCII)
    except re.error:
        return
    found = oracle.match(path)
    assert matches(pattern, path) is (found is not None)
    if found is not None:
        groups = tuple(None if group is None else group.encode() for group in found.groups())
        if "*" not in pattern and "+" not in pattern and "?" not in pattern:  # of empty repetitions the two differ
            assert Pattern(pattern).captures(path.encode()) == groups


def test_groups() -> None:
    pattern = Pattern("/something(/|$)(.*)")
    assert pattern.captures(b"/something/new") == (b"/", b"new")
    assert pattern.captures(b"/Something") == (b"", b"")
    assert Pattern("/a(b)?").captures(b"/a") == (None,)
    assert Pattern("/plain").captures(b"/plain") == ()
    assert (pattern.groups, Pattern("/plain").groups) == (2, 0)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("/(", "is no regular expression of RE2: missing"),
        ("/(?=a)", "is no regular expression of RE2: invalid perl operator"),
        ("/(a)\\1", "is no regular expression of RE2: invalid escape sequence"),
        ("/a{1001}", "is no regular expression of RE2: invalid repetition size"),
        ("/((a{10}){10}){10}x", f"is too large: \\d+ instructions of at most {LARGEST}"),
        ("/" + "a" * LONGEST, f"at most {LONGEST} characters"),
        ("/[\u00e9]", "between brackets only ASCII"),
    ],
)
def test_what_cannot_be_had(pattern: str, said: str) -> None:
    with pytest.raises(PatternError, match=said):
        Pattern(pattern)


@given(st.text(max_size=60))
def test_any_text_is_a_pattern_or_an_error(text: str) -> None:
    try:
        pattern = Pattern("/" + text)
    except PatternError:
        return
    pattern.matches(b"/a", b"/a")
    assert pattern.size <= LARGEST


class Rule:
    def __init__(self, path: str) -> None:
        self.path = path


def test_the_order_is_by_length_then_backwards_by_text() -> None:
    paths = ["/", "/foo/bar/bar", "/foo/bar/[A-Z0-9]{3}", "/b", "/a", "/foo/bar/.+"]
    tree: RegexPaths = RegexPaths()
    for path in paths:
        tree.add(Pattern(path), Rule(path))
    tree.seal()
    assert sorted(paths, key=precedence, reverse=True) == [
        "/foo/bar/[A-Z0-9]{3}",
        "/foo/bar/bar",
        "/foo/bar/.+",
        "/b",
        "/a",
        "/",
    ]

    def winner(path: str) -> str:
        found = tree.find(path.encode())
        return "" if found is None else found.path

    # The warning of ingress-nginx's page on path matching: the longer text goes before the better match.
    assert winner("/foo/bar/bar") == "/foo/bar/[A-Z0-9]{3}"
    assert winner("/foo/bar/b") == "/foo/bar/.+"
    assert winner("/foo") == "/"
    tree.add_exact(Rule("/foo"))
    assert winner("/foo") == "/foo"
    assert winner("/fooo") == "/"


def test_a_host_s_expressions_are_bounded_by_what_one_request_can_meet() -> None:
    big = "(.{0,60}x){4}"  # some 500 instructions
    same = [f"/{big}{n}" for n in range(40)]
    good, bad = affordable(same)
    assert 0 < len(good) < 40
    assert len(good) + len(bad) == 40
    assert sum(pattern.size for pattern in good.values()) <= BUDGET
    assert all("too large" in why for why in bad.values())
    apart = [f"/{n:03}/{big}" for n in range(400)]  # no request begins with two of these
    assert affordable(apart)[1] == {}
    assert affordable(["/a", "/a", "/(", "/plain" * 100])[1].keys() == {"/("}
    # Those with the longest beginnings stand back, whatever the order.
    mixed = [f"/ab/{big}", *same]
    assert f"/ab/{big}" in affordable(mixed)[1]
