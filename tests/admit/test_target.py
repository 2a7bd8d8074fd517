from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.admit.target import absolute, normal_path, split
from proxy.errors import Fault, Kind

# What scan_request lets through in a target, with what matters to a normal form far more often than chance has it.
_special = st.sampled_from(
    [b"/", b"//", b".", b"..", b"/./", b"/../", b"%2e", b"%2E%2e", b"%2f", b"%5C", b"%41", b"%7e"]
)
_special |= st.sampled_from(
    [b"%", b"%2", b"%zz", b"%00", b"%25", b"%252e", b"%3F", b"%23", b";", b"\\", b"a", b"%c3%a9"]
)
_plain = st.sampled_from(sorted(set(range(0x21, 0x7F)) - {0x23, 0x3F})).map(lambda code: bytes([code]))
paths = st.lists(_special | _plain, max_size=12).map(lambda parts: b"/" + b"".join(parts))


def normal(path: bytes) -> bytes:
    """The normal form; what is refused is no example."""
    try:
        return normal_path(path)
    except Fault as fault:
        assert fault.kind is Kind.BAD_TARGET  # noqa: PT017 - either way is right
        assume(False)
        raise


@given(paths)
def test_normal_form_is_normal(path: bytes) -> None:
    assert normal_path(normal(path)) == normal(path)


@given(paths, st.binary(max_size=10).filter(lambda data: b"#" not in data))
def test_split_and_normal_path_agree(path: bytes, query: bytes) -> None:
    """The fast way, which looks for three marks only, misses nothing that the slow way would change."""
    expected = normal(path)
    assert split(path + b"?" + query) == (expected, query, expected == path)
    assert split(path) == (expected, b"", expected == path)


@given(paths)
def test_normal_form_never_climbs_and_has_no_second_reading(path: bytes) -> None:
    result = normal(path)
    assert result.startswith(b"/")
    assert b"//" not in result
    segments = result.split(b"/")[1:]
    assert not {b".", b".."}.intersection(segments)
    # Nor after one more round of decoding by a careless upstream, apart from what was escaped twice.
    if b"%25" not in result.upper() and b"%2F" not in result and b"%5C" not in result:
        assert not {b".", b".."}.intersection(unquote_to_bytes(result).split(b"/"))


@given(paths)
def test_escapes_are_canonical(path: bytes) -> None:
    result = normal(path)
    for digits in re.findall(rb"%(..)", result):
        assert digits == digits.upper()
        character = bytes([int(digits, 16)])
        assert not re.fullmatch(rb"[A-Za-z0-9\-._~\0]", character)
    assert len(re.findall(rb"%", result)) == len(re.findall(rb"%[0-9A-F]{2}", result))


@given(paths)
def test_reserved_characters_keep_their_spelling(path: bytes) -> None:
    """An escaped delimiter stays escaped and a bare one bare: "/a%2Fb" and "/a/b" are two resources."""
    assume(b"/." not in path and b"%2e" not in path.lower())  # dot segments take others away with them
    result = normal(path)
    for text in (b"%2F", b"%5C", b"%3F", b"%23", b"%25", b"%3B"):
        assert result.count(text) == len(re.findall(re.escape(text), path, re.IGNORECASE))
    assert result.count(b";") == path.count(b";")


@given(paths)
def test_oracle(path: bytes) -> None:
    """The same by the letter of RFC 3986 section 5.2.4, character by character."""
    if re.search(rb"%(?![0-9A-Fa-f]{2})|%00", path):
        with pytest.raises(Fault):
            normal_path(path)
        return

    def unreserve(match: re.Match[bytes]) -> bytes:
        character = bytes([int(match[1], 16)])
        return character if re.fullmatch(rb"[A-Za-z0-9\-._~]", character) else match[0].upper()

    text = re.sub(rb"/+", b"/", re.sub(rb"%(..)", unreserve, path))
    output: list[bytes] = []
    while text:
        if text.startswith(b"/./"):
            text = text[2:]
        elif text == b"/.":
            text = b"/"
        elif text.startswith(b"/../") or text == b"/..":
            if not output:
                with pytest.raises(Fault) as caught:
                    normal_path(path)
                assert caught.value.kind is Kind.BAD_TARGET
                return
            output.pop()
            text = b"/" + text[4:]
        else:
            segment = re.match(rb"/[^/]*", text)
            assert segment is not None
            output.append(segment[0])
            text = text[segment.end() :]
    assert normal_path(path) == b"".join(output)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", b"/"),
        (b"/a/b/", b"/a/b/"),
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/a/..", b"/"),
        (b"/a/.", b"/a/"),
        (b"/.hidden", b"/.hidden"),
        (b"/...", b"/..."),
        (b"/..a/b..", b"/..a/b.."),
        (b"//a///b", b"/a/b"),
        (b"/a//../b", b"/b"),
        (b"/%7euser", b"/~user"),
        (b"/%41%2d", b"/A-"),
        (b"/a%2fb", b"/a%2Fb"),
        (b"/a%5cb", b"/a%5Cb"),
        (b"/%2e%2e%2fb", b"/..%2Fb"),
        (b"/a/%2e%2E/b", b"/b"),
        (b"/%252e%252e/b", b"/%252e%252e/b"),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
    ],
)
def test_normal_forms(path: bytes, expected: bytes) -> None:
    assert normal_path(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        b"/..",
        b"/../a",
        b"/a/../../b",
        b"/%2e%2e/a",
        b"/.%2E",
        b"/a/..//../b",
        b"/%",
        b"/%4",
        b"/%g0",
        b"/a%00b",
        b"/%%41",
    ],
)
def test_refused(path: bytes) -> None:
    with pytest.raises(Fault) as caught:
        split(path)
    assert caught.value.kind is Kind.BAD_TARGET


@pytest.mark.parametrize(
    ("target", "expected"),
    [(b"/?", (b"/", b"", True)), (b"/a?b?c", (b"/a", b"b?c", True)), (b"/a?..//%zz%00", (b"/a", b"..//%zz%00", True))],
)
def test_the_query_is_left_alone(target: bytes, expected: tuple[bytes, bytes, bool]) -> None:
    assert split(target) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://a.test", (b"http", b"a.test", b"/")),
        (b"HTTPS://A.test:8443/x?y", (b"https", b"A.test:8443", b"/x?y")),
        (b"http://a.test?q=http://b/", (b"http", b"a.test", b"/?q=http://b/")),
        (b"http://[::1]:80/", (b"http", b"[::1]:80", b"/")),
        (b"http://u@a.test/", (b"http", b"u@a.test", b"/")),  # refused as a host
    ],
)
def test_absolute_form(target: bytes, expected: tuple[bytes, bytes, bytes]) -> None:
    assert absolute(target) == expected


@pytest.mark.parametrize(
    "target",
    [b"a.test:443", b"http:/a.test/", b"http:///x", b"http://?x", b"ftp://a.test/", b"a", b"?x", b"://a/", b"**"],
)
def test_no_form_at_all(target: bytes) -> None:
    with pytest.raises(Fault) as caught:
        absolute(target)
    assert caught.value.kind is Kind.BAD_TARGET
