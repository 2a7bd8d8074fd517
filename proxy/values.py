"""The value of a setting from what was written: text from a flag or variable, or a TOML value from the file.

Strict: a reader returns a value that is right or raises `SettingsError` with what is wrong and what would be right;
`configure` adds where it was written.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import typing
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from proxy.catalogue import Entry
from proxy.errors import SettingsError
from proxy.net import addresses
from proxy.settings import Address, Network, Override, ServicePort, Settings
from proxy.settings_cluster import ObjectName
from proxy.settings_wire import PortRange

SIZES: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
TIMES: Final = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LARGEST: Final = 2**63 - 1  # of a whole number: what is compiled keeps it in 64 bits
TRUE: Final = ("true", "yes", "on", "1")
FALSE: Final = ("false", "no", "off", "0")

# A DNS label (RFC 1123), which names of namespaces and services are.
LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


def read(entry: Entry, raw: object) -> Any:
    """The value of ``entry`` from ``raw``: text, or a TOML string, number, boolean, array or table."""
    if entry.repeatable:
        return _READERS[entry.kind](entry, raw)
    if isinstance(raw, list | dict):
        raise SettingsError(f"takes one value, not {_kind_of(raw)}; write {entry.placeholder}")
    value = _READERS.get(entry.kind, word)(entry, raw)
    if isinstance(value, int) and value > LARGEST:
        raise SettingsError(f"{value:g} is too large; the most is {LARGEST:g}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_bounds(entry, value)
    return value


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of the names that is most like ``name``, "" where none is near."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.65)), "")


def suggestion(name: str, names: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest of the names, "" where none is near."""
    near = nearest(name, names)
    return f"; did you mean '{near}'?" if near else ""


def whole(entry: Entry, raw: object) -> int:
    """A whole number; bytes also as 8k, 8KiB, 1M, 2GiB (powers of 1024, as nginx has it)."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if not isinstance(raw, str):
        raise SettingsError(f"takes a whole number, not {_kind_of(raw)}")
    text = raw.strip().lower()
    if text == "auto" and "auto" in entry.placeholder:
        return len(os.sched_getaffinity(0))
    if entry.meaning.unit == "bytes":
        size = re.fullmatch(r"([0-9]{1,18}) ?([kmg]?)(?:i?b)?", text)
        if size is None:
            raise SettingsError(f"'{raw}' is not a number of bytes; write for example 8192, 8KiB or 1MiB")
        return int(size[1]) * SIZES[size[2]]
    if re.fullmatch(r"[0-9]{1,18}", text) is None:
        raise SettingsError(f"'{raw}' is not a whole number; write {entry.placeholder}")
    return int(text)


def number(entry: Entry, raw: object) -> float:
    """A number; times also as 500ms, 60s, 2m, 1h."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        value = float(raw)
    elif not isinstance(raw, str):
        raise SettingsError(f"takes a number, not {_kind_of(raw)}")
    else:
        found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15}) ?(us|ms|s|m|h)?", raw.strip().lower())
        timed = entry.meaning.unit == "s"
        if found is None or (found[2] and not timed):
            example = "write seconds such as 60 or 1.5, or 500ms, 2m, 1h" if timed else "write for example 0.25"
            raise SettingsError(f"'{raw}' is not a {'time' if timed else 'number'}; {example}")
        value = float(found[1]) * TIMES[found[2] or ""]
    if not math.isfinite(value):
        raise SettingsError(f"'{raw}' is not a finite number")
    return value


def truth(entry: Entry, raw: object) -> bool:
    """``true`` or ``false``, also yes, no, on, off, 1, 0."""
    if isinstance(raw, bool):
        return raw
    text = raw.strip().lower() if isinstance(raw, str) else ""
    if text not in TRUE and text not in FALSE:
        raise SettingsError(f"'{raw}' is neither true nor false; write {entry.placeholder}")
    return text in TRUE


def word(entry: Entry, raw: object) -> str:
    """Text as it is, checked against the choices."""
    if not isinstance(raw, str):
        raise SettingsError(f"takes text, not {_kind_of(raw)}; put it in quotes")
    if any(ord(character) < 32 for character in raw):
        raise SettingsError("has a control character in it; write it on one line")
    _check_choice(entry, raw)
    return raw


def words(entry: Entry, raw: object) -> tuple[str, ...]:
    """A list of words without repetitions; ``none`` alone is the empty list."""
    found = tuple(dict.fromkeys(_pieces(raw)))
    if found == ("none",):
        return ()
    for piece in found:
        _check_choice(entry, piece)
    if "none" in found and entry.choices:
        raise SettingsError("'none' stands alone; leave it out or write nothing beside it")
    return found


def pairs(entry: Entry, raw: object) -> tuple[tuple[str, str], ...]:
    """``key=value,key=value``, percent-decoded (as OTEL_RESOURCE_ATTRIBUTES and OTEL_EXPORTER_OTLP_HEADERS are)."""
    if isinstance(raw, Mapping):
        if not all(isinstance(value, str | int | float) for value in raw.values()):
            raise SettingsError("has a value that is neither text nor a number")
        return tuple((key, str(value)) for key, value in raw.items())
    found = []
    for place, piece in enumerate(_pieces(raw), 1):
        key, equals, value = piece.partition("=")
        key = urllib.parse.unquote(key.strip())
        if not equals or not key:
            shown = f"part {place}" if entry.meaning.secret else f"'{piece}'"
            raise SettingsError(f"{shown} is not KEY=VALUE; write KEY=VALUE,KEY=VALUE, a comma in a value as %2C")
        found.append((key, urllib.parse.unquote(value.strip())))
    return tuple(dict(found).items())


def paths(_entry: Entry, raw: object) -> tuple[Path, ...]:
    """Paths that exist."""
    found = tuple(Path(piece) for piece in _pieces(raw))
    for path in found:
        if not path.exists():
            raise SettingsError(f"'{path}' does not exist; name a file or a directory of manifests")
    return found


def override(text: str) -> Override:
    """``[NS/]SERVICE[:PORT]=[https://]HOST:PORT[,HOST:PORT]..``."""
    shape = "[NAMESPACE/]SERVICE[:PORT]=HOST:PORT[,HOST:PORT].."
    left, equals, right = text.partition("=")
    namespace, slash, service = left.rpartition("/")
    service, colon, port = service.partition(":")
    if not equals or not right or (slash and not namespace) or (colon and not port):
        raise SettingsError(f"'{text}' is not {shape}; for example default/shop:80=127.0.0.1:3000")
    for name, what in ((namespace, "namespace"), (service, "service"), (port, "port")):
        if (name or what == "service") and not LABEL.fullmatch(name):
            raise SettingsError(f"'{name}' in '{text}' is not the name of a {what}; write {shape}")
    if port.isdecimal() and not 1 <= int(port) <= 65535:
        raise SettingsError(f"'{port}' in '{text}' is not a port; ports are 1 to 65535")
    schemes, endpoints = set(), []
    for target in right.split(","):
        scheme, separator, place = target.strip().rpartition("://")
        schemes.add(scheme.lower() if separator else "http")
        try:
            endpoints.append(addresses.parse_address(place))
        except SettingsError as problem:
            raise SettingsError(f"'{text}': {problem}") from None
        if endpoints[-1].port == 0:
            raise SettingsError(f"'{text}': port 0 cannot be connected to; ports are 1 to 65535")
    if schemes == {"http"} or schemes == {"https"}:
        scheme = typing.cast('typing.Literal["http", "https"]', schemes.pop())
        return Override(namespace, service, port, scheme, tuple(endpoints))
    if schemes == {"http", "https"}:
        raise SettingsError(f"'{text}' mixes https and http; give every target of a service the same scheme")
    raise SettingsError(f"'{text}' has a scheme that is not http or https; write https://HOST:PORT or HOST:PORT")


def overrides(_entry: Entry, raw: object) -> tuple[Override, ...]:
    """Overrides, separated by spaces or semicolons where they are one text."""
    return tuple(override(piece) for piece in _pieces(raw, r"[\s;]+"))


def object_name(entry: Entry, raw: object) -> ObjectName | None:
    """``NS/NAME``; ``off`` is none."""
    text = word(entry, raw)
    if text == "off":
        return None
    namespace, _, name = text.partition("/")
    if not LABEL.fullmatch(namespace) or not all(LABEL.fullmatch(part) for part in name.split(".")):
        raise SettingsError(f"'{text}' is not {entry.placeholder}; for example default/shop")
    return ObjectName(namespace, name)


def service_port(entry: Entry, raw: object) -> ServicePort | None:
    """``NS/SVC:PORT``; ``off`` is none."""
    text = word(entry, raw)
    if text == "off":
        return None
    name, _, port = text.rpartition(":")
    namespace, _, service = name.partition("/")
    if not all(LABEL.fullmatch(part) for part in (namespace, service, port)):
        raise SettingsError(f"'{text}' is not {entry.placeholder}; for example default/shop:80")
    if port.isdecimal() and not 1 <= int(port) <= 65535:
        raise SettingsError(f"'{port}' in '{text}' is not a port; ports are 1 to 65535")
    return ServicePort(namespace, service, port)


def port_range(entry: Entry, raw: object) -> PortRange:
    """``LOW-HIGH``."""
    text = word(entry, raw)
    found = re.fullmatch(r"([0-9]{1,5}) ?- ?([0-9]{1,5})", text.strip())
    if found is None:
        raise SettingsError(f"'{text}' is not {entry.placeholder}; for example {entry.value_in(Settings())}")
    made = PortRange(int(found[1]), int(found[2]))
    if not 1024 <= made.low <= made.high <= 65535:
        raise SettingsError(f"'{text}' is no range of ports; it lies within 1024-65535, its low end first")
    return made


def listeners(_entry: Entry, raw: object) -> tuple[Address, ...]:
    """Addresses to listen on; a port alone is on every address, ``off`` is none."""
    pieces = _pieces(raw)
    if pieces == ["off"]:
        return ()
    return tuple(dict.fromkeys(addresses.parse_address(piece, default_host="0.0.0.0") for piece in pieces))  # noqa: S104 - an ingress listens to the world


def listener(entry: Entry, raw: object) -> Address | None:
    """One address to listen on; a port alone is on loopback, ``off`` is none."""
    text = str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else word(entry, raw)
    return None if text == "off" else addresses.parse_address(text, default_host="127.0.0.1")


def networks(_entry: Entry, raw: object) -> tuple[Network, ...]:
    """Networks in CIDR notation, or one of the words ``all``, ``private``, ``none``."""
    pieces = _pieces(raw)
    return addresses.parse_networks(",".join(pieces)) if pieces else ()


_READERS: Final[dict[Any, Callable[[Entry, object], Any]]] = {
    int: whole,
    float: number,
    bool: truth,
    str: word,
    Address | None: listener,
    ObjectName | None: object_name,
    ServicePort | None: service_port,
    PortRange: port_range,
    tuple[str, ...]: words,
    tuple[tuple[str, str], ...]: pairs,
    tuple[Path, ...]: paths,
    tuple[Override, ...]: overrides,
    tuple[Address, ...]: listeners,
    tuple[Network, ...]: networks,
}


def _pieces(raw: object, separator: str = ",") -> list[str]:
    """The members of a list: of one text at its separators, of an array one by one."""
    if isinstance(raw, str) and not raw.strip():
        raise SettingsError("is empty; leave it out for the default")
    found = []
    for item in raw if isinstance(raw, list | tuple) else [raw]:
        if isinstance(item, bool) or not isinstance(item, str | int | Path):
            raise SettingsError(f"takes text or a list of texts, not {_kind_of(item)}")
        found += [piece.strip() for piece in re.split(separator, str(item)) if piece.strip()]
    return found


def _check_choice(entry: Entry, text: str) -> None:
    if entry.choices and text not in entry.choices:
        raise SettingsError(f"'{text}' is not one of {', '.join(entry.choices)}{suggestion(text, entry.choices)}")


def _check_bounds(entry: Entry, value: float) -> None:
    least, most = entry.meaning.least, entry.meaning.most
    unit = f" {entry.meaning.unit}" if entry.meaning.unit else ""
    if least is not None and value < least:
        raise SettingsError(f"{value:g}{unit} is too small; the least is {least:g}{unit}")
    if most is not None and value > most:
        raise SettingsError(f"{value:g}{unit} is too large; the most is {most:g}{unit}")


def _kind_of(raw: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table", str: "text"}
    return names.get(type(raw), f"a {type(raw).__name__}")
