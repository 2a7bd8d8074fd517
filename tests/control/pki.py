"""Certificates and keys for tests, made on the spot."""

from __future__ import annotations

import base64
import functools
from datetime import UTC, datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@functools.cache
def key(
    name: str = "a", kind: Literal["ec", "rsa1024", "rsa2048"] = "ec"
) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    """The same key for the same ``name``."""
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, int(kind[3:]))


def certificate(
    *names: str,
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    begins: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=90),
) -> bytes:
    """PEM, self-signed."""
    private = private or key()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "common.test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM)


def pem(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, password: bytes = b"") -> bytes:
    """A key as PEM."""
    encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    return (private or key()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def secret(
    name: str = "cert",
    crt: bytes | str | None = b"",
    private: bytes | str | None = b"",
    kind: str = "kubernetes.io/tls",
) -> str:
    """A Secret in namespace shop; bytes are encoded, text is taken as it is, None is left out."""

    def line(field: str, value: bytes | str | None) -> str:
        if value is None:
            return ""
        return f"  {field}: '{base64.b64encode(value).decode() if isinstance(value, bytes) else value}'\n"

    return (
        f"apiVersion: v1\nkind: Secret\ntype: {kind}\nmetadata: {{name: {name}, namespace: shop}}\ndata:\n  other: ''\n"
        + line("tls.crt", crt)
        + line("tls.key", private)
    )
