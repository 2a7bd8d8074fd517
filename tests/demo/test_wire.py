"""The wire's spans for the demo: two collectors, of which one is the user's and may be anything."""

from __future__ import annotations

import pytest

from proxy.demo import wire
from proxy.demo.wire import Both
from proxy.layers import start
from proxy.settings import Settings, Tracing
from proxy.trace.batch import Body
from proxy.trace.transport import Outcome, Transport

ACCEPTED = Outcome("accepted", "200")
GONE = Outcome("retry", "503", text="not now")


class Told:
    """A collector that answers in turn."""

    protocol = "http/protobuf"

    def __init__(self, endpoint: str, *answers: Outcome) -> None:
        self.endpoint = endpoint
        self.answers = list(answers)
        self.calls: list[tuple[object, ...]] = []

    def send(self, body: Body, timeout: float) -> Outcome:
        self.calls.append((body, timeout))
        return self.answers.pop(0)

    def abort(self) -> None:
        self.calls.append(("abort",))

    def close(self) -> None:
        self.calls.append(("close",))


def test_the_user_is_told_once_of_what_the_waterfalls_have():
    near, further = Told("near", GONE, ACCEPTED), Told("further", ACCEPTED)
    both = Both(near, further)
    assert both.send(b"spans", 10.0) is GONE
    assert further.calls == [], "it will be tried again"
    assert both.send(b"spans", 10.0) is ACCEPTED
    assert further.calls == [(b"spans", wire.FURTHER_S)]
    assert (both.endpoint, both.protocol) == ("near", "http/protobuf")
    both.abort()
    both.close()
    assert near.calls[2:] == further.calls[1:] == [("abort",), ("close",)]


def test_a_collector_that_is_gone_is_named_once_and_holds_nothing_up(capsys):
    both = Both(Told("near", *[ACCEPTED] * 4), Told("further", GONE, GONE, ACCEPTED, GONE))
    assert [both.send(b"", 1.0).verdict for _ in range(4)] == ["accepted"] * 4
    assert capsys.readouterr().err.splitlines() == ["spanway: further has not taken the wire's spans: 503: not now"] * 2


@pytest.mark.parametrize("endpoint", ["", "none", "http://collector:4318"])
def test_what_the_process_is_told_is_what_it_runs_with(endpoint, tmp_path, monkeypatch):
    ran: list[tuple[Settings, str, str, str, Transport]] = []

    def run(*arguments) -> int:
        ran.append(arguments)
        return 0

    monkeypatch.setattr(start, "run", run)
    user = Tracing(endpoint=endpoint, protocol="http/protobuf", headers=(("authorization", "secret"),))
    environ = wire.told(tmp_path / "wire.sock", tmp_path / "places", "http://127.0.0.1:9901", user)
    assert wire.main(environ) == 0
    ((settings, interfaces, places, ports, transport),) = ran
    assert (settings.wire.socket, settings.admin) == (str(tmp_path / "wire.sock"), None)
    assert (interfaces, places, ports) == ("auto", str(tmp_path / "places"), "auto")
    assert (settings.tracing.endpoint, settings.tracing.headers) == ("http://127.0.0.1:9901", ())
    assert transport.endpoint.startswith("http://127.0.0.1:9901")
    assert isinstance(transport, Both) == (endpoint not in {"", "none"})
    if isinstance(transport, Both):
        assert "http://collector:4318" in repr(transport)
        assert "secret" not in repr(transport)
