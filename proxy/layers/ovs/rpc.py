"""One question to a daemon of Open vSwitch: JSON-RPC 1.0 over a unix socket, bounded in time and bytes.

PyPI's `ovs` (Open vSwitch's own package) has this as well. Its calls wait without a limit for an answer of any size,
in a poll loop of its own, and it parses JSON in Python byte by byte; a switch that is stopped, which is what we want to
notice, would stop its caller. What is needed of it is this file.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, Final

TIMEOUT_S: Final = 2.0  # for one question; an answer takes 0.1 ms, a busy switch's main loop 100 ms
MOST_BYTES: Final = 16 << 20  # of an answer: ten thousand ports, or a full address table, are 5 MB
_CHUNK: Final = 1 << 16


class OvsError(Exception):
    """Open vSwitch cannot be asked, or refused; the message says which socket and why."""


def ask(path: Path, method: str, params: list[Any], timeout_s: float = TIMEOUT_S) -> Any:
    """The result of one call, on a connection of its own.

    ``path`` is a unix socket of ovsdb-server(1) or of ovs-vswitchd(8). Raises `OvsError` when nobody listens there,
    the answer is an error, is longer than `MOST_BYTES`, or is not whole within ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps({"method": method, "params": params, "id": 0}).encode())
            answer = _answer(connection, deadline)
        except TimeoutError:
            raise OvsError(f"{path} did not answer {method} within {timeout_s:g} s: is Open vSwitch stopped?") from None
        except OSError as error:
            raise OvsError(f"{path}: {error.strerror or error}") from error
        except ValueError as error:
            raise OvsError(f"{path}: {method}: {error}") from error
    if answer.get("error") is not None:
        raise OvsError(f"{method}: {' '.join(str(answer['error']).split())[:300]}")
    return answer.get("result")


def _answer(connection: socket.socket, deadline: float) -> dict[str, Any]:
    """The next object that answers call 0; raises ValueError for what is none."""
    decoder = json.JSONDecoder()
    data, going_on, more = bytearray(), True, True
    while going_on or not more:
        if more:
            going_on = _read(connection, data, deadline)
        more = True
        if not data.endswith((b"}", b"\n")):
            continue
        try:
            text = data.decode("utf-8").lstrip()
            message, end = decoder.raw_decode(text)
        except RecursionError:
            raise ValueError("the answer is nested too deeply") from None
        except ValueError:
            continue  # its end is yet to come
        if not isinstance(message, dict):
            raise ValueError("the answer is no object")
        if message.get("id") == 0 and "result" in message:
            return message
        more = not text[end:].strip()
        data[:] = text[end:].encode()  # it was a notice of the server's own: RFC 7047 sections 4.1.6 and 4.1.11
    raise ValueError("the connection was closed before the answer")


def _read(connection: socket.socket, data: bytearray, deadline: float) -> bool:
    """Wait for more, and take all that is there; False: there is no more to come."""
    connection.settimeout(max(1e-3, deadline - time.monotonic()))
    chunk = connection.recv(_CHUNK)
    connection.setblocking(False)
    while chunk:
        data += chunk
        if len(data) > MOST_BYTES:
            raise ValueError(f"the answer is longer than {MOST_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError
        try:
            chunk = connection.recv(_CHUNK)
        except BlockingIOError:
            return True
    return False
