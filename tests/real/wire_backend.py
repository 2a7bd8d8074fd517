"""A backend that knows when it worked: `python -m tests.real.wire_backend HOST PORT`.

``?size=N&think=MS`` asks for a body of N bytes after MS milliseconds. The response's ``x-work`` has two stamps (Unix
nanoseconds, a space between): when the whole request had been read, and before the response was written.
``slow=MS`` has its event loop stand still meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
import time
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
            if size := int(values.get("content-length", "0")):
                await reader.readexactly(size)
            begun = time.time_ns()
            wanted = {name: float(value[0]) for name, value in parse_qs(urlsplit(line.split()[1]).query).items()}
            if wanted.get("slow"):
                time.sleep(wanted["slow"] / 1000)
            if wanted.get("think"):
                await asyncio.sleep(wanted["think"] / 1000)
            body = BODY[: int(wanted.get("size", 0))]
            answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nx-work: {begun} {time.time_ns()}\r\n\r\n"
            writer.write(answer.encode() + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(host: str, port: int) -> None:
    server = await asyncio.start_server(serve, host, port, limit=1 << 20, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
