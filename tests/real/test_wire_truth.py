"""What boxes log, told as the time that each place had a request's frames: from frames made by hand."""

from __future__ import annotations

from proxy.demo.lab.box import Event
from tests.real.wire_truth import BACKEND, LINK_APP, LINK_PROXY, PROXY, SWITCH, Truth

PORT, MS = 40_000, 1_000_000
START, END = 0, 50 * MS


class Logs:
    """Two boxes; `frame` has one pass both."""

    def __init__(self) -> None:
        self.near: list[Event] = []
        self.far: list[Event] = []
        self.count = 0

    def frame(
        self, up: bool, near: tuple[int, int], far: tuple[int, int], sequence: int = 0, length: int = 100
    ) -> None:
        """``near`` and ``far``: from when until when a box had it, ms; (0, 0): never; until 0: it was lost."""
        self.count += 1
        source, destination = (PORT, 80) if up else (80, PORT)
        head = b"%d" % self.count
        for log, (since, until), away in ((self.near, near, "right"), (self.far, far, "left")):
            if since:
                toward = away if up else {"left": "right", "right": "left"}[away]
                stamps = since * MS, (until or since) * MS, until * MS
                act = "pass" if until else "drop"
                log.append(Event(*stamps, act, toward, "a", source, "b", destination, sequence, length, head))

    def held(self) -> dict[str, int]:
        truth = Truth(self.near, self.far)
        places = (PROXY, LINK_PROXY, SWITCH, LINK_APP, BACKEND)
        return {place: truth.held_ns(place, PORT, START, END) // MS for place in places}

    def lost(self) -> dict[str, int]:
        truth = Truth(self.near, self.far)
        found = {place: truth.lost_ns(place, PORT, START, END) // MS for place in (LINK_PROXY, SWITCH, LINK_APP)}
        return {place: ms for place, ms in found.items() if ms}


def test_each_place_has_what_is_between_its_logs() -> None:
    logs = Logs()
    logs.frame(True, (2, 3), (7, 9))
    logs.frame(False, (30, 31), (20, 25))
    assert logs.held() == {PROXY: 2 + 19, LINK_PROXY: 1 + 1, SWITCH: 4 + 5, LINK_APP: 2 + 5, BACKEND: 11}
    assert logs.lost() == {}


def test_what_is_held_at_once_counts_once_and_what_is_anothers_not_at_all() -> None:
    logs = Logs()
    logs.frame(True, (1, 5), (6, 7))
    logs.frame(True, (2, 4), (8, 9), sequence=100)
    logs.frame(True, (3, 6), (8, 9), sequence=200)
    assert logs.held()[LINK_PROXY] == 5
    assert Truth(logs.near, logs.far).held_ns(LINK_PROXY, PORT + 1, START, END) == 0
    assert Truth(logs.near, logs.far).held_ns(LINK_PROXY, PORT, 4 * MS, 5 * MS) == MS


def test_a_backend_works_from_the_last_byte_of_the_request_however_often_it_is_sent() -> None:
    logs = Logs()
    logs.frame(True, (1, 2), (3, 4), sequence=1000)
    logs.frame(True, (15, 16), (17, 18), sequence=1050, length=50)
    logs.frame(False, (26, 27), (24, 25))
    assert logs.held()[BACKEND] == 24 - 4


def test_a_frame_is_lost_where_it_went_in_and_did_not_come_out() -> None:
    for place, near, far in ((LINK_PROXY, (2, 0), (0, 0)), (SWITCH, (2, 3), (0, 0)), (LINK_APP, (2, 3), (4, 0))):
        logs = Logs()
        logs.frame(True, near, far, sequence=1000)
        logs.frame(True, (5, 6), (7, 8), sequence=1100)
        assert set(logs.lost()) == {place}
        assert 46 <= logs.lost()[place] <= 48, "until the end: it did not come again"
        logs.frame(True, (20, 21), (22, 23), sequence=950, length=100)  # has its first byte, among others
        assert set(logs.lost()) == {place}
        assert 18 <= logs.lost()[place] <= 19
        assert Truth(logs.near, logs.far).lost_ns(place, PORT, 5 * MS, END) == 0
