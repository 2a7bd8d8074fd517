"""What makes one table of another: the hosts, backends and certificates that differ.

A worker that has generation ``base`` gets ``generation`` out of it; one that has none, or another, gets the whole
table, which is a change of nothing. Two changes in a row are one. Big ones travel in parts, so that no worker is busy
with one for long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

import msgspec

from proxy.route.spec import BackendSpec, CertificateSpec, HostSpec, RouteSpec, TableSpec

PART: Final = 200  # routes, backends and certificates of one part: some 2 ms of a worker's loop

S = TypeVar("S")


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The context of the trace that a generation is (W3C Trace Context, level 1): what its first request links to."""

    trace_id: bytes  # 16
    span_id: bytes  # 8
    flags: int


class TableChange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """See the module. None is what is there no more; ``base`` 0 is the empty table.

    Hosts by name, backends by key, certificates by Secret; that of "" is the certificate for hosts that have none.
    A host is named by one certificate at most.
    """

    generation: int
    base: int = 0
    hosts: dict[str, HostSpec | None] = {}
    backends: dict[str, BackendSpec | None] = {}
    certificates: dict[str, CertificateSpec | None] = {}
    origin: Origin | None = None

    def __len__(self) -> int:
        routes = sum(len(spec.routes) for spec in self.hosts.values() if spec is not None)
        return routes + len(self.hosts) + len(self.backends) + len(self.certificates)


def hosts_of(table: TableSpec) -> dict[str, HostSpec]:
    """A table's hosts."""
    routes: dict[str, list[RouteSpec]] = {}
    for route in table.routes:
        routes.setdefault(route.host, []).append(route)
    defaults = {route.host: route for route in reversed(table.host_defaults)}  # of two for one host the first holds
    if table.default_route is not None:
        defaults[""] = table.default_route
    return {
        host: HostSpec(host, tuple(routes.get(host, ())), defaults.get(host))
        for host in dict.fromkeys([*routes, *defaults])
    }


def certificates_of(table: TableSpec) -> dict[str, CertificateSpec]:
    """A table's certificates; of two for one host the first has it."""
    taken: set[str] = set()
    found: dict[str, CertificateSpec] = {}
    for spec in table.certificates:
        free = tuple(host for host in spec.hosts if host not in taken)
        taken.update(free)
        found[spec.secret] = spec if free == spec.hosts else msgspec.structs.replace(spec, hosts=free)
    if table.default_certificate is not None:
        found[""] = table.default_certificate
    return found


def whole(table: TableSpec, origin: Origin | None = None) -> TableChange:
    """A table as the change that makes it of nothing."""
    return TableChange(
        generation=table.generation,
        hosts=dict(hosts_of(table)),
        backends={spec.key: spec for spec in table.backends},
        certificates=dict(certificates_of(table)),
        origin=origin,
    )


def merged(first: TableChange, then: TableChange) -> TableChange:
    """Two changes in a row as one; ``then`` must be based on ``first``, or on nothing."""
    if not then.base:
        return then
    return TableChange(
        generation=then.generation,
        base=first.base,
        hosts=first.hosts | then.hosts,
        backends=first.backends | then.backends,
        certificates=first.certificates | then.certificates,
        origin=then.origin,
    )


def differing(before: Mapping[str, S], after: Mapping[str, S]) -> dict[str, S | None]:
    """What makes the second of the first: entries that are new or other, and None for those that are gone."""
    found: dict[str, S | None] = {key: value for key, value in after.items() if before.get(key) != value}
    found.update((key, None) for key in before.keys() - after.keys())
    return found


def parts(change: TableChange, most: int = PART) -> Iterator[TableChange]:
    """A change cut into parts of about ``most`` specs each, at least one. Backends go before the routes to them."""
    empty = TableChange(change.generation, change.base, origin=change.origin)
    part, size = empty, 0
    for field in ("backends", "certificates", "hosts"):
        taken: dict[str, object] = {}
        for key, spec in getattr(change, field).items():
            taken[key] = spec
            size += 1 + len(spec.routes) if isinstance(spec, HostSpec) else 1
            if size >= most:
                yield msgspec.structs.replace(part, **{field: taken})
                part, size, taken = empty, 0, {}
        part = msgspec.structs.replace(part, **{field: taken})
    if size or (change.generation and not len(change)):
        yield part
