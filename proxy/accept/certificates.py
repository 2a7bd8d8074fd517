"""Which certificate a downstream is shown: by SNI, exact over wildcard, else the default; changed without a restart."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from proxy.net.contexts import server_context
from proxy.net.records import ServerObject
from proxy.route.spec import CertificateSpec, TableSpec

_REASONS: Final[Mapping[str, str]] = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "NO_CERTIFICATE_ASSIGNED": "the key does not belong to the certificate",  # what OpenSSL says of another kind of key
    "EE_KEY_TOO_SMALL": "the key is too short: RSA needs 2048 bits",
    "CA_MD_TOO_WEAK": "the certificate's signature is too weak",
}


class _Choice(NamedTuple):
    """All contexts of one generation; swapped as a whole."""

    exact: dict[str, ssl.SSLContext]
    wildcard: dict[str, ssl.SSLContext]  # by what follows "*."
    default: ssl.SSLContext | None


class Certificates:
    """The certificates of a table, and the one context that listeners use.

    ``context`` never changes, so what hangs on it outlives a reload: session tickets stay valid, and are valid in
    every worker that was forked after it was made. Its SNI callback hands each handshake to the context of its
    certificate.
    """

    def __init__(self) -> None:
        self.context: Final = server_context()
        self.context.sni_callback = self._choose
        self._choice = _Choice({}, {}, None)
        self._loaded: dict[str, tuple[CertificateSpec, ssl.SSLContext]] = {}  # by secret
        self._fallback: CertificateSpec | None = None

    def __repr__(self) -> str:
        names = ", ".join([*self._choice.exact, *(f"*.{name}" for name in self._choice.wildcard)])
        return f"Certificates({', '.join(self._loaded)}; for {names or 'no name'})"

    def update(self, spec: TableSpec) -> list[str]:
        """Serve the certificates of another table from the next handshake on.

        Returns what is wrong with those that cannot be used, one line each: a secret that was good before goes on
        with what it had, another is left out. Certificates that have not changed keep their contexts. Where two
        name the same host, the first wins.
        """
        problems: list[str] = []
        loaded: dict[str, tuple[CertificateSpec, ssl.SSLContext]] = {}
        exact: dict[str, ssl.SSLContext] = {}
        wildcard: dict[str, ssl.SSLContext] = {}
        for certificate in spec.certificates:
            context = self._load(certificate, loaded, problems)
            if context is not None:
                for host in certificate.hosts:
                    if host.startswith("*."):
                        wildcard.setdefault(host[2:], context)
                    else:
                        exact.setdefault(host, context)
        default = None
        if spec.default_certificate is not None:
            default = self._load(spec.default_certificate, loaded, problems)
        if default is None:
            default = self._load(self._self_signed(), loaded, problems)
        self._loaded = loaded
        self._choice = _Choice(exact, wildcard, default)
        return problems

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """OpenSSL's callback for each ClientHello, also one without SNI. Host names ignore case (RFC 6066)."""
        host = name.lower() if name else ""
        if isinstance(tls, ServerObject):
            tls.requested_name = host
        exact, wildcard, default = self._choice
        context = exact.get(host)
        if context is None:
            label, _dot, parent = host.partition(".")  # a wildcard stands for one whole label (RFC 6125 section 6.4.3)
            context = (wildcard.get(parent) if label else None) or default
        if context is not None:
            tls.context = context

    def _load(
        self,
        certificate: CertificateSpec,
        loaded: dict[str, tuple[CertificateSpec, ssl.SSLContext]],
        problems: list[str],
    ) -> ssl.SSLContext | None:
        secret = certificate.secret
        for known in (loaded.get(secret), self._loaded.get(secret)):
            if known is not None and _same(known[0], certificate):
                loaded[secret] = known
                return known[1]
        try:
            context = _context(certificate)
        except (OSError, ValueError) as exc:  # SSLError is an OSError; ValueError is ours
            before = self._loaded.get(secret)
            problems.append(
                f"TLS secret {secret}: {_reason(exc)}; "
                + ("its former certificate stays in use" if before else "it is left out")
                + ". tls.crt must hold a PEM certificate chain, the leaf first, and tls.key its unencrypted PEM key."
            )
            if before is None:
                return None
            loaded[secret] = before
            return before[1]
        loaded[secret] = (certificate, context)
        return context

    def _self_signed(self) -> CertificateSpec:
        if self._fallback is None:
            # Imported only where it is needed: `cryptography` costs a worker's start 50 ms.
            from proxy.accept.selfsigned import default_certificate

            self._fallback = default_certificate()
        return self._fallback


def ignore_malformed_names() -> None:
    """Keep strangers from filling the log; for a worker to call once.

    An SNI that is not ASCII fails its handshake before any callback of ours, and CPython then reports the decoding
    error as an unraisable exception, with a traceback.
    """
    report = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes)):
            report(unraisable)

    sys.unraisablehook = hook


def _same(one: CertificateSpec, other: CertificateSpec) -> bool:
    return one.certificate == other.certificate and one.key == other.key


def _context(certificate: CertificateSpec) -> ssl.SSLContext:
    """Raises OSError or ValueError."""
    if b"-----BEGIN CERTIFICATE-----" not in certificate.certificate:
        raise ValueError("there is no PEM certificate")
    if b"PRIVATE KEY-----" not in certificate.key:
        raise ValueError("there is no PEM private key")
    context = server_context()
    with _path(certificate.certificate) as chain, _path(certificate.key) as key:
        context.load_cert_chain(chain, key, password=_no_password)
    return context


def _no_password() -> str:
    """Without it OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted")


@contextlib.contextmanager
def _path(content: bytes) -> Iterator[str]:
    """A path where OpenSSL can read ``content`` once, which never touches a disk."""
    try:
        read = os.memfd_create("pem", os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # not Linux, or forbidden by seccomp
        read, write = os.pipe()
        path = f"/dev/fd/{read}"
        os.set_blocking(write, False)
    else:
        write = os.dup(read)
        path = f"/proc/self/fd/{read}"  # opened anew, so the offset is 0 again
    try:
        try:
            if os.write(write, content) < len(content):
                raise ValueError("it is larger than a pipe holds")
        finally:
            os.close(write)
        yield path
    finally:
        os.close(read)


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        reason = exc.reason or ""
        return _REASONS.get(reason, reason.replace("_", " ").lower() or "its PEM is damaged")
    return str(exc)
