"""Every setting by its names: the key in the file, the flag, the environment variables, the default as one writes it;
and what `spanway dev` and `spanway demo` make of them.

The catalogue is read off the dataclasses in `settings` and their `Meaning`s, so that a setting added there is at once
settable from everywhere, listed by `--help` and described in docs/settings.md.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from proxy.meaning import Meaning
from proxy.settings import EVERYONE, KIB, MIB, PRIVATE, Address, Network, Settings, Timeouts, Tracing
from proxy.settings_wire import PortRange

PREFIX: Final = "SPANWAY_"

LOOPBACK: Final[tuple[Network, ...]] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

# What differs where one developer watches: nothing listens to the network, the screen belongs to the waterfalls, and
# Ctrl-C waits for no long request.
DEV: Final = Settings(
    http=(Address("127.0.0.1", 8000),),
    trust=LOOPBACK,
    access_log="off",
    timeouts=Timeouts(drain=1.0),
    tracing=Tracing(response_header=True),
)

# The flags by theme, as `--help` lists them.
GROUPS: Final = {
    "what is served": ("ingress", "upstream", "ingress-class", "default-backend", "default-certificate"),
    "listeners": ("http", "https", "admin", "proxy-protocol"),
    "requests": ("trust", "forwarded", "via", "upstream-ca", "access-log", "workers"),
    "tracing": ("otlp", "otlp-protocol", "propagators", "sampler", "sampler-argument", "response-header", "wire"),
}
SOURCES: Final = GROUPS["what is served"]
# Of `controller` alone.
CLUSTER: Final = {
    "the cluster": (
        "kubeconfig",
        "watch-namespace",
        "publish-service",
        "publish-address",
        "election-namespace",
    )
}
# What an IngressClass says that is ours.
CLASS: Final = "spanway"
CONTROLLER: Final = Settings(ingress_class=CLASS)

# What `spanway wire` has otherwise: a page of its own beside the proxy's, and a name of its own in traces.
WIRE: Final = Settings(admin=Address("127.0.0.1", 9902), tracing=Tracing(service_name="spanway-wire"))

# Flags of `serve` that a command lacks, and why.
LACKS: Final[Mapping[str, Mapping[str, str]]] = {
    "serve": dict.fromkeys(CLUSTER["the cluster"], "it reads manifests, and 'spanway controller' a cluster"),
    "controller": {"ingress": "it reads the cluster's objects, and 'spanway serve' manifests"},
    "dev": dict.fromkeys(SOURCES, "its rules stand on the command line, and 'spanway serve' reads manifests"),
    "demo": {
        **dict.fromkeys(SOURCES, "it serves manifests of its own, and 'spanway serve' yours"),
        "https": "it listens for plain HTTP only",
        "proxy-protocol": "its own traffic sends no PROXY protocol header",
        "upstream-ca": "its services speak plain HTTP",
    },
}


def groups(command: str) -> dict[str, tuple[str, ...]]:
    """`GROUPS` as far as a command has their flags."""
    lacks = LACKS.get(command, {})
    every = {**CLUSTER, **GROUPS} if command == "controller" else GROUPS
    kept = {title: tuple(flag for flag in flags if flag not in lacks) for title, flags in every.items()}
    return {title: flags for title, flags in kept.items() if flags}


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One setting. ``section`` is its table in the file ("" at the top), ``kind`` its resolved type annotation."""

    section: str
    name: str
    kind: Any
    meaning: Meaning

    @property
    def key(self) -> str:
        """Its name in the configuration file: ``via``, ``timeouts.idle``."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def variable(self) -> str:
        """Its own environment variable: ``SPANWAY_TIMEOUTS_IDLE``."""
        return PREFIX + self.key.replace(".", "_").upper()

    @property
    def repeatable(self) -> bool:
        """Whether it is a list."""
        return typing.get_origin(self.kind) is tuple

    @property
    def choices(self) -> tuple[str, ...]:
        """The only words allowed, none where anything is."""
        if typing.get_origin(self.kind) is typing.Literal:
            return typing.get_args(self.kind)
        return self.meaning.choices

    @property
    def placeholder(self) -> str:
        """What stands for its value in help: ``[HOST:]PORT``, ``SECONDS``, ``none|gzip``."""
        if self.meaning.value:
            return self.meaning.value
        if self.repeatable:
            return "NAME,.."
        if self.choices:
            return "|".join(self.choices) if len(self.choices) <= 3 else "NAME"
        words = {bool: "true|false", int: "BYTES" if self.meaning.unit == "bytes" else "N"}
        words[float] = "SECONDS" if self.meaning.unit == "s" else "NUMBER"
        return words.get(self.kind, "TEXT")

    def value_in(self, settings: Settings) -> Any:
        """The value these settings give it."""
        return getattr(getattr(settings, self.section) if self.section else settings, self.name)

    def written(self, settings: Settings) -> str:
        """That value as one would write it, "" for nothing."""
        value = self.value_in(settings)
        if self.meaning.secret and value:
            return "***"
        return written(value, self.meaning)


@functools.cache
def catalogue() -> Mapping[str, Entry]:
    """Every entry by its key, in the order of the dataclasses."""
    return {entry.key: entry for entry in _entries(Settings, "")}


def _entries(section: type, name: str) -> Iterator[Entry]:
    kinds = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        kind = kinds[field.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _entries(kind, field.name)
        else:
            yield Entry(name, field.name, kind, field.metadata["meaning"])


def sections() -> tuple[str, ...]:
    """The tables of the file: limits, timeouts, tracing."""
    return tuple(dict.fromkeys(entry.section for entry in catalogue().values() if entry.section))


def written(value: Any, meaning: Meaning) -> str:
    """A value as one would write it in a flag, a variable or the reference."""
    match value:
        case None:
            return "off"
        case bool():
            return "true" if value else "false"
        case PortRange():
            return str(value)
        case tuple() if value in (PRIVATE, EVERYONE):
            return "private" if value == PRIVATE else "all"
        case tuple():
            return ",".join("=".join(item) if isinstance(item, tuple) else str(item) for item in value)
        case int() if meaning.unit == "bytes":
            for factor, unit in ((MIB, "MiB"), (KIB, "KiB")):
                if value and value % factor == 0:
                    return f"{value // factor}{unit}"
            return str(value)
        case float():
            return f"{value:g}{meaning.unit}"
        case Path():
            return str(value)
        case _:
            return str(value)
