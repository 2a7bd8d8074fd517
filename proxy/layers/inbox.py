"""Where the proxy's records arrive: a datagram socket in the file system, made so that nobody is ever bewildered.

A datagram socket has no listeners to count, so that a second `bind` at the same path says nothing about whether the
first still reads. `connect` does (unix(7): ECONNREFUSED where nobody has the file open), and a file that was left
behind is replaced in one step (rename(2)), without a moment at which there is none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import stat
from pathlib import Path
from typing import Final, Literal

from proxy.errors import SettingsError

MODE: Final = 0o660
"""Of the socket: whoever may write to it can make spans up, so that it is for one user and one group."""
FOLDER_MODE: Final = 0o750  # of a folder that is made for it; sockets in it are out of others' reach
LONGEST_PATH: Final = 107  # bytes: sun_path holds 108 with the closing zero, unix(7)
_BESIDE: Final = 4  # bytes of the random part of the name that it is bound to first
BUFFER: Final = 4 << 20  # bytes asked for; the kernel gives at most net.core.rmem_max
_LONGEST: Final = 16384  # bytes of a datagram that is read: more than the records that go into one


class Inbox:
    """A bound, non-blocking datagram socket at ``path``.

    Raises `SettingsError` where it cannot be had: another instance reads there, the path is something else, or its
    folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        _refuse(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(OSError):  # a smaller buffer means that the proxy drops, and counts, earlier
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        try:
            self._inode = self._bind()
        except BaseException:
            self._socket.close()
            raise

    def __repr__(self) -> str:
        return f"Inbox({self._path}, {'closed' if self._socket.fileno() < 0 else 'open'})"

    def _bind(self) -> int:
        """Bind beside the path and move there; the inode of what is there now."""
        beside = self._path.with_name(f".{secrets.token_hex(_BESIDE)}")
        try:
            self._path.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            before = os.umask(0o777 & ~MODE)  # so that it is never open to more
            try:
                self._socket.bind(os.fspath(beside))
            finally:
                os.umask(before)
            inode = beside.stat().st_ino
            beside.rename(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise SettingsError(
                f"the socket '{self._path}' cannot be made: {os.strerror(error.errno or 0)}. Choose another with "
                "--socket PATH and give the proxy the same with --wire PATH, or make its folder writable."
            ) from error
        return inode

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def receive(self) -> bytes | None:
        """The next datagram that has arrived; None where there is none."""
        try:
            return self._socket.recv(_LONGEST)
        except BlockingIOError:
            return None

    def state(self) -> Literal["ours", "gone", "taken"]:
        """What is at the path now: this socket, nothing, or what somebody else put there."""
        try:
            return "ours" if self._path.lstat().st_ino == self._inode else "taken"
        except OSError:
            return "gone"

    def renew(self) -> None:
        """Make the file again, which somebody has removed: a bound socket has no second name, so it is a new one.

        What has arrived and is not read yet is lost. Raises `SettingsError` as the constructor does.
        """
        fresh = Inbox(self._path)
        self._socket.close()
        self._socket, self._inode = fresh._socket, fresh._inode

    def close(self) -> None:
        """Stop reading, and remove the file if it is ours still."""
        if self._socket.fileno() < 0:
            return
        if self.state() == "ours":
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._socket.close()


def _refuse(path: Path) -> None:
    """Raise `SettingsError` where ``path`` is no place for our socket."""
    size = len(os.fsencode(path))
    most = LONGEST_PATH - max(0, 1 + 2 * _BESIDE - len(os.fsencode(path.name)))  # also of what it is bound to first
    if size > most:
        raise SettingsError(f"the socket's path '{path}' is too long: it has {size} bytes, of at most {most}")
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing there, or nothing that we may see: `bind` will say
    if not stat.S_ISSOCK(mode):
        raise SettingsError(f"'{path}' is there already and no socket; name another path with --socket PATH")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        answer = probe.connect_ex(os.fspath(path))
    if answer in (0, errno.EPROTOTYPE):
        raise SettingsError(
            f"another process reads from '{path}' already: one 'spanway wire' per node is enough. "
            "End it, or choose another socket with --socket PATH."
        )
    if answer == errno.EACCES:
        raise SettingsError(f"'{path}' belongs to somebody else and cannot be replaced; choose another with --socket")
