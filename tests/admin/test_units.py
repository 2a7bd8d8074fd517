import pytest

from proxy.admin.units import count, duration, share


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 µs"),
        (400, "0.4 µs"),
        (9_940, "9.9 µs"),
        (9_960, "10 µs"),
        (850_000, "850 µs"),
        (999_499, "999 µs"),
        (999_500, "1.00 ms"),
        (9_994_000, "9.99 ms"),
        (9_995_000, "10.0 ms"),
        (99_949_000, "99.9 ms"),
        (99_950_000, "100 ms"),
        (999_600_000, "1.00 s"),
        (1_840_000_000, "1.84 s"),
        (65_000_000_000, "65.0 s"),
        (125_000_000_000, "2 m 05 s"),
    ],
)
def test_durations_keep_three_digits_across_every_border(ns, text):
    assert duration(ns) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 5, "0 %"), (1, 0, "0 %"), (1, 1000, "<1 %"), (999, 1000, ">99 %"), (5, 5, "100 %"), (7, 9, "78 %")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(part, whole, text):
    assert share(part, whole) == text


def test_counts_agree_with_their_noun():
    assert count(1, "span") == "1 span"
    assert count(12_400, "request") == "12,400 requests"
    assert count(2, "reply", "replies") == "2 replies"
