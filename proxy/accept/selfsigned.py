"""The certificate for names that have none, like ingress-nginx's "Fake Certificate"."""

from __future__ import annotations

import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.route.spec import CertificateSpec

NAME: Final = "Spanway default certificate"
_VALID: Final = datetime.timedelta(days=365)  # as ingress-nginx's
_SKEW: Final = datetime.timedelta(hours=1)  # a client's clock may be behind


def default_certificate() -> CertificateSpec:
    """A new self-signed certificate (P-256) that names nobody: clients warn, and the warning shows `NAME`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("ingress.local")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return CertificateSpec(
        secret=f"({NAME})",
        hosts=(),
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
