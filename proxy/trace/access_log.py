"""The access log: one JSON object per request and line, with the trace id and span ids.

Records are collected and written by the worker's sweep, one write for many; the line order is that of the ends.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from typing import TYPE_CHECKING, Final

import msgspec

from proxy.errors import SettingsError

if TYPE_CHECKING:
    from proxy.trace.record import RequestRecord
    from proxy.trace.redact import Redactor

_MOST_HELD: Final = 1024 * 1024  # bytes held between two sweeps, and while the file does not take them
_MOST_TEXT: Final = 1024  # bytes of path, query and User-Agent

_encode = msgspec.json.Encoder().encode


class AccessLog:
    """Appends to a file, or to standard output for ``-``.

    Raises `SettingsError` if the file cannot be opened. A file, pipe or terminal that takes nothing more never holds
    up a request: up to 1 MiB waits for it, and what comes then is counted in ``lost``.
    """

    def __init__(self, target: str, redactor: Redactor) -> None:
        self._target = target
        self._redactor = redactor
        self._held: list[bytes] = []
        self._size = 0
        self._socket: socket.socket | None = None
        self._whole = _MOST_HELD  # bytes per write
        self._fd = self._open()
        self.lost = 0

    def __repr__(self) -> str:
        return f"AccessLog({self._target}, {len(self._held)} held, {self.lost} lost)"

    def _open(self) -> int:
        if self._target != "-":
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            try:
                return os.open(self._target, flags, 0o644)
            except OSError as error:
                raise SettingsError(
                    f"the access log {self._target} cannot be opened: {error.strerror}; "
                    "name another file with --access-log"
                ) from None
        mode = os.fstat(1).st_mode
        if stat.S_ISSOCK(mode):  # systemd's journal
            self._socket = socket.socket(fileno=os.dup(1))
            return 1
        if stat.S_ISREG(mode):
            return 1
        self._whole = select.PIPE_BUF  # up to here a pipe takes all or nothing: lines of two workers never mix
        try:
            # O_NONBLOCK belongs to the open file: with one of our own the shell's stays as it is.
            return os.open("/proc/self/fd/1", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return 1

    def reopen(self) -> None:
        """After the file was moved away (logrotate, SIGUSR1 as in nginx)."""
        self.flush()
        if self._target != "-":
            old = self._fd
            self._fd = self._open()
            os.close(old)

    def offer(self, record: RequestRecord, detail: str) -> None:
        """Take one finished request's record; ``detail`` is a fault's particulars."""
        if self._size > _MOST_HELD:
            self.lost += 1
            return
        line = _encode(self._fields(record, detail)) + b"\n"
        self._size += len(line)
        self._held.append(line)

    def _fields(self, record: RequestRecord, detail: str) -> dict[str, object]:
        route = record.route
        last = record.attempts[-1] if record.attempts else None
        query = record.query[:_MOST_TEXT]
        return {
            "time": record.end_ns / 1e9,
            "client": record.client_address,
            "method": record.method.decode("latin-1"),
            "scheme": record.scheme,
            "host": record.host.decode("latin-1"),
            "path": record.path[:_MOST_TEXT].decode("latin-1"),
            "query": self._redactor.query(query).decode("latin-1") if query else "",
            "protocol": f"HTTP/1.{record.version}",
            "status": record.status,
            "error": record.error_type or record.outcome,
            "detail": detail,
            "bytes_in": record.request_body_size,
            "bytes_out": record.response_body_size,
            "duration_us": max(record.end_ns - record.start_ns, 0) // 1000,  # 0 where the clock was set back
            "self_us": max(record.self_ns, 0) // 1000,
            "wait_us": max(last.first_byte_ns - last.sent_ns, 0) // 1000 if last and last.first_byte_ns else 0,
            "attempts": len(record.attempts),
            "upstream": f"{last.host}:{last.port}" if last else "",
            "upstream_status": last.status if last else 0,
            "route": "" if route is None else f"{route.namespace}/{route.name}:{route.path}",
            "generation": record.generation,
            "user_agent": record.user_agent[:_MOST_TEXT].decode("latin-1"),
            "trace_id": record.trace_id.hex(),
            "span_id": record.span_id.hex(),
            "upstream_span_id": last.span_id.hex() if last else "",
            "sampled": record.recorded,
        }

    def flush(self) -> None:
        """Write what is held, as far as it is taken."""
        held = self._held
        while held:
            count, size = 1, len(held[0])
            while count < len(held) and size + len(held[count]) <= self._whole:
                size += len(held[count])
                count += 1
            data = b"".join(held[:count])
            try:
                written = self._write(data)
            except BlockingIOError:
                return
            except OSError:
                self.lost += len(held)
                held.clear()
                self._size = 0
                return
            self._size -= written
            if written < len(data):
                held[:count] = [data[written:]]
                return
            del held[:count]

    def _write(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return os.write(self._fd, data)
