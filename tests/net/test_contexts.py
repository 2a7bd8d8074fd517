from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.net.contexts import server_context, upstream_context


@pytest.mark.parametrize("context", [server_context(), upstream_context(), upstream_context(verify=True)])
def test_both_sides_speak_tls_1_2_and_1_3_without_renegotiation_or_compression(context: ssl.SSLContext) -> None:
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.maximum_version in (ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_3)
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert not context.options & ssl.OP_NO_TICKET


def test_upstreams_are_verified_on_demand(pem: Path) -> None:
    context = upstream_context()
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname
    context = upstream_context(str(pem / "crt"), verify=True)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] == 1


def test_the_system_certificates_where_no_file_is_named(pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pem / "crt"))
    monkeypatch.setenv("SSL_CERT_DIR", str(pem / "none"))
    assert upstream_context(verify=True).cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"ca\.pem.*must hold PEM certificates"):
        upstream_context(str(file), verify=True)
