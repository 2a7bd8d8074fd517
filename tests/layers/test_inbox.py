"""The socket that records arrive at: its permissions, its neighbours, its end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.layers.inbox import LONGEST_PATH, Inbox
from tests.real.conftest import without


def sender(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.connect(str(path))
    return made


def everything(inbox: Inbox) -> list[bytes]:
    return list(iter(inbox.receive, None))


def test_what_is_sent_arrives_in_order_one_by_one(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "wire.sock")
    with sender(tmp_path / "wire.sock") as out:
        for number in range(5):
            out.send(b"%d" % number)
        out.send(b"")
        assert inbox.receive() == b"0"
        assert everything(inbox) == [b"1", b"2", b"3", b"4", b""]
        assert inbox.receive() is None
    inbox.close()


def test_one_user_and_one_group_may_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        inbox = Inbox(tmp_path / "run" / "wire.sock")
    finally:
        assert os.umask(before) == 0  # as it was
    assert stat.S_IMODE((tmp_path / "run" / "wire.sock").stat().st_mode) == 0o660
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o750
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["wire.sock"]
    inbox.close()


def test_a_file_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "wire.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        assert probe.connect_ex(str(path)) == errno.ECONNREFUSED
    inbox = Inbox(path)
    with sender(path) as out:
        out.send(b"x")
    assert inbox.receive() == b"x"
    inbox.close()
    assert not path.exists()


def test_another_living_instance_is_not_pushed_aside(tmp_path: Path) -> None:
    path = tmp_path / "wire.sock"
    first = Inbox(path)
    with pytest.raises(SettingsError, match=r"another process reads from .* already"):
        Inbox(path)
    with sender(path) as out:
        out.send(b"x")
    assert first.receive() == b"x"
    first.close()


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "wire.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        if kind == "stream":
            other.bind(str(path))
            other.listen()
        else:
            path.write_text("precious")
        with pytest.raises(SettingsError, match="another process" if kind == "stream" else "no socket"):
            Inbox(path)
        assert path.exists()


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"cannot be made: File exists. Choose another with --socket"):
        Inbox(tmp_path / "file" / "wire.sock")


@pytest.mark.parametrize(
    ("name", "most"), [("s", 99), ("s.sock", 104), ("wire.sock", 107), ("another-nodes.sock", 107)]
)
def test_a_path_may_be_as_long_as_is_said(tmp_path: Path, name: str, most: int) -> None:
    """To the byte: what is refused says how long it may be, and what is that long works."""

    def of(size: int) -> Path:
        return tmp_path / ("x" * (size - len(str(tmp_path)) - len(name) - 2)) / name

    assert len(str(of(most))) == most <= LONGEST_PATH
    with pytest.raises(SettingsError, match=rf"is too long: it has {most + 1} bytes, of at most {most}$"):
        Inbox(of(most + 1))
    inbox = Inbox(of(most))
    with sender(of(most)) as out:
        out.send(b"x")
    assert inbox.receive() == b"x"
    inbox.close()


def test_a_removed_file_is_made_again_and_a_taken_one_is_left(tmp_path: Path) -> None:
    path = tmp_path / "wire.sock"
    inbox = Inbox(path)
    assert inbox.state() == "ours"
    path.unlink()
    assert inbox.state() == "gone"
    inbox.renew()
    assert inbox.state() == "ours"
    with sender(path) as out:
        out.send(b"x")
    assert inbox.receive() == b"x"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert inbox.state() == "taken"
        inbox.close()
        assert path.exists()


def test_a_full_inbox_refuses_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wire.sock"
    inbox = Inbox(path)
    with sender(path) as out:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 100_000:
                out.send(bytes(136))
                sent += 1
    assert 0 < sent < 100_000
    assert len(everything(inbox)) == sent
    inbox.close()
    inbox.close()


def test_a_folder_of_a_group_makes_the_socket_that_groups(tmp_path: Path) -> None:
    if os.geteuid():
        without("only root gives folders away")
    folder = tmp_path / "run"
    folder.mkdir()
    os.chown(folder, 0, 12345)
    folder.chmod(0o2750)
    inbox = Inbox(folder / "wire.sock")
    assert (folder / "wire.sock").stat().st_gid == 12345
    inbox.close()
