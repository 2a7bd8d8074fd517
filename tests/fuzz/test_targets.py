"""The fuzz targets themselves, so that a long run starts from something that works."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, main

SEEDS = [
    b"GET /a?b HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
    b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\nrest",
    b"a/../b//%2e%2F",
    b"[::1]:80",
    b"a=1,b@c=2",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
    b"\0GET /a?b HTTP/1.1\r\nHost: a.test\r\nX_Y: 1\r\nVia: a\r\nvia: b",
    b"\2HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nTraceresponse: a\r\nX: y",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
]
TOKENS = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b":", b" ", b"/", b"..", b"%", b"2e", b"0", b"f", b";", b"=", b",", b"["])
).map(b"".join)


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(data=st.sampled_from(SEEDS) | st.binary(max_size=60) | TOKENS, at=st.integers(0, 60), byte=st.integers(0, 255))
def test_target(name: str, data: bytes, at: int, byte: int) -> None:
    TARGETS[name](data)
    TARGETS[name](data[:at] + bytes([byte]) + data[at + 1 :])


def test_replay(tmp_path: Path) -> None:
    for number, seed in enumerate(SEEDS):
        (tmp_path / str(number)).write_bytes(seed)
    assert main(["targets.py", "request", "--replay", *map(str, tmp_path.iterdir())]) == 0
    assert main(["targets.py", "nonsense"]) == 2
