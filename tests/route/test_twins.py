"""The counters in use against ``counts.py``: the same numbers for any requests."""

from __future__ import annotations

import gc
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.route import counts
from proxy.route.samples import DURATION_BOUNDS, SELF_BOUNDS
from tests.harness.twins import COMPILED, python_form

FORMS: dict[str, ModuleType] = {"in-use": counts, "python": python_form("proxy.route.counts")}

# Around every bound, and what clocks that were set back leave.
EDGES = [0, 1, -1, -(1 << 60), 1 << 60]
EDGES += [round(bound * 1e9) + by for bound in (*DURATION_BOUNDS, *SELF_BOUNDS) for by in (-1, 0, 1)]

requests = st.tuples(
    st.sampled_from([0, 200, 204, 301, 404, 499, 500, 502, 503, 599]),
    st.sampled_from(EDGES),
    st.sampled_from(EDGES),
    st.sampled_from(["", "", "client_gone", "connect_failed"]),
    st.binary(min_size=16, max_size=16),
    st.booleans(),
    st.sampled_from([0, 1, 1_764_000_000_000_000_000]),
)


def told(form: ModuleType, observed: list[tuple[int, int, int, str, bytes, bool, int]]) -> tuple[object, ...]:
    """All there is to see, in its order."""
    made = form.Counts()
    for one in observed:
        made.observe(*one)
    kept = list(made.statuses().items()), list(made.faults().items())
    return (*kept, made.durations(), made.own(), made.exemplars(), repr(made))


@given(st.lists(requests, max_size=40))
@example([])
@example([(status, 1, 1, "", bytes(16), False, 0) for status in range(12)] * 2)
@example([(200, edge, edge, "", bytes([at] * 16), True, 5) for at, edge in enumerate(EDGES)])
@example([(200, edge, edge, "", bytes([at] * 16), True, 5) for at, edge in enumerate(reversed(EDGES))])
def test_any_requests_are_counted_alike(observed: list[tuple[int, int, int, str, bytes, bool, int]]) -> None:
    # Durations beyond what 64 bits hold in sum are no durations.
    bounded = [one for at, one in enumerate(observed) if one[1] < 1 << 60 or at < 4]
    bounded = [one for at, one in enumerate(bounded) if one[2] < 1 << 60 or at < 4]
    assert told(counts, bounded) == told(FORMS["python"], bounded)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_was_told_does_not_change_later(form: ModuleType) -> None:
    made = form.Counts()
    made.observe(200, 1, 1, "internal", b"t" * 16, True, 5)
    before = made.statuses(), made.faults(), made.durations(), made.own(), made.exemplars()
    made.observe(200, 1, 1, "internal", b"u" * 16, True, 6)
    assert before[:2] == ({200: 1}, {"internal": 1})
    assert before[4][0] == (b"t" * 16, 1, 5)
    assert made.exemplars()[0] == (b"u" * 16, 1, 6)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("parts", [None, b"", b"p" * 10_000])
def test_to_fetch_counters_changes_nothing(form: ModuleType, parts: bytes | None) -> None:
    made = form.Counts()
    made.observe(200, 1, 1, "internal", b"t" * 16, True, 5)
    before = repr(made), made.durations(), made.own(), made.exemplars()
    form.fetch(made, parts)
    assert (repr(made), made.durations(), made.own(), made.exemplars()) == before


@pytest.mark.skipif(not COMPILED, reason="of the compiled form, which copies ids into places of a fixed size")
@pytest.mark.parametrize("trace_id", [b"", b"t" * 15, b"t" * 17])
def test_an_id_of_another_size_is_refused(trace_id: bytes) -> None:
    made = counts.Counts()
    with pytest.raises(ValueError, match="16 bytes"):
        made.observe(200, 1, 1, "", trace_id, True, 0)
    made.observe(200, 1, 1, "", trace_id, False, 0)
    assert made.statuses() == {200: 2}, "the request counts, whatever its id"


@pytest.mark.skipif(not COMPILED, reason="of the compiled form, which has its memory to itself")
def test_counters_are_none_of_the_collector_s_business() -> None:
    assert not gc.is_tracked(counts.Counts())
