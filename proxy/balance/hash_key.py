"""What consistent hashing goes by: text with nginx variables, compiled to a function of the request.

nginx's ``hash`` directive and ingress-nginx's ``upstream-hash-by``: variables as ``$name`` or ``${name}``, text between
them as it is, names of fields, arguments and cookies without regard to case.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from proxy.errors import SettingsError


class HeadInputs(Protocol):
    """What a key reads of a request's head; `http1.head.RequestHead` is one.

    ``target`` is as it was sent. A field is in ``noted``, by its lower-case name, or else among the ``lines``.
    """

    target: bytes
    noted: dict[bytes, bytes]

    @property
    def lines(self) -> list[bytes]:
        """Field lines without their line ends."""


class KeyInputs(Protocol):
    """What a key reads of a request; `exchange.Exchange` is one."""

    client_address: str
    scheme: str
    method: bytes
    host: bytes
    path: bytes
    query: bytes
    request_id: bytes

    @property
    def head(self) -> HeadInputs:
        """Its head."""


Part = Callable[[KeyInputs], bytes]


def compile_key(text: str) -> Part:
    """The function that makes a request's key; an absent field, argument or cookie counts as empty.

    Variables: ``$remote_addr`` (the resolved client), ``$binary_remote_addr`` (the same), ``$request_uri`` (as sent,
    with arguments), ``$uri`` (normal form), ``$args``, ``$query_string``, ``$host``, ``$scheme``, ``$request_method``,
    ``$request_id``, ``$http_NAME``, ``$arg_NAME``, ``$cookie_NAME``. Raises `SettingsError` for any other, and where
    there is none, as every request would then go to one endpoint.
    """
    parts: list[Part] = []
    variables = 0
    rest = text
    while rest:
        literal, dollar, rest = rest.partition("$")
        if literal:
            parts.append(_constant(literal.encode()))
        if dollar:
            name, rest = _name(rest, text)
            parts.append(_variable(name, text))
            variables += 1
    if not variables:
        raise SettingsError(f"the hash key '{text}' has no variable; write for example $remote_addr or $cookie_session")
    if len(parts) == 1:
        return parts[0]
    return lambda inputs: b"".join([part(inputs) for part in parts])


_WORD: Final = frozenset(string.ascii_letters + string.digits + "_")


def _name(rest: str, text: str) -> tuple[str, str]:
    """A variable's name, lower-case as nginx takes it, and the text behind it."""
    if rest.startswith("{"):
        name, brace, behind = rest[1:].partition("}")
        if not brace:
            raise SettingsError(f"the hash key '{text}' has a '${{' without its '}}'")
    else:
        end = next((index for index, letter in enumerate(rest) if letter not in _WORD), len(rest))
        name, behind = rest[:end], rest[end:]
    if not name or not _WORD.issuperset(name):
        raise SettingsError(f"the hash key '{text}' has a '$' without a variable's name behind it")
    return name.lower(), behind


def _variable(name: str, text: str) -> Part:
    plain = _PLAIN.get(name)
    if plain is not None:
        return plain
    prefix, _, suffix = name.partition("_")
    make = _FAMILIES.get(prefix)
    if make is None or not suffix:
        known = ", ".join([*(f"${word}" for word in _PLAIN), *(f"${word}_NAME" for word in _FAMILIES)])
        raise SettingsError(f"the hash key '{text}' has the unknown variable '${name}'; there are {known}")
    return make(suffix)


def _constant(value: bytes) -> Part:
    return lambda _: value


def _request_uri(inputs: KeyInputs) -> bytes:
    target = inputs.head.target
    if target.startswith(b"/"):
        return target
    # Of an absolute target (RFC 9112 section 3.2.2), nginx too takes what stands behind the authority.
    return inputs.path + b"?" + inputs.query if inputs.query else inputs.path


_PLAIN: Final[Mapping[str, Part]] = {
    "remote_addr": lambda inputs: inputs.client_address.encode(),
    "binary_remote_addr": lambda inputs: inputs.client_address.encode(),
    "request_uri": _request_uri,
    "uri": lambda inputs: inputs.path,
    "args": lambda inputs: inputs.query,
    "query_string": lambda inputs: inputs.query,
    "host": lambda inputs: inputs.host,
    "scheme": lambda inputs: inputs.scheme.encode(),
    "request_method": lambda inputs: inputs.method,
    "request_id": lambda inputs: inputs.request_id,
}


def _field(name: str, between: bytes = b", ") -> Part:
    """A field's value; several lines joined (RFC 9110 section 5.3), "-" and "_" in names taken for the same."""
    wanted = name.replace("_", "-").encode()
    size = len(wanted)

    def read(inputs: KeyInputs) -> bytes:
        head = inputs.head
        noted = head.noted.get(wanted)
        if noted is not None:
            return noted
        values = [
            line[size + 1 :].strip(b" \t")
            for line in head.lines
            if line[size : size + 1] == b":" and line[:size].lower().replace(b"_", b"-") == wanted
        ]
        return values[0] if len(values) == 1 else between.join(values)

    return read


def _argument(name: str) -> Part:
    wanted = name.encode()
    return lambda inputs: _pair(inputs.query.split(b"&"), wanted)


def _cookie(name: str) -> Part:
    wanted = name.encode()
    cookies = _field("cookie", b"; ")
    return lambda inputs: _pair(cookies(inputs).split(b";"), wanted)


def _pair(pairs: list[bytes], wanted: bytes) -> bytes:
    """The value of the first ``wanted=value``, as it was sent."""
    for pair in pairs:
        name, equals, value = pair.partition(b"=")
        if equals and name.strip(b" \t").lower() == wanted:
            return value.strip(b" \t")
    return b""


_FAMILIES: Final[Mapping[str, Callable[[str], Part]]] = {"http": _field, "arg": _argument, "cookie": _cookie}
