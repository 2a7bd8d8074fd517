from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admit.target import normal_path
from proxy.route.match import Node, PathTree, path_key
from tests.harness.twins import python_form
from tests.route.strategies import rule

# Its dicts may be any, and count; compiled it is the same file.
PYTHON = python_form("proxy.route.match")


def tree(*written: str, form: type[PathTree] = PathTree) -> PathTree:
    made: PathTree = form()
    for text in written:
        one = rule(text)
        if one.path_type == "Exact":
            made.add_exact(one)
        else:
            made.add_prefix(one)
    made.seal()
    return made


def found(paths: PathTree, path: bytes) -> str | None:
    rule = paths.find(path)
    return None if rule is None else rule.path


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("/", b"/"),
        ("/a-b_c.d~e", b"/a-b_c.d~e"),
        ("/caf\u00e9", b"/caf%C3%A9"),
        ("/caf%c3%a9", b"/caf%C3%A9"),
        ("/%7Euser/%41", b"/~user/A"),
        ("/a b", b"/a%20b"),
        ("/100%", b"/100%25"),
        ("/%zz", b"/%25zz"),
        ("/a%2fb", b"/a%2Fb"),
        ("/a?b#c", b"/a%3Fb%23c"),
        ("/a//b", b"/a/b"),
        ("/a{b}|c", b"/a{b}|c"),
    ],
)
def test_path_key(written: str, key: bytes) -> None:
    assert path_key(written) == key


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_path_key_is_a_normal_form(text: str) -> None:
    once = path_key("/" + text)
    assert path_key(once.decode("ascii")) == once


@given(
    st.lists(
        st.sampled_from([*"/aZ0-._~!$&'()*+,;=:@", "%41", "%2f", "%5C", "%c3%A9", "%7e"]),
        max_size=12,
    ).map("".join)
)
def test_a_rule_matches_the_request_that_is_written_like_it(text: str) -> None:
    """Whatever a request path becomes in admission, a rule written the same way becomes too (dot segments aside)."""
    path = "/" + text
    if "/." not in path_key(path).decode():
        assert path_key(path) == normal_path(path.encode())


def test_a_prefix_without_a_rule_falls_back_to_the_longest_above_it() -> None:
    paths = tree("Prefix /", "Prefix /a", "Prefix /a/b/c/d")
    expected = {
        b"/": "/",
        b"/x": "/",
        b"/a": "/a",
        b"/a/": "/a",
        b"/a/b": "/a",
        b"/a/b/c": "/a",
        b"/a/b/c/x": "/a",
        b"/a/b/c/d": "/a/b/c/d",
        b"/a/b/c/d/e": "/a/b/c/d",
        b"/ax/b/c/d": "/",
    }
    assert {path: found(paths, path) for path in expected} == expected


def test_a_rule_above_an_existing_one_is_found_in_either_order() -> None:
    for written in (("Prefix /a/b", "Prefix /a"), ("Prefix /a", "Prefix /a/b")):
        paths = tree(*written)
        assert found(paths, b"/a/b/c") == "/a/b"
        assert found(paths, b"/a/c") == "/a"
        assert paths.find(b"/b") is None


def test_exact_keeps_its_trailing_slash() -> None:
    paths = tree("Exact /a/")
    assert found(paths, b"/a/") == "/a/"
    assert paths.find(b"/a") is None


class Probes(dict):
    """A dict that counts its lookups."""

    def __init__(self, *args):
        super().__init__(*args)
        self.count = 0

    def get(self, key, default=None):
        self.count += 1
        return super().get(key, default)


@pytest.mark.parametrize("path", [b"/" * 8000, b"/a" * 4000, b"/a/b" + b"/" * 8000, b"/a/b/c" + b"/d" * 4000])
def test_a_hostile_path_costs_no_more_probes_than_the_deepest_rule(path: bytes) -> None:
    paths = tree("Prefix /", "Prefix /a/b/c", form=PYTHON.PathTree)
    paths.nodes = probes = Probes(paths.nodes)
    assert paths.find(path) is not None
    assert probes.count <= 3


def test_the_number_of_rules_does_not_change_the_number_of_probes() -> None:
    counts = []
    for size in (10, 10_000):
        paths = tree("Prefix /", *(f"Prefix /a{number}/b" for number in range(size)), form=PYTHON.PathTree)
        paths.nodes = probes = Probes(paths.nodes)
        assert found(paths, b"/a7/b/c") == "/a7/b"
        counts.append(probes.count)
    assert counts == [2, 2]


def test_they_show_what_they_are() -> None:
    assert repr(Node()) == "Node(None, deeper=False)"
    assert repr(tree("Exact /a", "Prefix /b/c")) == "PathTree(1 exact, 2 nodes, root=None)"
