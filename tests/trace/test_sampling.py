from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import SettingsError
from proxy.trace import ids
from proxy.trace.sampling import NAMES, Sampler, threshold
from proxy.trace.w3c import parse_tracestate
from tests.trace.strategies import trace_ids

ON, OFF = 1, 0
LOW, HIGH = b"\x11" * 9 + bytes(7), b"\x11" * 9 + b"\xff" * 7  # no and all 56 bits set
RATIOS = st.floats(0, 1, allow_nan=False)


# Which sampler decides what


@pytest.mark.parametrize(
    ("name", "argument", "parent", "route", "decision"),
    [
        ("always_on", 0.0, None, None, True),
        ("always_on", 0.0, OFF, None, True),
        ("always_off", 1.0, None, None, False),
        ("always_off", 1.0, ON, None, False),
        ("traceidratio", 1.0, OFF, None, True),
        ("traceidratio", 0.0, ON, None, False),
        ("parentbased_always_on", 0.0, None, None, True),
        ("parentbased_always_on", 0.0, OFF, None, False),
        ("parentbased_always_on", 0.0, ON, None, True),
        ("parentbased_always_off", 1.0, None, None, False),
        ("parentbased_always_off", 1.0, ON, None, True),
        ("parentbased_traceidratio", 0.0, None, None, False),
        ("parentbased_traceidratio", 1.0, None, None, True),
        ("parentbased_traceidratio", 0.0, ON, None, True),
        ("parentbased_traceidratio", 1.0, OFF, None, False),
        # A parent's decision goes before the route's ratio, the route's before the sampler.
        ("parentbased_always_on", 0.0, ON, 0.0, True),
        ("parentbased_always_on", 0.0, OFF, 1.0, False),
        ("parentbased_always_on", 0.0, None, 0.0, False),
        ("parentbased_always_off", 1.0, None, 1.0, True),
        ("parentbased_traceidratio", 0.0, None, 1.0, True),
        ("always_on", 1.0, ON, 0.0, False),
        ("always_off", 0.0, OFF, 1.0, True),
        ("traceidratio", 1.0, None, 0.0, False),
    ],
)
def test_precedence(name: str, argument: float, parent: int | None, route: float | None, decision: bool) -> None:
    sampler = Sampler(name, argument)
    assert [sampler.decide(trace_id, parent, route) for trace_id in (LOW, HIGH)] == [decision, decision]


def test_only_the_sampled_bit_of_a_parent_counts() -> None:
    sampler = Sampler("parentbased_always_off")
    assert [sampler.decide(LOW, flags) for flags in (0, 1, 2, 3, 0x100, 0x101)] == [
        False,
        True,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("name", ["", "on", "parentbased", "jaeger_remote", "ALWAYS_ON"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Sampler(name)
    assert repr(name) in str(raised.value)
    assert all(known in str(raised.value) for known in NAMES)


@pytest.mark.parametrize("argument", [-0.1, 1.1, float("nan"), float("inf")])
def test_no_ratio(argument: float) -> None:
    with pytest.raises(SettingsError, match="OTEL_TRACES_SAMPLER_ARG"):
        Sampler("traceidratio", argument)


# Ratios


@pytest.mark.parametrize(
    ("ratio", "th"),
    [
        # The table of the specification, at its default precision.
        (1, "0"),
        (1 / 2, "8"),
        (1 / 3, "aaab"),
        (1 / 4, "c"),
        (1 / 5, "cccd"),
        (1 / 8, "e"),
        (1 / 10, "e666"),
        (1 / 16, "f"),
        (1 / 100, "fd70a"),
        (1 / 1000, "ffbe77"),
        (1 / 10000, "fff9724"),
        (1 / 100000, "ffff583a"),
        (1 / 1000000, "ffffef39"),
        (2**-56, "f" * 14),
    ],
)
def test_threshold(ratio: float, th: str) -> None:
    assert threshold(ratio) == int(th.ljust(14, "0"), 16)
    state = Sampler("traceidratio", ratio).state(HIGH)
    assert state == (b"" if ratio == 1 else b"ot=th:" + th.encode())


@given(RATIOS)
def test_a_threshold_keeps_the_ratio(ratio: float) -> None:
    kept = ((1 << 56) - threshold(ratio)) / (1 << 56)
    assert kept == pytest.approx(ratio, rel=2**-12, abs=2**-17)
    assert (threshold(ratio) == 1 << 56) == (ratio < 2**-57 or ratio == 2**-57)


@given(RATIOS, RATIOS, trace_ids)
def test_what_a_lower_ratio_keeps_a_higher_one_keeps_too(one: float, other: float, trace_id: bytes) -> None:
    low, high = sorted((one, other))
    assert Sampler("traceidratio", low).decide(trace_id) <= Sampler("traceidratio", high).decide(trace_id)
    assert Sampler("always_on").decide(trace_id, None, low) == Sampler("traceidratio", low).decide(trace_id)


@pytest.mark.parametrize("ratio", [0.01, 0.1, 1 / 3, 0.5, 0.9, 0.99])
def test_over_many_traces_the_ratio_holds(ratio: float) -> None:
    sampler = Sampler("parentbased_traceidratio", ratio)
    count = 40_000
    kept = sum(sampler.decide(ids.trace_id()) for _ in range(count))
    spread = (count * ratio * (1 - ratio)) ** 0.5
    assert abs(kept - count * ratio) < 6 * spread  # wrong once in 500 million runs


@given(trace_ids, RATIOS)
def test_only_the_last_seven_bytes_count(trace_id: bytes, ratio: float) -> None:
    sampler = Sampler("traceidratio", ratio)
    assert sampler.decide(trace_id) == sampler.decide(b"\x77" * 9 + trace_id[9:])


# tracestate: ot=th and ot=rv


def test_rv_replaces_the_trace_id() -> None:
    sampler = Sampler("traceidratio", 0.5)
    assert not sampler.decide(LOW)
    assert sampler.decide(LOW, None, None, b"foo=1,ot=rv:ffffffffffffff")
    assert not sampler.decide(HIGH, None, None, b"ot=th:0;rv:7fffffffffffff")
    assert sampler.decide(HIGH, None, None, b"ot=rv:80000000000000")
    assert sampler.decide(LOW, None, 0.001, b"ot=rv:fffFFfffffffff")


@pytest.mark.parametrize(
    "state",
    [b"ot=rv:ff", b"ot=rv:fffffffffffffff", b"ot=rv:zzzzzzzzzzzzzz", b"ot=rv", b"ott=rv:ffffffffffffff", b"o=1"],
)
def test_what_is_no_rv_does_not_count(state: bytes) -> None:
    assert not Sampler("traceidratio", 0.5).decide(LOW, None, None, state)


@pytest.mark.parametrize(
    ("state", "changed"),
    [
        (b"", b"ot=th:8"),
        (b"foo=1", b"ot=th:8,foo=1"),
        (b"foo=1,ot=th:c,bar=2", b"ot=th:8,foo=1,bar=2"),
        (b"foo=1,ot=rv:ffffffffffffff;th:c;x:y", b"ot=rv:ffffffffffffff;x:y;th:8,foo=1"),
        (b"ot=" + b"x:" + b"y" * 250, b"ot=x:" + b"y" * 250),  # no room: 256 bytes a value
        (b",".join(b"k%02d=1" % n for n in range(32)), b"ot=th:8," + b",".join(b"k%02d=1" % n for n in range(31))),
    ],
)
def test_our_decision_writes_its_threshold(state: bytes, changed: bytes) -> None:
    sampler = Sampler("traceidratio", 0.5)
    assert sampler.state(HIGH, None, None, state) == changed
    assert sampler.state(HIGH, ON, None, state) == changed
    assert Sampler("parentbased_always_on").state(HIGH, None, 0.5, state) == changed


def test_everything_is_a_threshold_of_zero_only_where_one_stands() -> None:
    sampler = Sampler("always_on")
    assert sampler.state(HIGH) == b""
    assert sampler.state(HIGH, ON, None, b"foo=1") == b"foo=1"
    assert sampler.state(HIGH, ON, None, b"foo=1,ot=th:8") == b"ot=th:0,foo=1"


@pytest.mark.parametrize(
    ("trace_id", "state", "kept"),
    [
        (HIGH, b"", b""),
        (HIGH, b"foo=1", b"foo=1"),
        (HIGH, b"foo=1,ot=th:8", b"foo=1,ot=th:8"),
        (HIGH, b"ot=th:0", b"ot=th:0"),
        (LOW, b"ot=th:0", b"ot=th:0"),
        (LOW, b"foo=1,ot=rv:ffffffffffffff;th:8", b"foo=1,ot=rv:ffffffffffffff;th:8"),
        # Not sampled by that threshold: it would be counted wrongly.
        (LOW, b"foo=1,ot=th:8", b"foo=1"),
        (HIGH, b"ot=rv:00000000000000;th:8", b"ot=rv:00000000000000"),
        (HIGH, b"ot=th:xyz", b""),
        (HIGH, b"ot=th:", b""),
    ],
)
def test_a_parent_s_decision_keeps_the_parent_s_threshold(trace_id: bytes, state: bytes, kept: bytes) -> None:
    assert Sampler("parentbased_traceidratio", 0.1).state(trace_id, ON, 0.2, state) == kept


_subs = st.lists(st.sampled_from([b"th:8", b"th:", b"rv:ffffffffffffff", b"rv:1", b"x:y", b"x", b""]), max_size=4).map(
    b";".join
)
_states = st.lists(st.one_of(_subs.map(b"ot=".__add__), st.sampled_from([b"foo=1", b"bar=2"])), max_size=3).map(
    lambda members: parse_tracestate(b",".join(members))
)


@given(st.sampled_from(NAMES), RATIOS, trace_ids, st.sampled_from([None, 0, 1, 3]), st.none() | RATIOS, _states)
def test_what_goes_on_is_valid_and_keeps_the_others(name, argument, trace_id, parent, route, state) -> None:
    sampler = Sampler(name, argument)
    sampler.decide(trace_id, parent, route, state)
    changed = sampler.state(trace_id, parent, route, state)
    assert parse_tracestate(changed) == changed
    of_others = [
        [member for member in each.split(b",") if member and not member.startswith(b"ot=")] for each in (state, changed)
    ]
    assert of_others[0] == of_others[1]


def test_remembered_ratios_are_bounded() -> None:
    sampler = Sampler("always_on")
    for number in range(3_000):
        sampler.decide(LOW, None, number / 3_000)
    assert 0 < len(sampler._by_ratio) <= 1024


def test_repr() -> None:
    assert repr(Sampler("traceidratio", 0.25)) == "Sampler(traceidratio, 0.25)"
    assert repr(Sampler("always_off")) == "Sampler(always_off, 0)"
