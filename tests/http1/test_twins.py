"""The compiled scanner and head writer against their Python twins: the same heads, the same faults, the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from proxy.http1 import compose, strict
from proxy.http1.fields import REQUEST_NAMES, RESPONSE_NAMES
from proxy.http1.scan import find_end, find_slash, scan_request, scan_response
from tests.edge import test_rows_framing, test_rows_head, test_rows_hops, test_rows_response, test_rows_target
from tests.harness.twins import COMPILED, outcome, python_form
from tests.http1 import test_scan

compiled_form = pytest.mark.skipif(not COMPILED, reason="compares the compiled form, and this is the pure one")

LINE, FIELDS = 8192, 100
TABLE = 1024  # lines that the compiled scanner keeps; more are for `strict`


def alike(head: bytes, line: int = LINE, fields: int = FIELDS) -> None:
    for underscores in (False, True):
        assert outcome(scan_request, head, line, fields, underscores) == outcome(
            strict.scan_request, head, line, fields, underscores
        )
    assert outcome(scan_response, head, fields) == outcome(strict.scan_response, head, fields)


# What the other tests feed


def texts(value: object) -> Iterator[bytes]:
    """Every string in a test module's tables and in the parameters of its tests."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, str):
        yield value.encode("latin-1", "replace")
    elif isinstance(value, dict):
        yield from texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | type({}.values())):
        for each in value:
            yield from texts(each)
    elif marks := getattr(value, "pytestmark", None):
        yield from texts([mark.args for mark in marks if mark.name == "parametrize"])


def heads(text: bytes) -> Iterator[bytes]:
    """A text as a head, and in every place of a head."""
    yield text
    yield text.partition(b"\r\n\r\n")[0]
    yield b"GET / HTTP/1.1\r\nHost: a.test\r\n" + text
    yield b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: " + text + b"\r\nX-B: 1"
    yield b"GET / HTTP/1.1\r\nHost: " + text
    yield b"POST / HTTP/1.1\r\nContent-Length: " + text + b"\r\nTransfer-Encoding: " + text
    yield b"GET " + text + b" HTTP/1.1\r\nHost: a.test"
    yield text + b" / HTTP/1.1\r\nHost: a.test"
    yield b"GET / " + text + b"\r\nHost: a.test"
    yield b"HTTP/1.1 200 " + text
    yield b"HTTP/1.1 200 OK\r\n" + text


MODULES: list[ModuleType] = [
    test_scan, test_rows_framing, test_rows_head, test_rows_hops, test_rows_response, test_rows_target,
]  # fmt: skip


@compiled_form
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_what_other_tests_feed(module: ModuleType) -> None:
    found = sorted(set(texts(list(vars(module).values()))))
    assert len(found) > 30
    for text in found:
        for head in heads(text):
            alike(head)


# What nobody has thought of

TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
KNOWN = sorted({name.lower() for name in (*REQUEST_NAMES, *RESPONSE_NAMES)})
LENGTHS = [0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257]


def _cased(name: bytes, upper: int) -> bytes:
    return bytes(byte - 32 if 97 <= byte <= 122 and upper >> index & 1 else byte for index, byte in enumerate(name))


_names = st.one_of(
    st.builds(_cased, st.sampled_from(KNOWN), st.integers(0, (1 << 40) - 1)),
    st.sampled_from(KNOWN).map(lambda name: name.replace(b"-", b"_")),
    st.lists(st.sampled_from(TOKEN), min_size=1, max_size=12).map(bytes),
    st.sampled_from(LENGTHS).map(lambda length: b"n" * length),
    # A known name at the end of one that is longer than the compiled scanner's window of 32 bytes.
    st.sampled_from(KNOWN).map(lambda name: b"x" * 32 + name),
    st.binary(max_size=4),
)
_values = st.one_of(
    st.sampled_from([b"", b" ", b"\t \t", b" a", b"a ", b"\ta, b\t", b"a:b", b"5", b"chunked", b"\x80\xff", b"a\x00"]),
    st.sampled_from(LENGTHS).map(lambda length: b"v" * length),
    st.binary(max_size=20),
)
_fields = st.lists(st.tuples(_names, st.sampled_from([b":", b": ", b":\t", b" :", b""]), _values).map(b"".join))
_targets = st.one_of(
    st.sampled_from(
        [b"/", b"*", b"", b"/a?b", b"?", b"/a//b", b"/a/./b", b"/.a", b"/a%20", b"/a?//", b"a/b", b"/\xe9"]
    ),
    st.lists(st.sampled_from([b"/", b".", b"?", b"%", b"a", b"#", b":", b"//", b"/."]), max_size=8).map(b"".join),
    st.binary(max_size=5),
)
_methods = st.sampled_from(
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"QUERY", b"get", b"GE", b"GETS", b"", b"G(T"]
)
_versions = st.sampled_from(
    [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 "]
)
_request_lines = st.tuples(_methods, _targets, _versions).map(b" ".join)
_status_lines = st.tuples(
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"ICY"]),
    st.sampled_from([b"200", b"100", b"099", b"999", b"20", b"2000", b"2a0", b""]),
    st.sampled_from([b"OK", b"", b"O", b"OKs", b"\xe9t\xe9", b"a\tb", b"a\x7f", b"Not Found"]),
).map(b" ".join)
_edits = st.lists(
    st.tuples(
        st.integers(0, 1 << 16),
        st.sampled_from(["flip", "insert", "delete", "cut"]),
        st.sampled_from(
            [b"\r", b"\n", b"\r\n", b"\0", b"\t", b" ", b":", b"_", b"\x7f", b"\x80", b"\x1f", b"a", b"\r\r\n"]
        ),
    ),
    max_size=3,
)


def edited(head: bytes, edits: Iterable[tuple[int, str, bytes]]) -> bytes:
    for where, what, some in edits:
        at = where % (len(head) + 1)
        if what == "flip" and at < len(head):
            head = head[:at] + bytes([head[at] ^ 1 << where % 8]) + head[at + 1 :]
        elif what == "insert":
            head = head[:at] + some + head[at:]
        elif what == "delete":
            head = head[:at] + head[at + 1 :]
        elif what == "cut":
            head = head[:at]
    return head


@compiled_form
@given(
    first=_request_lines | _status_lines | st.just(b"GET / HTTP/1.1") | st.just(b"HTTP/1.1 200 OK"),
    fields=_fields,
    edits=_edits,
    limits=st.sampled_from([(LINE, FIELDS), (14, 3), (0, 0), (LINE, 1 << 40)]),
)
@example(first=b"", fields=[], edits=[], limits=(0, 0))
@example(first=b"GET / HTTP/1.1", fields=[b""], edits=[], limits=(LINE, FIELDS))
@hypothesis_settings(max_examples=500)
def test_heads_of_all_kinds(
    first: bytes, fields: list[bytes], edits: list[tuple[int, str, bytes]], limits: tuple[int, int]
) -> None:
    alike(edited(b"\r\n".join([first, *fields]), edits), *limits)


# Heads that are well-formed but for at most one edit, which most of the above are not.
FRAMING = [b"host", b"content-length", b"transfer-encoding"]
_good_names = st.one_of(
    st.builds(_cased, st.sampled_from([name for name in KNOWN if name not in FRAMING]), st.integers(0, (1 << 40) - 1)),
    st.lists(st.sampled_from(TOKEN), min_size=1, max_size=40).map(bytes),
    st.sampled_from(LENGTHS[1:]).map(lambda length: b"n" * length),
)
_good_values = st.one_of(
    st.sampled_from([b"", b"a, b", b"a:b", b"\x80\xff", b"\t", b"  ", b" a\t", b"keep-alive"]),
    st.sampled_from(LENGTHS).map(lambda length: b"v" * length),
    st.lists(st.sampled_from(bytes([9, *range(32, 127), *range(128, 256)])), max_size=10).map(bytes),
)
_good_fields = st.lists(
    st.one_of(
        st.tuples(_good_names, st.sampled_from([b":", b": "]), _good_values).map(b"".join),
        st.builds(lambda name: name + b": 5", st.sampled_from(FRAMING)),
    ),
    max_size=12,
)
_good_targets = st.lists(st.sampled_from([b"/", b".", b"?", b"%", b"a", b":", b"//", b"/."]), max_size=8).map(
    lambda pieces: b"/" + b"".join(pieces)
)
_good_lines = st.one_of(
    st.builds(
        lambda method, target: method + b" " + target + b" HTTP/1.1", st.sampled_from([b"GET", b"a"]), _good_targets
    ),
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 404 Not Found", b"HTTP/1.1 204 ", b"HTTP/1.1 204"]),
)


@compiled_form
@given(first=_good_lines, fields=_good_fields, edits=st.just([]) | _edits.map(lambda edits: edits[:1]))
@hypothesis_settings(max_examples=1000)
def test_heads_with_at_most_one_fault(first: bytes, fields: list[bytes], edits: list[tuple[int, str, bytes]]) -> None:
    alike(edited(b"\r\n".join([first, *fields]), edits))


@compiled_form
@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b":", b" ", b"GET / HTTP/1.1", b"a", b"_", b"host", b"\0"])))
def test_heads_of_line_ends(pieces: list[bytes]) -> None:
    alike(b"".join(pieces))


@compiled_form
@pytest.mark.parametrize("first", [b"GET / HTTP/1.1", b"HTTP/1.1 200 OK"])
@pytest.mark.parametrize("count", [99, 100, 101, TABLE - 2, TABLE - 1, TABLE, TABLE + 1, 3 * TABLE])
def test_heads_of_many_lines(first: bytes, count: int) -> None:
    # Lines that pass and lines that do not in turn, so that there are as many runs of lines as there can be.
    for names in ([b"X-A"], [b"X-A", b"TE"], [b"TE", b"X-A"], [b"x_y", b"Via"], [b"Connection"]):
        head = b"\r\n".join([first, *(names[index % len(names)] + b": 1" for index in range(count))])
        for most in (FIELDS, count, count - 1, 1 << 20):
            alike(head, LINE, most)


@compiled_form
@pytest.mark.parametrize("size", [*range(12), 126, 127, 128, 129, 255, 256, 257, 8190, 8191, 8192, 8193])
def test_heads_of_every_length(size: int) -> None:
    # The compiled scanner counts control characters in blocks of 128 bytes.
    chance = random.Random(size)
    for some in (b"a", b"\r\n", b"\n", b"\r", b"\t", b"\x00", b"\x7f", b"\xff"):
        alike((some * size)[:size])
        line = bytearray(b"GET /" + b"a" * size + b" HTTP/1.1\r\nX: " + b"b" * size)
        alike(bytes(line))
        line[chance.randrange(len(line))] = some[0]
        alike(bytes(line))


@pytest.mark.parametrize("name", sorted({row[1] for row in REQUEST_NAMES.values() if row is not None}))
def test_names_that_mean_something_mean_it_in_every_case(name: bytes) -> None:
    # What the compiled scanner relies on: a row is found by its name in lower case, and no such name has an underscore.
    assert name == name.lower()
    assert b"_" not in name
    for spelling in (name, name.upper(), name.title(), name.swapcase(), _cased(name, 0b1010101010101010)):
        head = b"GET / HTTP/1.1\r\n" + spelling + b":  v "
        assert outcome(scan_request, head, LINE, FIELDS) == outcome(strict.scan_request, head, LINE, FIELDS)
        noted = scan_request(head, LINE, FIELDS).noted
        assert noted in ({name: b"v"}, {})


@compiled_form
@pytest.mark.parametrize(
    "wrong", [None, "GET / HTTP/1.1", bytearray(b"GET / HTTP/1.1"), memoryview(b"GET / HTTP/1.1"), 1]
)
def test_what_is_no_bytes_is_refused(wrong: object) -> None:
    # Its bytes would be read by pointers.
    with pytest.raises(TypeError):
        scan_request(wrong, LINE, FIELDS)  # type: ignore[arg-type] # on purpose
    with pytest.raises(TypeError):
        scan_response(wrong, FIELDS)  # type: ignore[arg-type] # on purpose


# The head writer: each form against the words of the protocol

FORMS = {"in-use": compose, "python": python_form("proxy.http1.compose")}
_parts = st.lists(
    st.binary(max_size=40) | st.sampled_from(LENGTHS).map(lambda n: b"p" * (40 * n)), min_size=7, max_size=7
)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(parts=_parts)
@example(parts=[b""] * 7)
def test_heads_are_written(form: ModuleType, parts: list[bytes]) -> None:
    a, b, c, d, e, f, g = parts
    prefix = form.request_prefix(a, b, c, d, e, f, g)
    assert prefix == a + b" " + b + b" HTTP/1.1\r\nHost: " + c + b"\r\n" + d + e + f + b"X-Request-ID: " + g + b"\r\n"
    assert form.request(a, b, c, d) == a + b + c + b"\r\n" + d
    assert form.response(a, b, c, d, 0, len(d)) == b"HTTP/1.1 " + a + b"\r\n" + b + c + b"\r\n" + d


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(length=st.integers(0, (1 << 63) - 1))
@example(length=0)
@example(length=9)
@example(length=10)
@example(length=(1 << 63) - 1)
def test_lengths_are_written(form: ModuleType, length: int) -> None:
    assert form.length_line(length) == f"Content-Length: {length}\r\n".encode()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_part_of_a_head_may_be_missing(form: ModuleType) -> None:
    for write, count in ((form.request_prefix, 7), (form.request, 4), (form.response, 4)):
        for missing in range(count):
            with pytest.raises(TypeError):
                write(*(None if at == missing else b"x" for at in range(count)))
    with pytest.raises(TypeError):
        form.length_line(None)


# What looks for single bytes


@given(
    st.lists(st.sampled_from([b"/", b"a", b"\r\n\r\n", b"\r\n", b"\r", b"\n", b"\0"])).map(b"".join), st.integers(0, 40)
)
@example(b"", 0)
@example(b"/", 1)
@example(b"/a", 2)
def test_what_is_looked_for_is_where_python_finds_it(data: bytes, start: int) -> None:
    assert find_slash(data, start) == data.find(b"/", start)
    assert find_end(data, start) == data.find(b"\r\n\r\n", start)


@compiled_form
def test_nothing_is_looked_for_in_front_of_the_data() -> None:
    for find in (find_slash, find_end):
        with pytest.raises(ValueError, match="-1"):
            find(b"/\r\n\r\n", -1)
        with pytest.raises(TypeError):
            find(None, 0)  # type: ignore[arg-type] # on purpose
