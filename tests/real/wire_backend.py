"""A backend that knows when it worked: `python -m tests.real.wire_backend HOST PORT RECEIVE [CERTIFICATE KEY]`.

RECEIVE is its receive buffer in bytes, 0 for the kernel's choice. With a certificate it speaks TLS.

``?size=N&think=MS`` asks for a body of N bytes after MS milliseconds. The response's ``x-work`` has two stamps (Unix
nanoseconds, a space between): when the whole request had been read, and before the response was written;
``x-context`` is the ``traceparent`` that it got.
``slow=MS`` has its event loop stand still meanwhile, ``hold=MS`` has it wait before it reads the body.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs, urlsplit

import uvloop

BODY: Final = b"x" * (1 << 20)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")
            values = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
            wanted = {name: float(value[0]) for name, value in parse_qs(urlsplit(line.split()[1]).query).items()}
            if wanted.get("hold"):
                await asyncio.sleep(wanted["hold"] / 1000)
            if size := int(values.get("content-length", "0")):
                await reader.readexactly(size)
            begun = time.time_ns()
            if wanted.get("slow"):
                time.sleep(wanted["slow"] / 1000)  # noqa: ASYNC251 - the loop is to stand still
            if wanted.get("think"):
                await asyncio.sleep(wanted["think"] / 1000)
            body = BODY[: int(wanted.get("size", 0))]
            answer = (
                f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nx-context: {values.get('traceparent', '')}\r\n"
                f"x-work: {begun} {time.time_ns()}\r\n\r\n"
            )
            writer.write(answer.encode() + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(host: str, port: int, receive: int, certificate: Sequence[str]) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=512)
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
    if receive:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    # What the reader takes in of an unread body is within its limit twice over.
    server = await asyncio.start_server(serve, sock=listener, limit=receive or 1 << 20, ssl=tls)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
