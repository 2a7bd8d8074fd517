"""The access log: one JSON object per request and line, with the trace id and span ids.

Records are collected and written by the worker's sweep, one write for many; the line order is that of the ends.
"""

from __future__ import annotations

import os
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

    Raises `SettingsError` if the file cannot be opened. A file that later cannot be written loses lines, counted in
    ``lost``, never requests.
    """

    def __init__(self, target: str, redactor: Redactor) -> None:
        self._target = target
        self._redactor = redactor
        self._held: list[bytes] = []
        self._size = 0
        self._fd = -1
        self.lost = 0
        self._open()

    def __repr__(self) -> str:
        return f"AccessLog({self._target}, {len(self._held)} held, {self.lost} lost)"

    def _open(self) -> None:
        if self._target == "-":
            self._fd = 1
            return
        try:
            self._fd = os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise SettingsError(
                f"the access log {self._target} cannot be opened: {error.strerror}; name another file with --access-log"
            ) from None

    def reopen(self) -> None:
        """After the file was moved away (logrotate, SIGUSR1 as in nginx). Keeps the old one if it cannot."""
        self.flush()
        if self._target != "-":
            old = self._fd
            self._open()
            os.close(old)

    def offer(self, record: RequestRecord) -> None:
        """Take one finished request's record."""
        if self._size > _MOST_HELD:
            self.lost += 1
            return
        line = _encode(self._fields(record)) + b"\n"
        self._size += len(line)
        self._held.append(line)

    def _fields(self, record: RequestRecord) -> dict[str, object]:
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
            "bytes_in": record.request_body_size,
            "bytes_out": record.response_body_size,
            "duration_us": (record.end_ns - record.start_ns) // 1000,
            "self_us": record.self_ns // 1000,
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
        """Write what is held."""
        if not self._held:
            return
        data = b"".join(self._held)
        count = len(self._held)
        self._held = []
        self._size = 0
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self.lost += count
