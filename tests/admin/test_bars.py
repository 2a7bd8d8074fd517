from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.bars import NOTHING, OWN, WAITING, bar, states, union


def test_own_time_is_heavy_and_waiting_is_light():
    assert bar((0, 100), [(20, 80)], (0, 100), 10) == "━━──────━━"


def test_half_cells_mark_the_exact_place():
    assert bar((15, 85), [(25, 75)], (0, 100), 10) == " ╺╾────╼╸ "
    assert bar((5, 100), [(5, 95)], (0, 100), 10) == "╶────────╼"


def test_waits_that_overlap_count_once_and_stay_within_the_span():
    assert bar((20, 80), [(0, 40), (30, 60), (70, 100)], (0, 100), 10) == "  ────━─  "


def test_the_shortest_span_is_still_visible_at_both_ends_of_the_scale():
    assert bar((0, 1), [], (0, 10**9), 10) == "╸         "
    assert bar((10**9 - 1, 10**9), [], (0, 10**9), 10) == "         ╺"
    assert bar((7, 7), [], (7, 7), 4).strip(" ") != ""


def test_a_span_outside_the_scale_is_drawn_at_its_edge():
    assert bar((200, 300), [], (0, 100), 5) == "    ╺"
    assert bar((-50, -10), [], (0, 100), 5) == "╸    "


def test_union_joins_and_cuts():
    assert union([(5, 9), (1, 3), (3, 4), (8, 20), (30, 30)], (2, 15)) == [(2, 4), (5, 15)]


moments = st.integers(0, 10**10)


@given(st.lists(st.tuples(moments, moments), max_size=12), st.tuples(moments, moments), st.integers(1, 120))
def test_every_step_within_the_span_is_drawn_and_none_outside(children, span, steps):
    start, end = sorted(span)
    scale = (0, 10**10)
    waits = union([(min(pair), max(pair)) for pair in children], (start, end))
    drawn = states((start, end), waits, scale, steps)
    assert len(drawn) == steps
    inked = [i for i, state in enumerate(drawn) if state != NOTHING]
    assert inked == list(range(inked[0], inked[-1] + 1))
    assert inked[0] == min(start * steps // 10**10, steps - 1)
    if waits == [(start, end)]:
        assert set(drawn[inked[0] : inked[-1] + 1]) == {WAITING}
    if not waits:
        assert set(drawn[inked[0] : inked[-1] + 1]) == {OWN}
