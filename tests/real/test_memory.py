"""Two GiB through the proxy, either way, past readers fast and slow: its memory does not follow the body."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import pytest

from tests.harness import manifests
from tests.harness.proxy import Proxy
from tests.real import usage
from tests.real.big import MIB, Sink, ask, connect, download, drain, sparse_file, upload
from tests.real.conftest import StartNginx, StartSpanway
from tests.real.process import free_ports

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

HOST: Final = "big.test"
BODY: Final = 2048 * MIB
WARM_UP: Final = 64 * MIB  # buffers, arenas and code that the first bodies need, once
ALLOWED: Final = 2 * MIB
NO_LIMIT: Final = {"proxy-body-size": "0"}


class Growth:
    """How far a proxy's memory rises above what it has now; measured at its peak, so that no moment is missed."""

    def __init__(self, proxy: Proxy) -> None:
        self._pid = proxy.process.pid
        usage.reset_peak(self._pid)
        self._before = usage.resident(self._pid)

    @property
    def bytes(self) -> int:
        return usage.peak_resident(self._pid) - self._before


@pytest.mark.parametrize("pause", [0.0, 3.0], ids=["fast reader", "reader that pauses"])
def test_a_big_download_moves_no_memory(
    start_nginx: StartNginx, start_spanway: StartSpanway, tmp_path: Path, pause: float
) -> None:
    for size in (WARM_UP, BODY):
        sparse_file(tmp_path / str(size), size)
    (port,) = free_ports(1)
    start_nginx(f"sendfile on; server {{ listen 127.0.0.1:{port}; root {tmp_path}; }}", port)
    proxy = start_spanway(manifests.documents(*manifests.site("big", [port])))
    assert download(proxy.address, HOST, f"/{WARM_UP}") == WARM_UP
    growth = Growth(proxy)
    assert download(proxy.address, HOST, f"/{BODY}", pause_after=BODY // 4, pause=pause) == BODY
    assert growth.bytes < ALLOWED


@pytest.mark.parametrize("pause", [0.0, 3.0], ids=["fast upstream", "upstream that pauses"])
def test_a_big_upload_moves_no_memory(start_spanway: StartSpanway, pause: float) -> None:
    with contextlib.closing(Sink(pause_after=BODY // 4, pause=pause)) as sink:
        proxy = start_spanway(manifests.documents(*manifests.site("big", [sink.port], annotations=NO_LIMIT)))
        assert upload(proxy.address, HOST, WARM_UP) == WARM_UP
        growth = Growth(proxy)
        assert upload(proxy.address, HOST, BODY) == BODY
        assert growth.bytes < ALLOWED


def test_many_slow_readers_hold_no_more_than_their_buffers(
    start_nginx: StartNginx, start_spanway: StartSpanway, tmp_path: Path
) -> None:
    readers = 32
    sparse_file(tmp_path / str(WARM_UP), WARM_UP)
    (port,) = free_ports(1)
    start_nginx(f"sendfile on; server {{ listen 127.0.0.1:{port}; root {tmp_path}; }}", port)
    proxy = start_spanway(manifests.documents(*manifests.site("big", [port])))
    assert download(proxy.address, HOST, f"/{WARM_UP}") == WARM_UP
    growth = Growth(proxy)
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(connect(proxy.address)) for _ in range(readers)]
        for connection in connections:
            ask(connection, HOST, f"/{WARM_UP}")
        time.sleep(2.0)  # all that any buffer will take has been taken; nobody reads
        for connection in connections:
            assert drain(connection, 2 * WARM_UP) > WARM_UP  # the head too
    assert growth.bytes < readers * MIB // 2  # of 2 GiB that nginx would have sent
