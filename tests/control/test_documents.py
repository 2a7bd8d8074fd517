from __future__ import annotations

import contextlib
import itertools
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.documents import DEEPEST, MOST_NODES, DocumentError, documents
from tests.control.texts import dedent


def values(text: str) -> list[object]:
    return [document.value for document in documents(text)]


def refused(text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        list(documents(text))
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: text", "text"),
        ("a: 'on'", "on"),
        ('a: "80"', "80"),
        ("a: ''", ""),
        ("a: 80", 80),
        ("a: -1", -1),
        ("a: +1", 1),
        ("a: 0x1F", 31),
        ("a: -0x10", -16),
        ("a: 010", 8),
        ("a: 0o10", 8),
        ("a: 0b11", 3),
        ("a: 0", 0),
        ("a: 1.5", 1.5),
        ("a: .5", 0.5),
        ("a: 1e3", 1000.0),
        ("a: 1:20", "1:20"),  # sexagesimal in YAML 1.1, and a trap: Kubernetes' reader does not know it either
        ("a: 2026-01-05T09:00:00Z", "2026-01-05T09:00:00Z"),
        ("a: 1.2.3.4", "1.2.3.4"),
        ("a: on", True),
        ("a: Yes", True),
        ("a: NO", False),
        ("a: off", False),
        ("a: yEs", "yEs"),
        ("a: -x", "-x"),
        ("a: !!str 80", "80"),
        ("a: !!int 80", 80),
        ("a: !!float 1", 1),
        ("a: ! 80", "80"),
        ("a: " + "9" * 5000, "9" * 5000),
        ("a: |\n  x\n  y\n", "x\ny\n"),
        ("a: &x [1, 2]\nb: *x", [1, 2]),
        ("a: [[], {}, [~]]", [[], {}, [None]]),
    ],
)
def test_values(text: str, value: object) -> None:
    [document] = values(text)
    assert isinstance(document, dict)
    assert document["a"] == value
    assert type(document["a"]) is type(value)


@pytest.mark.parametrize("null", ["", "~", "null", "Null", "!!null ~"])
def test_a_null_in_a_mapping_is_as_good_as_absent(null: str) -> None:
    assert values(f"a: {null}\nb: 1") == [{"b": 1}]


def test_several_documents_and_empty_ones() -> None:
    assert values("---\na: 1\n---\n# nothing\n---\n~\n---\n- 2\n...\n") == [{"a": 1}, [2]]
    assert values("") == []
    assert values("\ufeffa: 1") == [{"a": 1}]


def test_json_is_read_too_also_what_yaml_cannot() -> None:
    text = json.dumps({"kind": "List", "items": [{"a": None, "b": "\U0001f600 \u2028 <&>"}]}, indent="\t")
    assert "\\ud83d\\ude00" in text
    assert values(text) == [{"kind": "List", "items": [{"b": "\U0001f600 \u2028 <&>"}]}]
    assert "'a' stands twice" in refused('{"a": "\\ud83d\\ude00", "a": 2}')
    assert "not YAML" in refused('{"a": "\\ud83d\\ude00", ')


def test_merge_keys() -> None:
    text = "base: &b {x: 1, y: {z: 2}}\nmore: &m {x: 5, w: 6}\na: {<<: *b, x: 9}\nb: {<<: [*b, *m]}\n"
    [document] = values(text)
    assert document == {
        "base": {"x": 1, "y": {"z": 2}},
        "more": {"x": 5, "w": 6},
        "a": {"x": 9, "y": {"z": 2}},
        "b": {"x": 1, "y": {"z": 2}, "w": 6},
    }
    assert "<< needs a mapping" in refused("a: {<<: 1}")
    assert "<< needs a mapping" in refused("a: {<<: [1]}")


def test_lines() -> None:
    [first, second] = documents(
        dedent("""
            spec:
              rules:
                - host: a
                  paths: [x,
                          y]
                - host: b
            metadata:
              annotations:
                example.org/key: v
                3: w
            ---
            other: 1
        """)
    )
    lines = first.lines
    assert lines.line == 1
    assert [lines.at(f"spec.rules[{number}].host") for number in (0, 1)] == [3, 6]
    assert lines.at("spec.rules[0].paths[1]") == 5
    assert lines.at("metadata.annotations[example.org/key]") == 9
    assert lines.at("metadata.annotations[3]") == 10
    assert lines.at("spec.rules[1].http.paths[0]") == 6, "what does not exist is where it should be"
    assert lines.at("spec.rules[7]") == 2
    assert lines.at("") == 1
    assert second.lines.at("other") == 12
    assert repr(lines) == "Lines(1, 2 below)"


def test_a_merged_value_stands_where_it_was_written() -> None:
    [document] = documents("base: &b\n  x: 1\na:\n  <<: *b\n")
    assert document.lines.at("a.x") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands twice in one mapping"),
        ("a: 1\n'a': 3", "line 2: the key 'a' stands twice in one mapping"),
        ("a: [x\nb: 1", "line 2: not YAML"),
        ("a:\n\tb: 1", "line 2: not YAML: found character"),
        ('a: "x', "line 1: not YAML: found unexpected end of stream"),
        ("a: b: c", "line 1: not YAML: mapping values are not allowed"),
        ("a: 1\nb: \x07", "line 2: the character U+0007 is not allowed"),
        ("a: \ufffe", "line 1: the character U+FFFE is not allowed"),
        ("a: *x", "line 1: the alias *x names no finished value"),
        ("a: &x [*x]", "line 1: the alias *x names no finished value"),
        ("a: &x 1\n---\nb: *x", "line 3: the alias *x names no finished value"),
        ("a: !!python/object:os.system x", "line 1: the tag"),
        ("a: !!binary aGk=", "line 1: the tag"),
        ("a: !!int x", "line 1: the tag"),
        ("a: !mine {b: 1}", "line 1: the tag '!mine' is not supported"),
        ("a: !!set {b}", "line 1: the tag"),
        ("? [a]\n: 1", "line 1: a mapping's key must be a plain text"),
        ("{{ .Values.name }}: 1", "line 1: a mapping's key must be a plain text"),
        ("a: &x k\n*x : 1", "line 2: a mapping's key must be a plain text"),
        ("%YAML 9.9\n---\na: 1", "line 1: not YAML"),
    ],
)
def test_what_is_refused_says_where(text: str, message: str) -> None:
    assert message in refused(text)


def test_a_bomb_is_refused_and_costs_nothing() -> None:
    anchors = "abcdefghij"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise(anchors)
    )
    assert f"more than {MOST_NODES:,} values, aliases expanded" in refused(bomb)
    merged = "a0: &a0 {b: 1}\n" + "".join(
        f"a{number + 1}: &a{number + 1} {{x: *a{number}, y: *a{number}, <<: *a{number}}}\n" for number in range(40)
    )
    assert "aliases expanded" in refused(merged)


def test_many_small_bombs_are_one_large_one() -> None:
    one = "---\na: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcd", "bcde", strict=True)
    )
    assert "aliases expanded" in refused(one * 200)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 50_000,
        "".join(f"{' ' * depth}a:\n" for depth in range(DEEPEST + 5)),
        "a: " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        '{"a": "\\ud83d\\ude00", "b": ' + "[" * 100_000,
    ],
)
def test_depth_is_bounded_and_costs_no_recursion(text: str) -> None:
    message = refused(text)
    assert "nested deeper" in message or "not YAML" in message


PLAIN = st.recursive(
    st.one_of(st.booleans(), st.integers(-(10**15), 10**15), st.text(st.characters(categories=["L", "N", "P", "Z"]))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text("abc./-", min_size=1), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1), PLAIN, min_size=1))
def test_agrees_with_pyyaml_on_what_it_writes(value: dict[str, object]) -> None:
    assert values(yaml.safe_dump(value, allow_unicode=True, default_style='"')) == [value]
    assert values(yaml.safe_dump(value, default_flow_style=True, default_style="'")) == [value]
    assert values(json.dumps(value)) == [value]


PIECES = [*"ab:-[]{}&*!|>'\"%@`#,? \n\t0.~<", "---\n", "&a ", "*a", "<<: ", "\\ud800"]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    found = []
    with contextlib.suppress(DocumentError):
        found = list(documents(text))
    assert all(document.value is not None and document.lines.line >= 1 for document in found)
