"""Secrets into certificates: decoded, checked, and claimed by Ingresses for their hosts.

What a Secret holds appears in no message, repr or log; problems name the Secret and the key in it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.control import names
from proxy.control.problem import Problem, Subject
from proxy.route.spec import CertificateSpec

if TYPE_CHECKING:
    from cryptography import x509

    from proxy.control.objects import Ingress, Key, Secret
    from proxy.control.store import Objects

EXPIRES_SOON: Final = timedelta(days=14)  # cert-manager renews a 90-day certificate 30 days before its end
_ALWAYS: Final = datetime.max.replace(tzinfo=UTC)
_MOMENT: Final = timedelta(microseconds=1)
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


class Judgement(NamedTuple):
    """A Secret as a certificate: its chain, key and leaf, or what is wrong with it."""

    exists: bool = False
    pair: Pair | None = None
    problems: tuple[Problem, ...] = ()
    until: datetime = _ALWAYS  # from then on something else is to be said

    @property
    def verdict(self) -> tuple[bool, tuple[str, ...] | None]:
        """What the Ingresses that name it are told of it."""
        return self.exists, None if self.pair is None else self.pair.leaf.hosts


class Secrets:
    """Every Secret that is asked for as a certificate, judged once, and again when it is touched or time tells.

    A Secret that held a good pair and now holds none that can be used keeps the good one: who writes half a renewal
    should hear of it, not their clients. Only so far does what is shown depend on what was before.
    """

    def __init__(self, objects: Objects, reader: CertificateReader, good: dict[Key, Pair] | None = None) -> None:
        """``good`` has the last good pair of each, and is kept up to date, so that another may go on with it."""
        self._objects = objects
        self._reader = reader
        self._good: dict[Key, Pair] = {} if good is None else good
        self._judged: dict[Key, Judgement] = {}
        self._now = datetime.min.replace(tzinfo=UTC)
        self._due = _ALWAYS

    def __repr__(self) -> str:
        return f"Secrets({len(self._judged)})"

    def of(self, key: Key) -> Judgement:
        """What is known of a Secret."""
        found = self._judged.get(key)
        if found is None:
            found = self._judged[key] = self._judge(key)
        return found

    def touch(self, keys: Iterable[Key], now: datetime) -> dict[Key, Judgement]:
        """Judge again those of these that somebody has asked for, and those whose time has come.

        Returns what was thought of those before of which something else is thought now.
        """
        self._now = now
        due = [key for key, judged in self._judged.items() if judged.until <= now] if self._due <= now else []
        before = {key: self._judged[key] for key in (*keys, *due) if key in self._judged}
        self._judged.update((key, self._judge(key)) for key in before)
        self._due = min((judged.until for judged in self._judged.values()), default=_ALWAYS) if due else self._due
        return {key: judged for key, judged in before.items() if judged != self._judged[key]}

    def forget(self, key: Key) -> None:
        """Nobody asks for this one any more."""
        self._judged.pop(key, None)
        self._good.pop(key, None)

    def problems(self) -> list[Problem]:
        """What is wrong with them, in the order of their names."""
        troubled = sorted(key for key, judged in self._judged.items() if judged.problems)
        return [problem for key in troubled for problem in self._judged[key].problems]

    def due(self, now: datetime) -> bool:
        """Whether there is something new to say of some certificate, though nothing was touched."""
        return self._due <= now

    def _judge(self, key: Key) -> Judgement:
        secret = self._objects.secrets.get(key)
        if secret is None:
            self._good.pop(key, None)
            return Judgement()
        subject = Subject("Secret", *key, self._objects.place("Secret", key))
        if secret.type != "kubernetes.io/tls":
            subject.warning("type", f"is {secret.type}, not kubernetes.io/tls", "kubectl create secret tls makes one")
        pair, until = self._pair(secret, subject), _ALWAYS
        if pair is not None:
            self._good[key] = pair
        else:
            pair = self._good.get(key)
            if pair is not None:
                message = f"cannot be used as it is now; the certificate that ends on {pair.leaf.ends:%Y-%m-%d} stays"
                subject.warning("data", message, "mend it soon: it is kept in memory only")
        if pair is not None:
            until = self._check_dates(pair.leaf, subject)
        self._due = min(self._due, until)
        return Judgement(True, pair, tuple(subject.problems), until)

    def _pair(self, secret: Secret, subject: Subject) -> Pair | None:
        """What a Secret holds, None if it cannot be used; ``subject`` says why."""
        certificate, private = (_value(secret, name, subject) for name in (CERTIFICATE, KEY))
        if certificate is None or private is None:
            return None
        leaf = self._reader.read(certificate, private)
        if leaf.wrong is not None:
            subject.error(f"data[{leaf.wrong[0]}]", *leaf.wrong[1:])
            return None
        return Pair(certificate, private, leaf)

    def _check_dates(self, leaf: Leaf, subject: Subject) -> datetime:
        """Say what is wrong with its dates now; returns when that will be something else."""
        field, now = f"data[{CERTIFICATE}]", self._now
        if leaf.ends <= now:
            subject.warning(field, f"expired on {leaf.ends:%Y-%m-%d %H:%M} UTC; clients refuse it", "renew it")
        elif leaf.ends - now < EXPIRES_SOON:
            subject.warning(field, f"expires on {leaf.ends:%Y-%m-%d %H:%M} UTC", "renew it")
        if leaf.begins > now:
            message = f"is not valid before {leaf.begins:%Y-%m-%d %H:%M} UTC"
            subject.warning(field, message, "check this machine's clock")
        soon = leaf.ends - EXPIRES_SOON + _MOMENT
        return min((moment for moment in (leaf.begins, soon, leaf.ends) if moment > now), default=_ALWAYS)


class Named(NamedTuple):
    """A host for which an Ingress names a Secret, and the field that does."""

    secret: Key
    field: str


def claims(ingress: Ingress, subject: Subject, secrets: Secrets, asked: set[Key]) -> dict[str, list[Named]]:
    """What the TLS sections of an Ingress claim, by host. Without hosts one is for every name in its certificate.

    ``asked`` grows by the Secrets that are named.
    """
    found: dict[str, list[Named]] = {}
    for number, tls in enumerate(ingress.spec.tls):
        if not tls.secret_name:
            continue  # these hosts are shown the default certificate
        field = f"spec.tls[{number}].secretName"
        key = ingress.metadata.namespace, tls.secret_name
        asked.add(key)
        exists, covered = secrets.of(key).verdict
        if covered is None:
            if not exists:
                message = f"Secret {'/'.join(key)} does not exist; its hosts are shown the default certificate"
                subject.warning(field, message, "add its manifest, or correct the name")
            else:
                subject.warning(field, f"Secret {'/'.join(key)} cannot be used; see its own problem")
            continue
        for host in tls.hosts or covered:
            if not covers(covered, host):
                message = f"its certificate is not for {host}, so clients will refuse it"
                subject.warning(field, message, f"it is for {', '.join(covered) or 'no DNS name'}")
            found.setdefault(host, []).append(Named(key, field))
    return found


def spec_of(key: Key, pair: Pair, hosts: Iterable[str]) -> CertificateSpec:
    """A Secret's certificate as the table has it."""
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
