"""What the exporter and its two transports agree on: an endpoint, a call, and what came of it.

The rules are those of the OTLP specification 1.x (opentelemetry.io/docs/specs/otlp) and of its exporter
configuration (opentelemetry.io/docs/specs/otel/protocol/exporter).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from proxy.errors import SettingsError
from proxy.trace.answer import partial_success

if TYPE_CHECKING:
    from proxy.settings import Tracing
    from proxy.trace.batch import Body

TEXT_LIMIT: Final = 300  # characters of a collector's own words that reach a log line

ENDPOINT_SETTING: Final = "--otlp or OTEL_EXPORTER_OTLP_ENDPOINT"
START_COLLECTOR: Final = f"Start a collector there, correct {ENDPOINT_SETTING}, or turn export off with --otlp none."
CHECK_HEADERS: Final = "Check the credentials in OTEL_EXPORTER_OTLP_HEADERS."

_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Outcome(NamedTuple):
    """What came of one export call.

    ``rejected`` counts spans a successful answer refused (OTLP "partial success"). ``delay`` is how many seconds the
    collector asked to be left alone (Retry-After, RetryInfo), None when it did not say. ``text`` is its explanation,
    already cut and without secrets; ``hint`` the next step for the operator.
    """

    verdict: Literal["accepted", "retry", "refused"]
    code: str
    rejected: int = 0
    delay: float | None = None
    text: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.text}" if self.text else self.code


class Transport(Protocol):
    """One way to a collector. Made in any process, used by one thread; nothing is opened before the first `send`."""

    @property
    def endpoint(self) -> str:
        """The endpoint as it may be printed: without credentials or query."""
        ...

    @property
    def protocol(self) -> str:
        """The OTLP protocol's name as in OTEL_EXPORTER_OTLP_PROTOCOL."""
        ...

    def send(self, body: Body, timeout: float) -> Outcome:
        """Make one call with an encoded export request, within ``timeout`` seconds. Network faults do not raise."""
        ...

    def abort(self) -> None:
        """End the call under way, from another thread; every later `send` fails at once."""
        ...

    def close(self) -> None:
        """Close the connection, from the thread that used it."""
        ...


class Endpoint(NamedTuple):
    """A collector's address. ``scheme`` is "" where the endpoint was given as bare ``HOST:PORT``."""

    scheme: str
    host: str
    port: int | None
    path: str
    query: str
    credentials: str
    """``user:password``, percent-decoded, or ""."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}" if self.scheme else f"{host}{port}{self.path}"

    def __repr__(self) -> str:
        return f"Endpoint({self})"


def exports(tracing: Tracing) -> bool:
    """Whether spans leave the process at all: an endpoint is set and is not ``none``."""
    return tracing.endpoint.strip().lower() not in {"", "none"}


def parse_endpoint(text: str) -> Endpoint:
    """Split ``scheme://[user:password@]host[:port][/path][?query]`` or ``host[:port]``.

    Raises `SettingsError`, which never repeats the credentials or the query.
    """
    text = text.strip()
    scheme, rest = text.split("://", 1) if "://" in text else ("", text)
    try:
        parts = urlsplit("//" + rest)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise bad_endpoint(text, "is not a URL") from None
    if any(ord(c) <= 0x20 or ord(c) >= 0x7F for c in text):
        raise bad_endpoint(text, "has characters that a URL cannot have")
    try:
        usable = bool(host and (":" in host or host.encode("idna")))  # a label too long fails only at the look-up
    except UnicodeError:
        usable = False
    if not usable:
        raise bad_endpoint(text, "has no usable host name")
    if port == 0:
        raise bad_endpoint(text, "has port 0")
    credentials = ""
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Endpoint(scheme.lower(), host, port, parts.path, parts.query, credentials)


_URL_STEP: Final = "Write it as http://HOST:PORT or https://HOST:PORT."


def bad_endpoint(text: str, why: str, step: str = _URL_STEP) -> SettingsError:
    """The error for an endpoint that cannot be used; credentials and query are cut out of ``text``."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "", text
    rest = rest.partition("?")[0].partition("#")[0]
    authority, slash, path = rest.partition("/")
    safe = f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"
    return SettingsError(f"OTLP endpoint {safe!r} {why}. {step} ({ENDPOINT_SETTING})")


def check_headers(headers: tuple[tuple[str, str], ...]) -> None:
    """Raise `SettingsError` for a name or value HTTP cannot carry (RFC 9110 section 5.5); values are never printed."""
    for name, value in headers:
        if not name or not _TOKEN.issuperset(name):
            raise SettingsError(
                f"OTLP header name {name[:64]!r} is not a valid field name. "
                "Write OTEL_EXPORTER_OTLP_HEADERS as name=value,name=value."
            )
        if any(c != "\t" and not " " <= c <= "~" for c in value):
            raise SettingsError(
                f"The value of OTLP header {name!r} has characters that HTTP does not carry. "
                "Percent-encode it in OTEL_EXPORTER_OTLP_HEADERS only as its receiver decodes it."
            )


def check_files(tracing: Tracing) -> None:
    """Raise `SettingsError` for a certificate or key file that is not there, or half of a client certificate."""
    for variable, path in (
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", tracing.certificate),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", tracing.client_certificate),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", tracing.client_key),
    ):
        if path and not Path(path).is_file():
            raise SettingsError(f"{variable}: there is no file {path!r}. Correct the path or unset the variable.")
    if bool(tracing.client_certificate) != bool(tracing.client_key):
        raise SettingsError(
            "A client certificate for the collector needs its key, and the key its certificate. "
            "Set both OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY."
        )


class Wording:
    """Makes a stranger's words fit for a log line: one line, cut, and with every secret we sent blotted out."""

    __slots__ = ("_secrets",)

    def __init__(self, *secrets: str) -> None:
        self._secrets = tuple(sorted({s for s in secrets if len(s) > 3}, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """The words as they may be printed."""
        # Cut generously first, so that a huge answer costs nothing; blot before the last cut, so that no half remains.
        text = " ".join(text[: TEXT_LIMIT * 8].split())
        for secret in self._secrets:
            text = text.replace(secret, "REDACTED")
        text = "".join(c if c.isprintable() else "?" for c in text)
        return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"

    def __repr__(self) -> str:
        return f"Wording({len(self._secrets)} secrets)"


def secrets_of(headers: tuple[tuple[str, str], ...], *more: str) -> Wording:
    """The `Wording` that knows the values of the export headers, whole and by word ("Bearer abc" hides "abc" too)."""
    values = [value for _, value in headers]
    words = [word for value in values for word in value.split() if word.lower() not in {"bearer", "basic", "token"}]
    return Wording(*values, *words, *more)


def accepted(code: str, body: bytes, wording: Wording) -> Outcome:
    """The outcome of a call that succeeded with ``body``: spans may have been refused one by one (partial success)."""
    if not body:
        return Outcome("accepted", code)
    try:
        partial = partial_success(body)
    except ValueError:
        return Outcome("accepted", code, text="its answer is not an OTLP response; is this an OTLP collector?")
    return Outcome("accepted", code, rejected=partial.rejected, text=wording(partial.message))
