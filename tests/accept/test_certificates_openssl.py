"""`Certificates` as `openssl s_client` sees them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from proxy.accept.certificates import Certificates
from proxy.accept.selfsigned import NAME
from proxy.net.tls import TlsTransport
from proxy.route.spec import CertificateSpec, TableSpec
from tests.harness.certificates import Certificate
from tests.net.openssl import openssl_command


@pytest.fixture(scope="module")
def openssl() -> str:
    return openssl_command()


@pytest.fixture
def port(openssl: str) -> Iterator[int]:
    """A server of one certificate that says hello, in a thread of its own."""
    certificates = Certificates()
    certificates.update(
        TableSpec(
            1,
            certificates=tuple(
                CertificateSpec(f"ns/{name}", (name,), made.pem, made.key)
                for name, made in (("shop.test", Certificate("shop.test")), ("*.shop.test", Certificate("*.shop.test")))
            ),
        )
    )

    class Hello(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            tls = cast("TlsTransport", transport)
            tls.write(f"{tls.version} {tls.server_name or '-'} {tls.alpn or '-'} {tls.resumed}\n".encode())

    class Outer(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            tls = TlsTransport(certificates.context, Hello(), server_side=True)
            tls.start(cast("asyncio.Transport", transport))

    loop = asyncio.new_event_loop()
    with contextlib.closing(loop), socket.create_server(("127.0.0.1", 0)) as sock:
        server = loop.run_until_complete(loop.create_server(Outer, sock=sock))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield sock.getsockname()[1]
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.run_until_complete(asyncio.sleep(0.01))


def s_client(openssl: str, port: int, *arguments: str) -> str:
    """What `openssl s_client` printed, up to the server's hello or the failure."""
    command = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("TLSv1."):
                break
        process.stdin.close()
        lines.extend(process.stdout)
    return "".join(lines)


def test_openssl_sees_versions_alpn_and_sni(openssl: str, port: int) -> None:
    output = s_client(openssl, port, "-servername", "SHOP.test", "-alpn", "h2,http/1.1")
    assert "TLSv1.3 shop.test http/1.1 False\n" in output
    assert "subject=CN = shop.test" in output
    assert "Compression: NONE" in output
    assert "TLSv1.2 a.shop.test - False\n" in s_client(openssl, port, "-tls1_2", "-servername", "a.shop.test")
    output = s_client(openssl, port, "-noservername")
    assert "TLSv1.3 - - False\n" in output
    assert NAME in output


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1"])
def test_openssl_is_refused_old_versions(openssl: str, port: int, flag: str) -> None:
    output = s_client(openssl, port, flag, "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in output
    assert "TLSv1. " not in output


def test_openssl_is_refused_weak_suites(openssl: str, port: int) -> None:
    output = s_client(openssl, port, "-tls1_2", "-cipher", "AES128-SHA:ECDHE-ECDSA-AES128-SHA:AES128-GCM-SHA256")
    assert "alert handshake failure" in output


@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
def test_openssl_resumes(openssl: str, port: int, flag: str, tmp_path: Path) -> None:
    ticket = str(tmp_path / "ticket")
    assert " False\n" in s_client(openssl, port, flag, "-servername", "shop.test", "-sess_out", ticket)
    output = s_client(openssl, port, flag, "-servername", "shop.test", "-sess_in", ticket)
    assert f"{flag.replace('-tls1_', 'TLSv1.')} shop.test - True\n" in output
