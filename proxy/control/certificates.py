"""Secrets into certificates: decoded, checked, and claimed by the hosts of Ingresses.

What a Secret holds appears in no message, repr or log; problems name the Secret and the key in it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.control import names
from proxy.control.problem import Problem, Subject
from proxy.route.spec import CertificateSpec

if TYPE_CHECKING:
    from cryptography import x509

    from proxy.control.objects import Ingress, Key, Objects, Secret

EXPIRES_SOON: Final = timedelta(days=14)  # cert-manager renews a 90-day certificate 30 days before its end
SMALLEST_RSA: Final = 2048  # bits; OpenSSL's security level 2, which Linux distributions set, refuses less
_MOST_CACHED: Final = 10_000  # certificates

CERTIFICATE, KEY = "tls.crt", "tls.key"  # of a kubernetes.io/tls Secret


class Leaf(NamedTuple):
    """What the first certificate of a chain says, or what is wrong with the pair."""

    hosts: tuple[str, ...] = ()
    begins: datetime = datetime.min.replace(tzinfo=UTC)
    ends: datetime = datetime.max.replace(tzinfo=UTC)
    wrong: tuple[str, str, str] | None = None  # the key in the Secret, message, hint


class Pair(NamedTuple):
    """A chain and its key, PEM, that belong together."""

    certificate: bytes
    key: bytes
    leaf: Leaf

    def __repr__(self) -> str:
        return f"Pair({self.leaf.hosts})"  # never the key


class CertificateReader:
    """Parses pairs, each once: its cache knows them by a digest and holds no key."""

    __slots__ = ("_leaves",)

    def __init__(self) -> None:
        self._leaves: dict[bytes, Leaf] = {}

    def __repr__(self) -> str:
        return f"CertificateReader({len(self._leaves)} certificates)"

    def read(self, certificate: bytes, key: bytes) -> Leaf:
        """Check that a PEM chain and a PEM key parse and belong together."""
        digest = hashlib.sha256(b"%d:%b%b" % (len(certificate), certificate, key)).digest()
        leaf = self._leaves.get(digest)
        if leaf is None:
            leaf = _parse(certificate, key)
            if len(self._leaves) >= _MOST_CACHED:
                self._leaves.clear()
            self._leaves[digest] = leaf
        return leaf


def _parse(certificate: bytes, key: bytes) -> Leaf:
    # Here, and not above: the import costs 50 ms, and most configurations in development have no certificate.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    # Exception texts are not passed on: they may quote what they could not read.
    try:
        chain = x509.load_pem_x509_certificates(certificate)
        public = [one.public_key() for one in chain]
    except (ValueError, UnsupportedAlgorithm):
        return Leaf(wrong=(CERTIFICATE, "holds no readable PEM certificate", "put the leaf first, then its issuers"))
    try:
        private = load_pem_private_key(key, None)
    except TypeError:
        return Leaf(wrong=(KEY, "is encrypted with a passphrase", "store the key without one"))
    except (ValueError, UnsupportedAlgorithm):
        return Leaf(wrong=(KEY, "holds no readable PEM private key", "PKCS#8 and the older PEM forms are read"))
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    fitting = private.public_key().public_bytes(*form)
    owners = [number for number, one in enumerate(public) if one.public_bytes(*form) == fitting]
    if not owners:
        return Leaf(wrong=(KEY, f"is not the key of the certificate in {CERTIFICATE}", "take both from one issue"))
    if owners[0] != 0:
        return Leaf(wrong=(CERTIFICATE, "does not begin with the key's own certificate", "put the leaf first"))
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < SMALLEST_RSA:
        hint = f"TLS asks for at least {SMALLEST_RSA} bits"
        return Leaf(wrong=(KEY, f"is an RSA key of {private.key_size} bits", hint))
    return Leaf(_hosts(chain[0]), chain[0].not_valid_before_utc, chain[0].not_valid_after_utc)


def _hosts(leaf: x509.Certificate) -> tuple[str, ...]:
    """The DNS names it is for (RFC 9525: the subject's common name does not count)."""
    from cryptography import x509

    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found = extension.value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return tuple(sorted({name.lower() for name in found if not names.host(name.lower())}))


class Certificates:
    """The certificates of a table: which Secret is shown for which host. The first Ingress to claim a host has it."""

    def __init__(self, objects: Objects, reader: CertificateReader, now: datetime) -> None:
        self.problems: Final[list[Problem]] = []  # of the Secrets themselves
        self._objects = objects
        self._reader = reader
        self._now = now
        self._read: dict[Key, Pair | None] = {}
        self._owners: dict[str, tuple[Key, Key]] = {}  # host -> its Secret, and the Ingress that said so

    def claim(self, ingress: Ingress, subject: Subject) -> None:
        """Take the TLS section of an Ingress in. Without hosts it is for every name in its certificate."""
        me = ingress.metadata.namespace, ingress.metadata.name
        for number, tls in enumerate(ingress.spec.tls):
            if not tls.secret_name:
                continue  # these hosts are shown the default certificate
            field = f"spec.tls[{number}].secretName"
            key = ingress.metadata.namespace, tls.secret_name
            pair = self._pair(key)
            if pair is None:
                if key not in self._objects.secrets:
                    message = f"Secret {'/'.join(key)} does not exist; its hosts are shown the default certificate"
                    subject.warning(field, message, "add its manifest, or correct the name")
                else:
                    subject.warning(field, f"Secret {'/'.join(key)} cannot be used; see its own problem")
                continue
            covered = pair.leaf.hosts
            for host in tls.hosts or covered:
                if not covers(covered, host):
                    message = f"its certificate is not for {host}, so clients will refuse it"
                    subject.warning(field, message, f"it is for {', '.join(covered) or 'no DNS name'}")
                owner = self._owners.setdefault(host, (key, me))
                if owner[0] != key:
                    claimed = f"Secret {'/'.join(owner[0])} by Ingress {'/'.join(owner[1])}"
                    subject.warning(field, f"{host} already has {claimed}, which goes first", "name one Secret for it")

    def specs(self) -> tuple[CertificateSpec, ...]:
        """One for each Secret in use."""
        hosts: dict[Key, list[str]] = {}
        for host, (key, _) in self._owners.items():
            hosts.setdefault(key, []).append(host)
        return tuple(_spec(key, pair, claimed) for key, claimed in hosts.items() if (pair := self._pair(key)))

    def default(self, name: str) -> CertificateSpec | None:
        """The certificate for hosts that have none, from the Secret ``namespace/name``; None for ""."""
        if not name:
            return None
        namespace, _, secret = name.rpartition("/")
        key = namespace, secret
        pair = self._pair(key)
        if pair is None and key not in self._objects.secrets:
            message = f"the default certificate's Secret {name} does not exist"
            self.problems.append(Problem("warning", message, "add its manifest", "Secret", namespace, secret))
        return None if pair is None else _spec(key, pair, [])

    def _pair(self, key: Key) -> Pair | None:
        """A Secret's chain, key and leaf; None where it is missing or cannot be used."""
        if key not in self._read:
            secret = self._objects.secrets.get(key)
            self._read[key] = None if secret is None else self._check(secret, key)
        return self._read[key]

    def _check(self, secret: Secret, key: Key) -> Pair | None:
        subject = Subject("Secret", *key, self._objects.place("Secret", key))
        if secret.type != "kubernetes.io/tls":
            subject.warning("type", f"is {secret.type}, not kubernetes.io/tls", "kubectl create secret tls makes one")
        certificate, private = (_value(secret, name, subject) for name in (CERTIFICATE, KEY))
        pair = None
        if certificate is not None and private is not None:
            leaf = self._reader.read(certificate, private)
            if leaf.wrong is not None:
                subject.error(f"data[{leaf.wrong[0]}]", *leaf.wrong[1:])
            else:
                pair = Pair(certificate, private, leaf)
                self._check_dates(leaf, subject)
        self.problems.extend(subject.problems)
        return pair

    def _check_dates(self, leaf: Leaf, subject: Subject) -> None:
        field = f"data[{CERTIFICATE}]"
        if leaf.ends <= self._now:
            subject.warning(field, f"expired on {leaf.ends:%Y-%m-%d %H:%M} UTC; clients refuse it", "renew it")
        elif leaf.ends - self._now < EXPIRES_SOON:
            subject.warning(field, f"expires on {leaf.ends:%Y-%m-%d %H:%M} UTC", "renew it")
        if leaf.begins > self._now:
            message = f"is not valid before {leaf.begins:%Y-%m-%d %H:%M} UTC"
            subject.warning(field, message, "check this machine's clock")


def _spec(key: Key, pair: Pair, hosts: list[str]) -> CertificateSpec:
    return CertificateSpec("/".join(key), tuple(sorted(hosts)), pair.certificate, pair.key)


def covers(patterns: tuple[str, ...], host: str) -> bool:
    """Whether a certificate for these names is one for this host (RFC 9525 section 6.3: ``*`` is one label)."""
    return host in patterns or f"*.{host.partition('.')[2]}" in patterns


def _value(secret: Secret, name: str, subject: Subject) -> bytes | None:
    if name in secret.string_data:
        return secret.string_data[name].encode()
    encoded = secret.data.get(name)
    if not encoded:
        subject.error(f"data[{name}]", "is missing", "a TLS Secret has tls.crt and tls.key")
        return None
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        subject.error(f"data[{name}]", "is not base64", "text as it is belongs into stringData")
        return None
