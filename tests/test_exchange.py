from __future__ import annotations

from tests.rig import GET, OK, rig


def test_a_request_is_relayed_and_recorded_once() -> None:
    with rig() as r:
        client, upstream = r.exchange(GET)
        assert client.take() == OK
        assert len(r.recorded) == 1
        r.check(at_rest=True)
