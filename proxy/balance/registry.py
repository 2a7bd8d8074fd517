"""The endpoints of one worker, which outlive the tables that name them: their pools, health and latency are kept."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

from proxy.balance.backend import Backend
from proxy.balance.endpoint import Endpoint
from proxy.balance.health import Rules
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
        self._retired: list[Endpoint] = []

    def __repr__(self) -> str:
        return f"Registry({len(self._backends)} backends, {len(self._endpoints)} endpoints)"

    def backends(self, spec: TableSpec) -> dict[str, Backend]:
        """Take over the backends of a whole table; returns them by key.

        Raises `SettingsError`, and changes nothing, for a backend that cannot be built.
        """
        plan = self.plan(whole=True)
        plan.take({each.key: each for each in spec.backends})
        self.commit(plan)
        return dict(self._backends)

    def plan(self, *, whole: bool = False) -> Plan:
        """The next table's backends, to be prepared beside these; of a ``whole`` table only those that it names."""
        return Plan(self._backends, self._endpoints, self._rules, self._rng, self._clock, whole=whole)

    def commit(self, plan: Plan) -> None:
        """Take a plan over, in one step. One at a time: it knows only what was there when it was made."""
        plan.close()
        self._endpoints.update(plan.endpoints)
        left: list[Endpoint] = []
        for key, fresh in plan.found.items():
            before = self._backends.get(key)
            if before is not None:
                for endpoint in before.endpoints:
                    endpoint.watchers.remove(before.refresh)
                left += before.endpoints
            if fresh is None:
                self._backends.pop(key, None)
                continue
            if before is None:
                before = self._backends[key] = fresh
            else:
                before.become(fresh)
            for endpoint, each in zip(before.endpoints, plan.zones[key], strict=True):
                endpoint.zone = each
                endpoint.watchers.append(before.refresh)
            before.refresh()
        for endpoint in left:
            if not endpoint.watchers and self._endpoints.pop(_key(endpoint), None) is not None:
                self._retired.append(endpoint)

    def retire(self) -> list[Endpoint]:
        """Those that no table names any more since the last call, so that their connections can be closed."""
        retired, self._retired = self._retired, []
        return retired

    def current(self) -> tuple[Backend, ...]:
        """The backends of the latest table."""
        return tuple(self._backends.values())


class Plan:
    """The backends of a table that is not served yet, as far as they differ from those of the one that is.

    It is a mapping of them all. A backend that changes stays the same object, so that routes need not; it becomes
    the other when the plan is committed.
    """

    __slots__ = ("_backends", "_clock", "_known", "_named", "_rng", "_rules", "endpoints", "found", "zones")

    def __init__(
        self,
        backends: Mapping[str, Backend],
        endpoints: Mapping[_Key, Endpoint],
        rules: Rules,
        rng: random.Random,
        clock: Callable[[], float],
        *,
        whole: bool,
    ) -> None:
        self._backends = backends
        self._named: set[str] | None = set() if whole else None
        self._known = endpoints
        self._rules = rules
        self._rng = rng
        self._clock = clock
        self.found: dict[str, Backend | None] = {}  # those that are new or other, None for those that go
        self.endpoints: dict[_Key, Endpoint] = {}  # new ones
        self.zones: dict[str, tuple[str, ...]] = {}  # of the endpoints of those found

    def __repr__(self) -> str:
        return f"Plan({len(self.found)} backends, {len(self.endpoints)} new endpoints)"

    def get(self, key: str) -> Backend | None:
        """A backend of the next table: as it is, or, where it changes, as it is until then."""
        if self._named is not None and key not in self._named:
            return None
        if key not in self.found:
            return self._backends.get(key)
        fresh = self.found[key]
        return None if fresh is None else self._backends.get(key, fresh)

    def take(self, changes: Mapping[str, BackendSpec | None]) -> None:
        """Plan for these. Raises `SettingsError` for a backend that cannot be built."""
        if self._named is not None:
            self._named.update(changes)
        for key, spec in changes.items():
            before = self._backends.get(key)
            if spec is None:
                self.found[key] = None
            elif before is not None and before.spec == spec:
                self.found.pop(key, None)
            else:
                members = self._members(spec)
                self.found[key] = Backend(spec, tuple(members), rng=self._rng, clock=self._clock, watch=False)
                self.zones[key] = tuple(members.values())

    def close(self) -> None:
        """That was all: what a whole table has not named goes."""
        if self._named is not None:
            self.found.update(dict.fromkeys(self._backends.keys() - self._named))

    def _members(self, spec: BackendSpec) -> dict[Endpoint, str]:
        """The endpoints, each once, and their zones."""
        members: dict[Endpoint, str] = {}
        for each in spec.endpoints:
            key = (spec.scheme, each.host, each.port, spec.server_name)
            endpoint = self._known.get(key) or self.endpoints.get(key)
            if endpoint is None:
                endpoint = self.endpoints[key] = Endpoint(
                    each.host, each.port, scheme=spec.scheme, server_name=spec.server_name, rules=self._rules
                )
            members[endpoint] = each.zone
        return members


def _key(endpoint: Endpoint) -> _Key:
    return endpoint.scheme, endpoint.host, endpoint.port, endpoint.server_name
