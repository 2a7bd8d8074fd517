from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.control.cluster.lag import GRAIN_NS, TRIGGER, Lag, lag_of
from proxy.control.cluster.wire import Head, ManagedFields

SECOND = 1_000_000_000
NOW = int(datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC).timestamp()) * SECOND


def head(**fields: Any) -> Head:
    return Head(name="web", **fields)


def written(*times: str) -> tuple[ManagedFields, ...]:
    return tuple(ManagedFields(time) for time in times)


def test_nothing_says_anything() -> None:
    assert lag_of("modified", head(), NOW) == Lag(-1, "")


def test_the_newest_write_counts() -> None:
    fields = written("2026-06-01T12:00:10Z", "2026-06-01T12:00:28Z", "2026-05-01T00:00:00Z")
    lag = lag_of("modified", head(managed_fields=fields, creation_timestamp="2026-01-01T00:00:00Z"), NOW)
    assert lag == Lag(2 * SECOND, "managedFields")


def test_what_is_added_was_created() -> None:
    made = head(creation_timestamp="2026-06-01T12:00:29Z")
    assert lag_of("added", made, NOW) == Lag(SECOND, "creationTimestamp")
    assert lag_of("modified", made, NOW) == Lag()


def test_what_is_deleted_says_when_if_it_lingered() -> None:
    gone = head(deletion_timestamp="2026-06-01T12:00:25Z", managed_fields=written("2026-06-01T12:00:01Z"))
    assert lag_of("deleted", gone, NOW) == Lag(5 * SECOND, "deletionTimestamp")
    assert lag_of("deleted", head(managed_fields=written("2026-06-01T12:00:01Z")), NOW) == Lag()


def test_the_endpoint_controllers_own_time_is_finer_but_only_when_it_is_new() -> None:
    trigger = "2026-06-01T12:00:29.750000001Z"
    piece = head(annotations={TRIGGER: trigger}, managed_fields=written("2026-06-01T12:00:29Z"))
    assert lag_of("modified", piece, NOW) == Lag(SECOND // 4, "last-change-trigger-time")
    assert lag_of("modified", piece, NOW, trigger) == Lag(SECOND, "managedFields")
    assert lag_of("deleted", piece, NOW) == Lag()


def test_a_second_is_the_grain_of_what_the_api_writes() -> None:
    """The write may have been anywhere in its second, so the true lag is at most one grain shorter."""
    early, late = NOW, NOW + GRAIN_NS - 1
    found = {lag_of("modified", head(managed_fields=written("2026-06-01T12:00:30Z")), at).ns for at in (early, late)}
    assert found == {0, GRAIN_NS - 1}


def test_clocks_that_disagree_make_no_negative_lag() -> None:
    assert lag_of("added", head(creation_timestamp="2026-06-01T13:00:00Z"), NOW) == Lag(0, "creationTimestamp")


@pytest.mark.parametrize("text", ["yesterday", "2026-06-01T12:00:10", "2026-99-01T00:00:00Z", "-1", " "])
def test_times_that_are_none_say_nothing(text: str) -> None:
    made = head(managed_fields=written(text), creation_timestamp=text, annotations={TRIGGER: text})
    assert lag_of("added", made, NOW) == Lag()
