from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.route.template import TemplateError, fill, parse, substitute


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("/a", (b"/a",)),
        ("/$1", (b"/", 1)),
        ("$1$2", (1, 2)),
        ("/$10", (b"/", 1, b"0")),  # nginx's groups have one digit
        ("$host/x", ("host", b"/x")),
        ("${HOST}x", ("host", b"x")),
        ("a$uri.b", (b"a", "uri", b".b")),
    ],
)
def test_parts(text: str, parts: tuple[object, ...]) -> None:
    assert parse(text, ("host", "uri")) == parts


@pytest.mark.parametrize("text", ["$", "/$", "$0", "$$1", "$nothing", "${host", "${1}", "$-", "${}"])
def test_what_is_no_template(text: str) -> None:
    with pytest.raises(TemplateError, match="is unknown: what is known here is \\$1 to \\$9, \\$host"):
        parse(text, ("host",))


def test_groups_may_be_forbidden() -> None:
    with pytest.raises(TemplateError, match=r"'\$1' is unknown: no variables are known here"):
        parse("$1", groups=False)


def test_filling() -> None:
    parts = parse("<$1|$2|$3|$host>", ("host",))
    assert fill(parts, (b"a", None), {"host": lambda source: str(source).encode()}, "h") == b"<a|||h>"


@given(st.binary(), st.binary())
def test_what_is_filled_in_is_not_looked_at_again(one: bytes, two: bytes) -> None:
    assert fill(parse("$1-$2"), (one, two)) == one + b"-" + two
    assert fill(parse("$1"), (b"$2",)) == b"$2"


@given(st.text(st.characters(max_codepoint=126)))
def test_any_text_is_a_template_or_an_error(text: str) -> None:
    try:
        parts = parse(text)
    except TemplateError:
        assert "$" in text
    else:
        literal = b"".join(b"$%d" % part if isinstance(part, int) else str(part).encode() for part in parts if part)
        assert len(literal) >= len(text.encode())


def test_substitution_leaves_what_it_does_not_know() -> None:
    assert substitute("$a ${B} $c $1 $", {"a": "x", "b": "y"}) == "x y $c $1 $"
    assert substitute("$a", {"a": "$b", "b": "no"}) == "$b"
