"""Stand-in until the branch that owns it is merged."""

from __future__ import annotations

from typing import Literal

import msgspec


class Change(msgspec.Struct, frozen=True):
    """One received event, after objects was updated."""

    kind: str
    namespace: str
    name: str
    resource_version: str
    verb: Literal["added", "modified", "deleted", "listed"]
    received_ns: int
    lag_ns: int = -1
    lag_source: str = ""
    traceparent: str = ""
