"""Which interfaces a connection passes: by a file, by names, found out and remembered."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.layers import ways
from proxy.layers.find import Interface
from proxy.layers.ways import NoWay, Way, Ways

HERE = ipaddress.ip_address("10.0.0.1")
THERE = ipaddress.ip_address("10.0.0.2")
LO = Interface("lo", socket.if_nametoindex("lo"))


def test_a_file_names_the_way_of_each_network(tmp_path: Path) -> None:
    file = tmp_path / "places.yaml"
    file.write_text(
        "ways:\n  - {peers: [10.0.0.0/24], taps: [lo]}\n  - {peers: ['fd00::/8'], taps: [lo], between: []}\n"
    )
    look = ways.written(file)
    assert look.every() == (Way((LO,), ()),) * 2
    assert look(HERE, THERE) == Way((LO,), ())
    assert look(HERE, ipaddress.ip_address("fd00::1")) == Way((LO,), ())
    with pytest.raises(NoWay, match=r"no way to 192\.0\.2\.1: name its network under 'peers'"):
        look(HERE, ipaddress.ip_address("192.0.2.1"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a list of ways; write for example"),
        ("ways: []", "is not a list of ways"),
        ("ways: [{tap: lo}]", "way 1: takes 'taps'"),
        ("ways: [{taps: lo}]", "way 1: taps: is not a list of names"),
        ("ways: [{taps: []}]", "names 1 to 8 interfaces, each once"),
        ("ways: [{taps: [lo, lo], between: [x]}]", "names 1 to 8 interfaces, each once"),
        ("ways: [{taps: [lo], between: [x]}]", "1 taps have 0 places between them, and 'between' names 1"),
        ("ways: [{taps: [lo], peers: [10.0.0.1/8]}]", "peers: 10.0.0.1/8 has host bits set"),
        ("ways: [{taps: [no-such-0]}]", "way 1: there is no interface 'no-such-0' here; there are .*lo"),
        ("ways: [", "is not YAML"),
        ("ways: [{taps: [lo], to: x}]", "way 1: takes 'taps'"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "places.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=problem) as raised:
        ways.written(file)
    assert str(raised.value).startswith("--places: ")


def test_names_on_the_command_line() -> None:
    assert ways.named(["lo"])(HERE, THERE) == Way((LO,), ())
    with pytest.raises(SettingsError, match="--interfaces: there is no interface 'no-such-0' here"):
        ways.named(["lo", "no-such-0"])
    for names in (["lo", "lo"], ["lo"] * 9):
        with pytest.raises(SettingsError, match="--interfaces names 1 to 8 interfaces, each once"):
            ways.named(names)


class Looks:
    """A stand-in for finding out, with its calls."""

    def __init__(self, way: Way | None) -> None:
        self.way = way
        self.calls = 0

    def __call__(self, local: ways.Address, peer: ways.Address) -> Way:
        self.calls += 1
        if self.way is None:
            raise NoWay(f"nobody knows {peer}")
        return self.way


async def settle(known: Ways) -> None:
    while known._looking:
        await asyncio.sleep(0)


async def test_what_was_found_is_remembered_for_a_while() -> None:
    look, found = Looks(Way((LO,), ())), list[Way]()
    known = Ways(look, found.append, pytest.fail)
    now = asyncio.get_running_loop().time()
    assert known.of(HERE, THERE, now) is None
    assert known.of(HERE, THERE, now) is None
    await settle(known)
    assert known.of(HERE, THERE, now) == look.way
    assert (look.calls, found) == (1, [look.way])
    assert known.of(HERE, THERE, now + ways.KEPT_S + 1) == look.way  # and is looked for again meanwhile
    await settle(known)
    assert look.calls == 2


async def test_what_was_not_found_is_tried_again_sooner_and_said() -> None:
    look, said = Looks(None), list[str]()
    known = Ways(look, lambda way: pytest.fail(str(way)), said.append)
    now = asyncio.get_running_loop().time()
    for later in (0.0, 1.0, ways.RETRY_S + 1):
        assert known.of(HERE, THERE, now + later) is None
        await settle(known)
    assert (look.calls, said) == (2, ["nobody knows 10.0.0.2"] * 2)


async def test_a_way_is_kept_while_who_knows_it_does_not_answer() -> None:
    way = Way((LO,), ())
    answers: list[Way | NoWay] = [way]

    def look(*_: object) -> Way:
        if isinstance(answers[-1], NoWay):
            raise answers[-1]
        return answers[-1]

    said: list[str] = []
    known = Ways(look, lambda way: None, said.append)
    later = asyncio.get_running_loop().time() + ways.KEPT_S + 1

    async def looked() -> Way | None:
        known.of(HERE, THERE, later)
        await settle(known)
        return known.of(HERE, THERE, 0.0)

    assert await looked() == way
    answers.append(NoWay("is it stopped?", silent=True))
    assert await looked() == way
    known.forget("lo")  # its interface has gone
    assert await looked() is None
    answers.append(way)
    assert await looked() == way
    answers.append(NoWay("it has another now"))
    assert await looked() is None
    assert said == ["is it stopped?", "is it stopped?", "it has another now"]


async def test_an_interface_that_has_gone_takes_its_ways_with_it() -> None:
    look = Looks(Way((LO,), ()))
    known = Ways(look, lambda way: None, pytest.fail)
    now = asyncio.get_running_loop().time()
    known.of(HERE, THERE, now)
    await settle(known)
    known.forget("eth0")
    assert known.of(HERE, THERE, now) is not None
    known.forget("lo")
    assert known.of(HERE, THERE, now) is None
    known.close()


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "MOST", 10)
    known = Ways(Looks(Way((LO,), ())), lambda way: None, pytest.fail)
    now = asyncio.get_running_loop().time()
    for number in range(35):
        known.of(HERE, ipaddress.IPv4Address(number), now)
        await settle(known)
        assert len(known._found) <= 10


async def test_what_is_looked_for_at_a_time_is_bounded() -> None:
    look = Looks(Way((LO,), ()))
    known = Ways(look, lambda way: None, pytest.fail)
    now = asyncio.get_running_loop().time()
    for number in range(1000):
        known.of(HERE, ipaddress.IPv4Address(number), now)
    assert len(known._looking) == ways.MOST_LOOKING
    await settle(known)
    known.of(HERE, ipaddress.IPv4Address(999), now)
    await settle(known)
    assert look.calls == ways.MOST_LOOKING + 1


async def test_a_look_that_fails_is_not_repeated_at_once(caplog: pytest.LogCaptureFixture) -> None:
    calls, said = list[ways.Address](), list[str]()

    def look(local: ways.Address, peer: ways.Address) -> Way:
        calls.append(peer)
        raise KeyError("oif")

    known = Ways(look, lambda way: None, said.append)
    now = asyncio.get_running_loop().time()
    for _ in range(3):
        assert known.of(HERE, THERE, now) is None
        await settle(known)
    assert (len(calls), said) == (1, ["the way to 10.0.0.2 could not be looked for: KeyError('oif')"])
    assert "Traceback" in caplog.text
