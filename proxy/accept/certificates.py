"""Which certificate a downstream is shown: by SNI, exact over wildcard, else the default; changed without a restart."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from proxy.net.contexts import server_context
from proxy.net.records import ServerObject
from proxy.route.change import certificates_of
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


class _Loaded(NamedTuple):
    """A certificate that is shown for these hosts."""

    hosts: tuple[str, ...]
    certificate: bytes
    key: bytes
    context: ssl.SSLContext

    def __repr__(self) -> str:
        return f"_Loaded({self.hosts})"  # never the key


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
        self._loaded: dict[str, _Loaded] = {}  # by secret, "" the default's
        self._fallback: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        names = ", ".join([*self._choice.exact, *(f"*.{name}" for name in self._choice.wildcard)])
        loaded = ", ".join(secret or "a default" for secret in self._loaded)
        return f"Certificates({loaded}; for {names or 'no name'})"

    def update(self, spec: TableSpec) -> list[str]:
        """Serve the certificates of another table from the next handshake on.

        Returns what is wrong with those that cannot be used, one line each: a secret that was good before goes on
        with what it had, another is left out. Certificates that have not changed keep their contexts. Where two
        name the same host, the first wins.
        """
        found = certificates_of(spec)
        draft = self.draft()
        draft.take(found)
        draft.keep(found)
        return self.show(draft)

    def draft(self) -> Draft:
        """The next table's certificates, to be prepared beside these."""
        return Draft(self._loaded, self._choice)

    def show(self, draft: Draft) -> list[str]:
        """Serve what a draft holds from the next handshake on; returns its problems, as `update` does."""
        default = draft.loaded.get("")
        context = self._own() if default is None else default.context
        self._loaded = draft.loaded
        self._choice = _Choice(draft.exact, draft.wildcard, context)
        return draft.problems

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

    def _own(self) -> ssl.SSLContext:
        """The context of the self-signed certificate, which is made when it is first needed."""
        if self._fallback is None:
            # Imported only where it is needed: `cryptography` costs a worker's start 50 ms.
            from proxy.accept.selfsigned import default_certificate

            self._fallback = _context(default_certificate())
        return self._fallback


class Draft:
    """The certificates of a table that is not served yet: a copy, in which only what differs is loaded."""

    __slots__ = ("_known", "exact", "loaded", "problems", "wildcard")

    def __init__(self, loaded: Mapping[str, _Loaded], choice: _Choice) -> None:
        self._known: Final = loaded
        self.loaded: Final = dict(loaded)
        self.exact: Final = dict(choice.exact)
        self.wildcard: Final = dict(choice.wildcard)
        self.problems: Final[list[str]] = []

    def __repr__(self) -> str:
        return f"Draft({len(self.loaded)} certificates, {len(self.problems)} problems)"

    def take(self, changes: Mapping[str, CertificateSpec | None]) -> None:
        """Load these; None is one that goes. What cannot be used is a problem."""
        for secret in changes:
            self._release(secret)
        for secret, spec in changes.items():
            if spec is None:
                self.loaded.pop(secret, None)
                continue
            context = self._load(secret, spec)
            if context is None:
                self.loaded.pop(secret, None)
                continue
            for host in spec.hosts:
                names, key = self._names(host)
                names[key] = context

    def keep(self, secrets: Iterable[str]) -> None:
        """No others than these stay."""
        self.take(dict.fromkeys(self.loaded.keys() - set(secrets)))

    def _release(self, secret: str) -> None:
        """Free the hosts of a certificate, but for those that another has taken over meanwhile."""
        before = self.loaded.get(secret)
        for host in before.hosts if before is not None else ():
            names, key = self._names(host)
            if before is not None and names.get(key) is before.context:
                del names[key]

    def _names(self, host: str) -> tuple[dict[str, ssl.SSLContext], str]:
        return (self.wildcard, host[2:]) if host.startswith("*.") else (self.exact, host)

    def _load(self, secret: str, spec: CertificateSpec) -> ssl.SSLContext | None:
        for name in (secret, spec.secret):
            known = self.loaded.get(name) or self._known.get(name)
            if known is not None and (known.certificate, known.key) == (spec.certificate, spec.key):
                self.loaded[secret] = known._replace(hosts=spec.hosts)
                return known.context
        try:
            context = _context(spec)
        except (OSError, ValueError) as exc:  # SSLError is an OSError; ValueError is ours
            before = self._known.get(secret)
            self.problems.append(
                f"TLS secret {spec.secret}: {_reason(exc)}; "
                + ("its former certificate stays in use" if before else "it is left out")
                + ". tls.crt must hold a PEM certificate chain, the leaf first, and tls.key its unencrypted PEM key."
            )
            if before is None:
                return None
            self.loaded[secret] = before._replace(hosts=spec.hosts)
            return before.context
        self.loaded[secret] = _Loaded(spec.hosts, spec.certificate, spec.key, context)
        return context


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
