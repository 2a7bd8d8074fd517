"""An address of this machine that is not a loopback one: the API server refuses those in EndpointSlices."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

RANGE: Final = ipaddress.ip_network("198.18.0.0/15")  # for benchmarks, RFC 2544: no network of anybody's


@contextlib.contextmanager
def own_address(ip: Path | None) -> Iterator[str]:
    """An address of the benchmarking range, put on the interface lo while the context lasts; needs root and `ip`.

    Without these: one that the machine has. Raises LookupError when it has none.
    """
    if ip is None or os.geteuid() != 0:
        yield _machines_own()
        return
    address = str(RANGE[random.randrange(256, RANGE.num_addresses - 1)])
    command = (str(ip), "address", "add", f"{address}/32", "dev", "lo")
    if subprocess.run(command, capture_output=True, timeout=10, check=False).returncode:
        yield _machines_own()  # root of a container that may not
        return
    try:
        yield address
    finally:
        subprocess.run((*command[:2], "del", *command[3:]), capture_output=True, timeout=10, check=False)


def _machines_own() -> str:
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not ipaddress.ip_address(each.address).is_loopback:
                return each.address
    raise LookupError("this machine has no address that is not loopback; run as root with iproute2, or give it one")
