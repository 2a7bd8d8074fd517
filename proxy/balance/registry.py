"""The endpoints of one worker, which outlive the tables that name them: their pools, health and latency are kept."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from proxy.balance.backend import Backend
from proxy.balance.endpoint import Endpoint
from proxy.balance.health import Rules
from proxy.errors import SettingsError
from proxy.route.spec import BackendSpec, TableSpec

_Key = tuple[str, str, int, str]  # scheme, host, port, server name


class Registry:
    """See the module. ``eject_after`` and ``eject_time`` (seconds) are `health.Rules`."""

    def __init__(
        self,
        eject_after: int,
        eject_time: float,
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = Rules(eject_after, eject_time)
        self._rng = rng or random.Random()
        self._clock = clock
        self._endpoints: dict[_Key, Endpoint] = {}
        self._backends: dict[str, Backend] = {}
        self._retired: dict[_Key, Endpoint] = {}

    def __repr__(self) -> str:
        return f"Registry({len(self._backends)} backends, {len(self._endpoints)} endpoints)"

    def backends(self, spec: TableSpec) -> dict[str, Backend]:
        """The backends of a table by key; those that have not changed are the same objects as before.

        Raises `SettingsError`, and changes nothing, for a backend that cannot be built.
        """
        endpoints: dict[_Key, Endpoint] = {}
        backends: dict[str, Backend] = {}
        try:
            for each in spec.backends:
                before = self._backends.get(each.key)
                members = self._members(each, endpoints)
                if before is not None and before.spec == each:
                    backends[each.key] = before
                else:
                    backends[each.key] = Backend(each, members, rng=self._rng, clock=self._clock)
        except SettingsError:
            self._watch()  # not those that have just been built
            raise
        self._retired.update((key, each) for key, each in self._endpoints.items() if key not in endpoints)
        self._endpoints = endpoints
        self._backends = backends
        self._watch()
        return dict(backends)

    def retire(self) -> list[Endpoint]:
        """Those that no table names any more since the last call, so that their connections can be closed."""
        retired = list(self._retired.values())
        self._retired.clear()
        return retired

    def current(self) -> tuple[Backend, ...]:
        """The backends of the latest table."""
        return tuple(self._backends.values())

    def _members(self, spec: BackendSpec, endpoints: dict[_Key, Endpoint]) -> tuple[Endpoint, ...]:
        members: dict[_Key, Endpoint] = {}
        for each in spec.endpoints:
            key = (spec.scheme, each.host, each.port, spec.server_name)
            endpoint = endpoints.get(key) or self._endpoints.get(key)
            if endpoint is None:
                endpoint = Endpoint(
                    each.host, each.port, scheme=spec.scheme, server_name=spec.server_name, rules=self._rules
                )
            endpoint.zone = each.zone
            endpoints[key] = members[key] = endpoint
        return tuple(members.values())

    def _watch(self) -> None:
        """Let each endpoint tell the backends of the latest table, and only those, of changes in its health."""
        for endpoint in self._endpoints.values():
            endpoint.watchers.clear()
        for backend in self._backends.values():
            backend.refresh()
            for endpoint in backend.endpoints:
                endpoint.watchers.append(backend.refresh)
