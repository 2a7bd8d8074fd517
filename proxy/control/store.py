"""Stand-in until the branch that owns it is merged."""

from __future__ import annotations

import msgspec

from proxy.control.objects import Key, Object, Place, key_of
from proxy.control.objects import Objects as _Objects


def _plain(item: Object) -> Object:
    return msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, resource_version=""))


class Objects(_Objects):
    """With `put`."""

    def put(self, item: Object, place: Place | None = None) -> bool:
        """Take in; whether it differs."""
        before = self._stores()[type(item).__name__].get(key_of(item))
        if before is not None and _plain(before) == _plain(item):
            return False
        self.add(item, place)
        return True

    def remove(self, kind: str, key: Key) -> bool:  # type: ignore[override]
        """Forget."""
        there = key in self._stores()[kind]
        super().remove(kind, key)
        return there
