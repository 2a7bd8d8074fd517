"""Real HotROD, Jaeger's demonstration: four services that call each other over HTTP and gRPC, traced by Go's SDK."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

from tests.real.process import Process, free_ports

SERVICES: Final = ("frontend", "customer", "driver", "route")
CUSTOMERS: Final = (123, 392, 567, 731)
ROUTES_PER_DISPATCH: Final = 10  # one for each driver found


class HotRod:
    """All services in one process, each on a free loopback port, exporting OTLP over HTTP to ``endpoint``.

    ``database_delay`` (Go's duration syntax) is the pretended query's; HotROD's own is 300ms, one query at a time.
    """

    def __init__(self, program: Path, folder: Path, endpoint: str, *, database_delay: str = "10ms") -> None:
        ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        self.port: Final = ports["frontend"]
        command = [str(program), "all", "--fix-db-query-delay", database_delay]
        for service, port in ports.items():
            command += [f"--{service}-service-hostname=127.0.0.1", f"--{service}-service-port={port}"]
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "JAEGER_"))}
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        self.process = Process("hotrod", command, folder / "hotrod.log", environ=environ)
        try:
            for port in ports.values():
                self.process.until_listening(port)
        except BaseException:
            self.process.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()
