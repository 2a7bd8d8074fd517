"""What the API server sends, decoded straight from its bytes: pages of lists, events of watches, objects.

Objects become the structs of `control.objects`. The API writes ``null`` where a list is empty (an EndpointSlice without
endpoints), which a struct does not take: such an object goes the longer way, through plain values without nulls.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from proxy.control.cluster.faults import Garbled, fault_of
from proxy.control.objects import KINDS, TRACEPARENT_ANNOTATION, Object
from proxy.control.shape import explain


class ManagedFields(msgspec.Struct, frozen=True):
    """ManagedFieldsEntry: who wrote what, and when."""

    time: str = ""


class Head(msgspec.Struct, frozen=True, rename="camel"):
    """ObjectMeta as following an object needs it; `control.objects.Metadata` is what a table needs."""

    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    annotations: dict[str, str] | None = None
    managed_fields: tuple[ManagedFields, ...] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Namespace ("" where there is none) and name."""
        return self.namespace or "", self.name

    @property
    def traceparent(self) -> str:
        """The annotation's value, "" without one; not yet judged."""
        return (self.annotations or {}).get(TRACEPARENT_ANNOTATION, "")


class _Headed(msgspec.Struct, frozen=True):
    metadata: Head


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str | None = msgspec.field(name="continue", default=None)


class Page(msgspec.Struct, frozen=True):
    """One page of a list; the items as they are in the text."""

    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] | None = None


class Event(msgspec.Struct, frozen=True):
    """WatchEvent: ADDED, MODIFIED, DELETED, BOOKMARK, ERROR (then the object is a Status)."""

    type: str
    object: msgspec.Raw


class Unreadable(Exception):
    """An object of the wrong shape: (message, field, hint), in `control.shape`'s words. It never quotes values."""

    def __init__(self, message: str, field: str = "", hint: str = "") -> None:
        super().__init__(message, field, hint)
        self.message: Final = message
        self.field: Final = field
        self.hint: Final = hint


_pages: Final = msgspec.json.Decoder(Page)
_events: Final = msgspec.json.Decoder(Event)
_heads: Final = msgspec.json.Decoder(_Headed)
_objects: Final = {kind: msgspec.json.Decoder(struct) for kind, (_, struct) in KINDS.items()}

# UnicodeDecodeError is what msgspec raises for a text that is no UTF-8, RecursionError for one that nests too deep.
_WRONG: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def page_of(what: str, body: bytes) -> Page:
    """A page of a list. Raises `Garbled`."""
    try:
        return _pages.decode(body)
    except _WRONG as problem:
        raise Garbled(what, f"no list came back ({type(problem).__name__})") from None


def event_of(what: str, line: bytes) -> Event:
    """A line of a watch. Raises `Garbled`; for an ERROR event the fault that it holds, such as `Gone`."""
    try:
        event = _events.decode(line)
    except _WRONG as problem:
        raise Garbled(what, f"a line is no watch event ({type(problem).__name__})") from None
    if event.type == "ERROR":
        raise fault_of(what, 0, bytes(event.object))
    return event


def head_of(raw: bytes | msgspec.Raw) -> Head:
    """An object's name and history. Raises `Unreadable`."""
    try:
        return _heads.decode(raw).metadata
    except _WRONG as problem:
        raise Unreadable(f"has no readable metadata ({type(problem).__name__})") from None


def object_of(kind: str, raw: bytes | msgspec.Raw) -> Object:
    """An object as the table needs it. Raises `Unreadable`."""
    try:
        return _objects[kind].decode(raw)
    except msgspec.ValidationError:
        pass  # mostly a null
    except _WRONG as problem:
        raise Unreadable(f"is no JSON object ({type(problem).__name__})") from None
    try:
        value = _without_nulls(msgspec.json.decode(raw))
    except _WRONG as problem:
        raise Unreadable(f"is no JSON object ({type(problem).__name__})") from None
    try:
        item: Object = msgspec.convert(value, KINDS[kind][1])
    except msgspec.ValidationError as problem:
        raise Unreadable(*explain(problem, value)) from None
    return item


def _without_nulls(value: Any) -> Any:
    """Plain values with nulls in mappings left out, as absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
