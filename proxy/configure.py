"""Settings from where a user writes them: flags, the environment, a TOML file, in this order of precedence.

Every value remembers its origin, so that an error can name it. The project's own variables and the file are strict:
what cannot be used is an error. Of the OpenTelemetry variables, which whole fleets share, what cannot be used is
ignored with a warning, as their specification ("Environment Variable Specification") asks for enums and numbers.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy.catalogue import PREFIX, Entry, catalogue, sections
from proxy.errors import SettingsError
from proxy.settings import Settings
from proxy.trace import transport
from proxy.values import LABEL, nearest, read, suggestion

CONFIG_VARIABLE: Final = "SPANWAY_CONFIG"

# What Kubernetes puts into a pod's environment beside a Service called "spanway".
_SERVICE_LINK: Final = re.compile(r"SPANWAY_(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_[0-9].*)")

_SOCKET_PATH: Final = 107  # bytes of a socket's path, unix(7): sun_path with its final 0

OTLP_HTTP_PORT: Final = 4318  # the OTLP specification's default port of OTLP/HTTP
OTLP_DEFAULT: Final = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}


class Value(NamedTuple):
    """A value, and where it was written: ``--http``, ``SPANWAY_HTTP``, ``spanway.toml:3: http``."""

    value: Any
    origin: str


class Loaded(NamedTuple):
    """The settings, and what was ignored on the way to them."""

    settings: Settings
    warnings: tuple[str, ...]


def load(flags: Mapping[str, object], environment: Mapping[str, str], base: Settings | None = None) -> Loaded:
    """Settings from ``flags`` (by `Entry.key`; absent or None where not given; ``config`` names the file) and so on.

    ``base`` holds the defaults. Raises `SettingsError`.
    """
    base = Settings() if base is None else base
    warnings: list[str] = []
    file = flags.get("config") or environment.get(CONFIG_VARIABLE)
    named_by = "--config" if flags.get("config") else CONFIG_VARIABLE
    values = {
        **(from_file(Path(str(file)), named_by) if file else {}),
        **from_opentelemetry(environment, warnings),
        **from_environment(environment, warnings),
        **from_flags(flags),
    }
    settings = _assemble(base, values)
    settings = _assemble(settings, _collector(settings, values))
    _check(settings, values)
    return Loaded(settings, tuple(warnings))


def from_flags(flags: Mapping[str, object]) -> dict[str, Value]:
    """Values of the flags that were given."""
    given = ((entry, flags.get(entry.key)) for entry in catalogue().values())
    return {entry.key: _read(entry, raw, f"--{entry.meaning.flag}") for entry, raw in given if raw is not None}


def from_environment(environment: Mapping[str, str], warnings: list[str]) -> dict[str, Value]:
    """Values of the ``SPANWAY_*`` variables; an empty one counts as absent, as OpenTelemetry's do."""
    entries = {entry.variable: entry for entry in catalogue().values()}
    own = [variable.removeprefix(PREFIX) for variable in entries]
    values = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or not text or name == CONFIG_VARIABLE:
            continue
        if entry := entries.get(name):
            values[entry.key] = _read(entry, text, name)
        elif not _SERVICE_LINK.fullmatch(name) and (near := nearest(name.removeprefix(PREFIX), own)):
            warnings.append(f"{name} is not a setting and was ignored; did you mean {PREFIX}{near}?")
    return values


def from_opentelemetry(environment: Mapping[str, str], warnings: list[str]) -> dict[str, Value]:
    """Values of the ``OTEL_*`` variables, by the rules of their specification."""
    values: dict[str, Value] = {}
    for entry in catalogue().values():
        for name in entry.meaning.otel:
            text = environment.get(name, "").strip()
            try:
                if text:
                    values[entry.key] = _read(entry, _opentelemetry_text(entry, name, text, warnings), name)
                    break
            except SettingsError as problem:
                warnings.append(f"{problem}; it was ignored")
    _service_name_of_resource(values)
    exporters = [word.strip() for word in environment.get("OTEL_TRACES_EXPORTER", "").split(",") if word.strip()]
    warnings += [
        f"OTEL_TRACES_EXPORTER: '{word}' is not otlp or none; it was ignored"
        for word in exporters
        if word not in ("otlp", "none")
    ]
    if "none" in exporters:
        values["tracing.endpoint"] = Value("none", "OTEL_TRACES_EXPORTER")
    elif "otlp" in exporters and "tracing.endpoint" not in values:
        protocol = values.get("tracing.protocol", Value("grpc", "")).value
        values["tracing.endpoint"] = Value(OTLP_DEFAULT[protocol], "OTEL_TRACES_EXPORTER")
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        # No spans; the propagators stay, as the specification says.
        values["tracing.endpoint"] = Value("none", "OTEL_SDK_DISABLED")
        values["tracing.sampler"] = Value("always_off", "OTEL_SDK_DISABLED")
    return values


def _opentelemetry_text(entry: Entry, name: str, text: str, warnings: list[str]) -> str:
    """The text in our units: their durations are milliseconds, and a list may hold words only others know."""
    if entry.meaning.unit == "s":
        if not text.isdecimal():
            raise SettingsError(f"{name}: '{text}' is not a number of milliseconds")
        return f"{text}ms"
    if entry.repeatable and entry.choices:
        words = [word.strip() for word in text.split(",") if word.strip()]
        known = [word for word in words if word in entry.choices]
        unknown = [
            f"{name}: '{word}' is not one of {', '.join(entry.choices)}" for word in words if word not in entry.choices
        ]
        if not known:
            raise SettingsError(unknown[0] if len(unknown) == 1 else f"{name}: nothing of '{text}' can be used")
        warnings += [f"{problem}; it was ignored" for problem in unknown]
        return ",".join(known)
    return text


def _service_name_of_resource(values: dict[str, Value]) -> None:
    """OTEL_SERVICE_NAME takes precedence over service.name in OTEL_RESOURCE_ATTRIBUTES (resource SDK specification)."""
    resource = values.get("tracing.resource")
    if resource is None:
        return
    attributes = dict(resource.value)
    name = attributes.pop("service.name", "")
    if name:
        values.setdefault("tracing.service_name", Value(name, resource.origin))
    values["tracing.resource"] = Value(tuple(attributes.items()), resource.origin)


def from_file(path: Path, named_by: str = "--config") -> dict[str, Value]:
    """Values of a TOML file: the settings by their names, ``-`` and ``_`` alike, sections as tables."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise SettingsError(f"{named_by}: '{path}' does not exist; name a TOML file") from None
    except OSError as problem:
        raise SettingsError(f"{named_by}: '{path}' cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text, as TOML has to be") from None
    except tomllib.TOMLDecodeError as problem:
        raise SettingsError(f"{path}: is not valid TOML: {problem}") from None
    values: dict[str, Value] = {}
    for key, written, raw in _flat(document, path, text):
        origin = _place(path, text, written)
        if (entry := catalogue().get(key)) is None:
            raise SettingsError(f"{origin}: there is no such setting{suggestion(key, catalogue())}")
        if key in values:
            raise SettingsError(f"{origin}: is set twice, with '-' and with '_'; keep one")
        values[key] = _read(entry, raw, origin)
    return values


def _flat(document: Mapping[str, Any], path: Path, text: str) -> Iterator[tuple[str, str, Any]]:
    """(catalogue key, key as written, value) of every setting in the document."""
    for written, raw in document.items():
        name = written.replace("-", "_")
        if name not in sections():
            yield name, written, raw
            continue
        if not isinstance(raw, dict):
            raise SettingsError(f"{_place(path, text, written)}: is a table; write [{name}] on a line of its own")
        for inner, value in raw.items():
            yield f"{name}.{inner.replace('-', '_')}", f"{written}.{inner}", value


def _place(path: Path, text: str, written: str) -> str:
    """``FILE:LINE: KEY``. tomllib keeps no positions, so the line is looked for; without one it is left out."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = header[1].replace('"', "") + "."
            if table == f"{written}.":
                return f"{path}:{number}: {written}"
        elif (assigned := re.match(r"\s*([\w\"'.\s-]+?)\s*=", line)) and (
            table + re.sub(r"[\s\"']", "", assigned[1]) == written
        ):
            return f"{path}:{number}: {written}"
    return f"{path}: {written}"


def _read(entry: Entry, raw: object, origin: str) -> Value:
    try:
        return Value(read(entry, raw), origin)
    except SettingsError as problem:
        raise SettingsError(f"{origin}: {problem}") from None


def _assemble(base: Settings, values: Mapping[str, Value]) -> Settings:
    changes: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        entry = catalogue()[key]
        changes.setdefault(entry.section, {})[entry.name] = value.value
    inner = {name: replace(getattr(base, name), **changes[name]) for name in sections() if name in changes}
    return base.replace(**changes.get("", {}), **inner)


def _collector(settings: Settings, values: Mapping[str, Value]) -> dict[str, Value]:
    """What follows from the collector's endpoint and nobody has said: the protocol, and whether its path is whole."""
    given = values.get("tracing.endpoint", Value("", ""))
    endpoint: str = given.value
    origin = given.origin
    if not transport.exports(replace(settings.tracing, endpoint=endpoint)) or endpoint.startswith("unix:"):
        return {}
    try:
        collector = transport.parse_endpoint(endpoint)
        if collector.scheme not in ("", "http", "https"):
            raise transport.bad_endpoint(endpoint, "is neither http nor https")
    except SettingsError as problem:
        raise SettingsError(f"{origin}: {problem}") from None
    # OTLP exporter specification, "Endpoint URLs for OTLP/HTTP": to every endpoint but this one v1/traces is added.
    whole = origin == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    follows = {"tracing.exact_endpoint": Value(whole, origin)}
    if collector.scheme and (collector.port == OTLP_HTTP_PORT or collector.path not in ("", "/")):
        follows["tracing.protocol"] = Value("http/protobuf", origin)
    return {key: value for key, value in follows.items() if key not in values}


def _check(settings: Settings, values: Mapping[str, Value]) -> None:
    """What no setting can see alone."""

    def origin(key: str) -> str:
        return values[key].origin if key in values else key

    if not settings.http and not settings.https:
        raise SettingsError(f"{origin('http')}: nothing is left to listen on; give --http or --https a port")
    if settings.limits.head < settings.limits.request_line:
        raise SettingsError(
            f"{origin('limits.head')}: a head of {settings.limits.head} bytes cannot hold a request line of "
            f"{settings.limits.request_line}; raise it or lower limits.request_line"
        )
    tracing = settings.tracing
    if bool(tracing.client_certificate) != bool(tracing.client_key):
        given = "tracing.client_certificate" if tracing.client_certificate else "tracing.client_key"
        raise SettingsError(f"{origin(given)}: a client certificate and its key go together; set both or neither")
    for key in ("cluster.watch_namespace", "cluster.election_namespace"):
        name = catalogue()[key].value_in(settings)
        if name and not LABEL.fullmatch(name):
            raise SettingsError(f"{origin(key)}: '{name}' is not the name of a namespace")
    if settings.cluster.publish_service is not None and settings.cluster.publish_address:
        raise SettingsError(
            f"{origin('cluster.publish_address')}: there is also {origin('cluster.publish_service')}; keep one of them"
        )
    socket = settings.wire.socket
    if socket != "off" and not (socket.startswith("/") and len(os.fsencode(socket)) <= _SOCKET_PATH):
        raise SettingsError(
            f"{origin('wire.socket')}: '{socket}' is not the path of a unix socket: absolute, at most {_SOCKET_PATH} "
            "bytes; or 'off'"
        )
    for key in ("upstream_ca", "tracing.certificate", "tracing.client_certificate", "tracing.client_key"):
        file = catalogue()[key].value_in(settings)
        if file and not Path(file).is_file():
            raise SettingsError(f"{origin(key)}: '{file}' is not a file; name a PEM file that can be read")
