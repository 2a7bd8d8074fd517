from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from proxy.route.change import (
    Origin,
    TableChange,
    certificates_of,
    differing,
    hosts_of,
    merged,
    parts,
    whole,
)
from proxy.route.spec import BackendSpec, CertificateSpec, HostSpec, TableSpec
from tests.route.strategies import rule, table

A, B, C = rule("Prefix a.test/"), rule("Exact a.test/b"), rule("Prefix b.test/")


def backend(key: str, policy: str = "round_robin") -> BackendSpec:
    return BackendSpec(key, "ns", key, "80", (), policy)  # type: ignore[arg-type] # one of its values


def test_a_whole_table_by_hosts() -> None:
    spec = table(A, C, B, default=rule("Prefix /"), host_defaults=(rule("Prefix b.test/d"), rule("Prefix b.test/e")))
    change = whole(spec, Origin(b"t" * 16, b"s" * 8, 1))
    assert (change.generation, change.base, change.origin) == (7, 0, Origin(b"t" * 16, b"s" * 8, 1))
    assert change.hosts == {
        "a.test": HostSpec("a.test", (A, B)),
        "b.test": HostSpec("b.test", (C,), rule("Prefix b.test/d")),
        "": HostSpec("", (), rule("Prefix /")),
    }
    assert list(change.backends) == ["ns/s:80"]
    assert change.hosts == hosts_of(spec)


def test_of_two_certificates_for_one_host_the_first_has_it() -> None:
    one, other = CertificateSpec("ns/one", ("a", "b"), b"", b""), CertificateSpec("ns/other", ("b", "c"), b"", b"")
    default = CertificateSpec("ns/default", (), b"", b"")
    found = certificates_of(TableSpec(1, certificates=(one, other), default_certificate=default))
    assert found == {"ns/one": one, "ns/other": msgspec.structs.replace(other, hosts=("c",)), "": default}


def test_what_differs() -> None:
    assert differing({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4, "d": 5}) == {"b": 4, "d": 5, "c": None}
    assert differing({"a": 1}, {"a": 1}) == {}


def test_two_changes_in_a_row() -> None:
    first = TableChange(2, 1, {"a": HostSpec("a", (A,))}, {"x": backend("x")})
    then = TableChange(3, 2, {"a": None, "b": HostSpec("b", (C,))}, origin=Origin(b"", b"", 0))
    found = merged(first, then)
    assert (found.generation, found.base, found.origin) == (3, 1, Origin(b"", b"", 0))
    assert found.hosts == {"a": None, "b": HostSpec("b", (C,))}
    assert found.backends == {"x": backend("x")}
    anew = TableChange(4, 0, {"b": HostSpec("b")})
    assert merged(found, anew) is anew, "a whole table leaves nothing of what was before"


NAMES = st.sampled_from("abcdef")
CHANGES = st.builds(
    TableChange,
    st.just(2),
    st.sampled_from([0, 1]),
    st.dictionaries(NAMES, st.one_of(st.none(), st.builds(HostSpec, NAMES, st.sampled_from([(), (A,), (A, B)])))),
    st.dictionaries(NAMES, st.one_of(st.none(), st.builds(backend, NAMES))),
    st.dictionaries(
        NAMES, st.one_of(st.none(), st.builds(CertificateSpec, NAMES, st.just(()), st.just(b""), st.just(b"")))
    ),
)


@given(CHANGES, st.integers(1, 5))
def test_parts_are_the_whole_and_backends_go_first(change: TableChange, most: int) -> None:
    found = list(parts(change, most))
    assert found
    assert all(len(part) <= most + 2 for part in found), "a host is never cut"
    assert {(part.generation, part.base) for part in found} == {(change.generation, change.base)}
    together = found[0]
    for part in found[1:]:
        together = TableChange(
            2,
            change.base,
            together.hosts | part.hosts,
            together.backends | part.backends,
            together.certificates | part.certificates,
        )
    assert (together.hosts, together.backends, together.certificates) == (
        change.hosts,
        change.backends,
        change.certificates,
    )
    first_host = next((at for at, part in enumerate(found) if part.hosts), len(found))
    assert not any(part.backends for part in found[first_host + 1 :])


def test_a_change_crosses_as_msgpack() -> None:
    change = whole(table(A, C), Origin(b"t" * 16, b"s" * 8, 1))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=TableChange) == change
