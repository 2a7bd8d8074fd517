"""What is handed to `spanway wire`: a record's bytes, and a sender that waits for nobody."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace import handover
from proxy.trace.handover import HEAD, LOOK, MOST, SIZE, Handover, Head, Record, head, pack, read, route_key, unpack
from tests.trace.records import Upstream, attempt, handed, record

TRACE = b"0123456789abcdef"
COUNT = st.integers(0, (1 << 64) - 1)
PORT = st.integers(0, (1 << 16) - 1)

RECORDS = st.builds(
    Record,
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    PORT,
    PORT,
    *([COUNT] * 9),
    st.integers(0, 255),
)


def listener(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(5)
    return sock


def sender(path: Path) -> Handover:
    made = Handover(str(path))
    made.look(0.0)
    return made


@given(RECORDS)
def test_a_record_comes_back_as_it_was(made: Record) -> None:
    data = pack(made)
    assert len(data) == SIZE == 136
    assert unpack(data) == made
    assert read(head(Head(b"worker 1", 7, True)) + data * 3) == (Head(b"worker 1", 7, True), [made] * 3)


@given(RECORDS, st.data())
def test_what_is_no_record_is_refused(made: Record, data: st.DataObject) -> None:
    whole = head(Head(b"worker 1")) + pack(made)
    with pytest.raises(ValueError, match="bytes; it has 136"):
        unpack(whole[HEAD:][: data.draw(st.integers(0, SIZE - 1))])
    with pytest.raises(ValueError, match="begins with"):
        read(b"xx" + whole[2:])
    with pytest.raises(ValueError, match="version 1; this is version 2"):
        read(whole[:2] + b"\x01" + whole[3:])
    with pytest.raises(ValueError, match="136 each"):
        read(whole + b"x")
    with pytest.raises(ValueError, match="of 23 bytes; its head has 24"):
        read(whole[: HEAD - 1])
    with pytest.raises(ValueError, match="of 0 bytes"):
        read(b"")


def test_ids_and_addresses_have_their_lengths() -> None:
    right = Record(TRACE, b"spanspan", bytes(16), bytes(16), *([0] * 12))
    for wrong in ({"trace_id": b"short"}, {"span_id": b""}, {"local": b"\x7f\0\0\1"}, {"peer": bytes(17)}):
        with pytest.raises(ValueError, match="16"):
            pack(right._replace(**wrong))  # type: ignore[arg-type] # one field each
    with pytest.raises(struct.error):
        pack(right._replace(request_end=-1))


def test_addresses_are_of_16_bytes() -> None:
    assert handover.address("10.0.0.7") == socket.inet_pton(socket.AF_INET6, "::ffff:10.0.0.7")
    assert handover.address("fe80::1%eth0") == socket.inet_pton(socket.AF_INET6, "fe80::1")
    assert handover.address("") == bytes(16)


def test_a_route_is_known_beyond_one_process() -> None:
    key = route_key("a.test", "/", "default", "web")
    assert 0 < key < 1 << 64
    others = [("b.test", "/"), ("a.test", "/x"), ("a.test/", "")]
    assert key not in [route_key(host, path, "default", "web") for host, path in others]


def test_an_attempt_arrives_as_it_was(tmp_path: Path) -> None:
    with listener(tmp_path / "s") as wire:
        hands = sender(tmp_path / "s")
        assert hands.listening
        made = attempt(connection=Upstream())
        hands.take(record(attempts=[made, attempt(span_id=b"attempt2", first_byte_ns=0, abandoned=True, reused=False)]))
        hands.flush()
        first, second = handed(wire)
    assert first == Record(
        trace_id=TRACE,
        span_id=b"attempt1",
        local=handover.address("10.0.0.7"),
        peer=handover.address("10.0.1.9"),
        local_port=51234,
        peer_port=8080,
        request_start=40_000,
        request_end=40_321,
        response_start=90_000,
        response_end=90_555,
        write_ns=made.write_ns,
        sent_ns=made.sent_ns,
        first_byte_ns=made.first_byte_ns,
        end_ns=made.end_ns,
        route=route_key("shop.example", "/api/cart", "shop", "storefront"),
        flags=handover.REUSED,
    )
    assert (second.span_id, second.first_byte_ns, second.flags) == (b"attempt2", 0, handover.FAILED)
    assert (hands.sent, hands.full, hands.gone) == (2, 0, 0)
    hands.close()


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"reused": False}, 0),
        ({"scheme": "https"}, handover.TLS | handover.REUSED),
        ({"status": 101, "reused": False}, handover.TUNNEL),
        ({"abandoned": True}, handover.FAILED | handover.REUSED),
        ({"until_close": True, "reused": False}, handover.CLOSED),
    ],
)
def test_flags(changes: dict[str, Any], flags: int, tmp_path: Path) -> None:
    with listener(tmp_path / "s") as wire:
        hands = sender(tmp_path / "s")
        hands.take(record(attempts=[attempt(**changes)], route=None))
        hands.close()
        (got,) = handed(wire)
    assert (got.flags, got.route) == (flags, 0)


@pytest.mark.parametrize("changes", [{"connection": None}, {"write_ns": 0}])
def test_an_attempt_without_a_connection_is_none_of_the_wires(changes: dict[str, Any], tmp_path: Path) -> None:
    with listener(tmp_path / "s"):
        hands = sender(tmp_path / "s")
        hands.take(record(attempts=[attempt(**changes)]))
        hands.flush()
        assert (hands.sent, hands.full, hands.gone) == (0, 0, 0)
        hands.close()


def test_many_records_go_in_several_datagrams(tmp_path: Path) -> None:
    with listener(tmp_path / "s") as wire:
        hands = sender(tmp_path / "s")
        for _ in range(MOST + 3):
            hands.take(record(attempts=[attempt()]))
        hands.flush()
        hands.flush()
        assert [len(handed(wire)) for _ in range(2)] == [MOST, 3]
        assert hands.sent == MOST + 3
        hands.close()


def test_whoever_does_not_read_costs_records_and_no_time(tmp_path: Path) -> None:
    with listener(tmp_path / "s") as wire:
        hands = sender(tmp_path / "s")
        while not hands.full:
            hands.take(record(attempts=[attempt()]))
            hands.flush()
        assert hands.full == 1
        assert hands.listening
        wire.recv(65536)
        hands.take(record(attempts=[attempt()]))
        hands.flush()
        assert (hands.full, hands.gone) == (1, 0)
        hands.close()


def test_what_a_full_queue_refuses_goes_with_the_next_flush(tmp_path: Path) -> None:
    with listener(tmp_path / "s") as wire:
        hands = sender(tmp_path / "s")
        taken = 0
        while hands.sent == taken:
            hands.take(record(attempts=[attempt()]))
            hands.flush()
            taken += 1
        arrived = 0
        while arrived < taken:
            arrived += (len(wire.recv(65536)) - HEAD) // SIZE
            hands.flush()
        assert (hands.sent, hands.full, hands.gone) == (taken, 0, 0)
        hands.close()


def test_a_listener_that_leaves_is_noticed_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "s"
    hands = sender(path)
    assert not hands.listening
    with listener(path):
        assert not hands.look(LOOK / 2)  # not yet due
        assert hands.look(LOOK)
    hands.take(record(attempts=[attempt()]))
    hands.flush()
    assert (hands.listening, hands.sent, hands.gone) == (False, 0, 1)
    assert not hands.look(2 * LOOK)  # the file is there, and nobody behind it
    path.unlink()
    with listener(path) as second:
        assert hands.look(3 * LOOK)
        hands.take(record(attempts=[attempt()]))
        hands.flush()
        assert len(handed(second)) == 1
        # Another takes its place: found by looking, as the first is still there to be sent to.
        path.unlink()
        with listener(path) as third:
            assert hands.look(4 * LOOK)
            hands.take(record(attempts=[attempt()]))
            hands.flush()
            assert len(handed(third)) == 1
    assert not hands.look(5 * LOOK)  # found by looking too
    assert hands.sent == 2


def test_it_says_that_it_is_there_and_until_when_it_rests(tmp_path: Path) -> None:
    with listener(tmp_path / "s") as wire:
        hands = sender(tmp_path / "s")
        (worker, rest_ns, busy), rows = read(wire.recv(65536))
        assert (len(worker), rest_ns, busy, rows) == (8, 0, False, [])
        hands.rest(5)
        assert read(wire.recv(65536)) == (Head(worker, 5), [])
        hands.take(record(attempts=[attempt()]))
        hands.rest(6)
        said, rows = read(wire.recv(65536))
        assert (said, len(rows), hands.sent) == (Head(worker, 6), 1, 1)
        hands.busy = True
        assert hands.look(LOOK)  # and again, as long as there are both
        assert read(wire.recv(65536)) == (Head(worker, 6, True), [])
        other = sender(tmp_path / "s")
        assert read(wire.recv(65536))[0].worker != worker
        hands.close()
        other.close()
    hands.rest(7)  # to nobody


def test_one_that_comes_later_is_not_told_of_a_rest_that_was_told_to_another(tmp_path: Path) -> None:
    hands = sender(tmp_path / "s")
    with listener(tmp_path / "s") as wire:
        assert hands.look(LOOK)
        hands.rest(5)
        read(wire.recv(65536))
        assert read(wire.recv(65536))[0].rest_ns == 5
    (tmp_path / "s").unlink()
    assert not hands.look(2 * LOOK)
    with listener(tmp_path / "s") as wire:
        assert hands.look(3 * LOOK)
        assert read(wire.recv(65536))[0].rest_ns == 0
    hands.close()


@pytest.mark.parametrize("path", ["", "off", "/nowhere/at/all", "/" + "x" * 200, "/nul\0"])
def test_nobody_is_no_error(path: str) -> None:
    hands = Handover(path)
    for second in range(3):
        assert not hands.look(float(second))
    assert hands.sent == 0


def test_its_socket_is_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with listener(tmp_path / "s"):
        hands = sender(tmp_path / "s")
        assert "listening" in repr(hands)
        hands.close()
        assert not hands.look(9.0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_descriptor_left_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with listener(tmp_path / "wire.sock"):
        one = Handover(str(tmp_path / "wire.sock"))
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socket", refuse)
            assert one.look(0.0) is False
        assert one.look(LOOK) is True
        one.close()


def test_a_socket_that_may_not_be_written_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "wire.sock"
    refused = [True]

    class Socket(socket.socket):
        def connect(self, address: object) -> None:
            if refused[0]:
                raise PermissionError(13, "Permission denied")
            super().connect(address)  # type: ignore[arg-type] # as it was given

    monkeypatch.setattr(socket, "socket", Socket)
    made = handover.Handover(str(path))
    with caplog.at_level("WARNING"):
        for second in range(5):
            assert not made.look(float(second))
    (line,) = caplog.messages
    assert f"'{path}' is there, but user " in line
    assert f"install -d -g {os.getegid()} -m 2750 {tmp_path}" in line
    refused[0] = False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        assert made.look(5.0)
        refused[0] = True
        assert not made.look(6.0)
        assert not made.look(7.0)
    assert len(caplog.messages) == 2, "it had been let in meanwhile"
    made.close()
