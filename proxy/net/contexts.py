"""OpenSSL's settings for both sides: TLS 1.2 and 1.3, ALPN http/1.1, no renegotiation, no compression."""

from __future__ import annotations

import ssl
from typing import Final

from proxy.errors import SettingsError
from proxy.net.records import ServerObject

ALPN: Final = ["http/1.1"]  # RFC 7301; nothing else is spoken, on either side

# Mozilla's "intermediate" list for TLS 1.2, guideline 5.7, less its DHE suites, which need parameters and which no
# client of today lacks an alternative for. The three suites of TLS 1.3 are OpenSSL's own. The client's order counts,
# as Mozilla has it: all are sound, and a client without AES instructions prefers ChaCha20.
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:"
    "ECDHE-RSA-CHACHA20-POLY1305"
)


def server_context() -> ssl.SSLContext:
    """A context for TLS from downstreams, still without a certificate. Session tickets are on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context)
    context.set_ciphers(CIPHERS)
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.sslobject_class = ServerObject
    return context


def upstream_context(ca_file: str | None = None, verify: bool = False) -> ssl.SSLContext:
    """The context for TLS to upstreams: TLS 1.2 and 1.3, ALPN http/1.1.

    ``verify`` checks the certificate and its name, against the PEM certificates in ``ca_file`` or, when that is
    absent, the system's; without it any certificate will do (ingress-nginx: proxy-ssl-verify is off by default).
    Raises `SettingsError` for a file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _common(context)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as exc:  # SSLError is one
            raise SettingsError(
                f"the CA file {ca_file!r} cannot be used ({exc}); it must hold PEM certificates that this user may read"
            ) from exc
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _common(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(ALPN)
