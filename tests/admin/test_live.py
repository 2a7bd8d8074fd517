"""What is drawn, when, and what is said of the rest; the clock is the test's."""

import asyncio
import io
import sys
from types import SimpleNamespace
from typing import cast

from rich.console import Console

from proxy.admin import live as module
from proxy.admin.gather import QUIET_S, Gatherer
from proxy.admin.live import PATIENCE_S, REMARK_S, Live
from proxy.admin.source import Cursor, Running, Source
from proxy.settings import Address
from proxy.trace.ring import Ring
from tests.admin.spans import TRACE, batch, checkout, plain, request, span

DONE = QUIET_S + 0.1


class Recent:
    """A source that only has spans, which is all that is asked for."""

    def __init__(self, limit=1 << 24):
        self.ring = Ring(limit)

    def add(self, *batches):
        for each in batches:
            assert self.ring.add(each)

    async def batches_since(self, cursor):
        position, batches = self.ring.since(cursor.positions.get("1", 0))
        return Cursor({"1": position}), batches


def screen(**options):
    source = Recent()
    out = io.StringIO()
    console = Console(file=out, width=100, no_color=True)
    told = []
    live = Live(
        cast("Source", source),
        console,
        on_trace=lambda trace, stands_for: told.append((trace.trace_id, stands_for)),
        **options,
    )
    return live, source, out, told


def numbered(number, digits="f"):
    return f"{digits}{number:0{32 - len(digits)}x}"


def drawn(out):
    return [line.split()[-1] for line in out.getvalue().splitlines() if " trace " in line and "─" in line]


async def test_a_trace_is_drawn_once_when_it_is_complete():
    live, source, out, told = screen()
    proxy, shop, cart, stock = checkout()
    source.add(shop, cart)
    await live.step(0.0)
    source.add(proxy, stock)
    await live.step(1.0)
    assert out.getvalue() == ""
    await live.step(1.0 + DONE)
    await live.step(20.0)
    assert drawn(out) == [TRACE]
    assert "where the time went: stock" in out.getvalue()
    assert told == [(TRACE, 1)]


async def test_of_a_burst_all_are_drawn_and_of_a_flood_the_worst():
    live, source, out, told = screen(every=1.0, burst=3)
    source.add(*(plain(numbered(n), ms=5 + n) for n in range(3)))
    await live.step(0.0)
    await live.step(DONE)
    assert len(drawn(out)) == 3
    # Now forty at once: one failed, one very slow. There is a place for one in this second, and one in the next.
    source.add(*(plain(numbered(n), ms=5) for n in range(10, 48)))
    source.add(plain(numbered(50), status=503, ms=1), plain(numbered(51), ms=900))
    await live.step(DONE + 0.1)
    await live.step(2 * DONE + 0.1 - 1.0)  # its tokens are not back yet
    for tenth in range(40):
        await live.step(2 * DONE + 0.1 + tenth / 10)
    shown = drawn(out)[3:]
    assert shown[:2] == [numbered(50), numbered(51)]
    assert len(shown) < 10
    assert len(told) == 43


async def test_what_is_chosen_by_interest_is_drawn_in_the_order_of_its_start():
    live, source, out, _ = screen(burst=2)
    where = {"url__path": "/", "server__address": "localhost"}

    def at(number, start, status):
        served = span(1, 0, "GET /", start, start + 5, "SERVER", **request("GET", status, **where))
        return batch("spanway", served, trace=numbered(number))

    source.add(at(1, 0, 200), at(3, 200, 200), at(2, 100, 503))
    await live.step(0.0)
    assert live.growing == 3
    await live.step(DONE)
    assert live.growing == 0
    assert drawn(out) == [numbered(1), numbered(2)]


async def test_what_is_left_out_is_counted_with_its_worst():
    live, source, out, _ = screen(every=100.0, burst=1, more="http://127.0.0.1:9901/traces")
    source.add(plain(numbered(1)), *(plain(numbered(n), ms=n) for n in range(2, 12)), plain(numbered(20), status=500))
    await live.step(0.0)
    await live.step(DONE)
    assert drawn(out) == [numbered(20)]
    await live.step(DONE + PATIENCE_S + 0.01)
    text = out.getvalue()
    assert "… 11 more traces not drawn (slowest GET localhost/ 11.0 ms): http://127.0.0.1:9901/traces" in text
    source.add(*(plain(numbered(n), status=500) for n in range(30, 33)))
    await live.step(DONE + PATIENCE_S + 0.1)
    for second in range(12):
        await live.step(DONE + PATIENCE_S + 0.2 + second)
    assert out.getvalue().count("not drawn") == 2
    assert "… 3 more traces not drawn (3 failed" in out.getvalue()


async def test_no_more_than_one_remark_in_a_while():
    live, source, out, _ = screen(every=1000.0, burst=1)
    clock = 0.0
    for n in range(100):
        source.add(plain(numbered(n)))
        clock = n * 0.2
        await live.step(clock)
    assert out.getvalue().count("not drawn") <= clock / REMARK_S + 1


async def test_what_has_been_seen_gives_way_to_what_has_not():
    live, source, out, _ = screen(every=10.0, burst=1)

    def other(number):
        where = {"url__path": "/other", "server__address": "localhost"}
        return batch(
            "spanway", span(1, 0, "GET /other", 0, 4, "SERVER", **request("GET", 200, **where)), trace=numbered(number)
        )

    source.add(plain(numbered(1), ms=5))
    await live.step(0.0)
    await live.step(DONE)
    source.add(plain(numbered(2), ms=5), other(3))
    await live.step(10.0)
    await live.step(10.0 + DONE)
    assert drawn(out) == [numbered(1), numbered(3)]


async def test_under_heavy_traffic_whole_traces_are_chosen_by_their_id(monkeypatch):
    monkeypatch.setattr(module, "BUDGET", 2000)
    live, source, _, told = screen(burst=1000)
    for second in range(3):  # too much at once; then a sixteenth of it
        source.add(*(plain(numbered(second * 16 + n, f"{n:x}")) for n in range(16)))
        await live.step(float(second))
    await live.step(3.0 + DONE)
    first = [(trace_id, stands) for trace_id, stands in told if trace_id[0] != "0"]
    assert len(first) == 15, "the first poll is decoded whole"
    chosen = [trace_id for trace_id, _ in told if trace_id[0] == "0"]
    assert len(chosen) == 3
    assert dict(told)[chosen[-1]] == 16


async def test_after_the_rush_everything_is_decoded_again(monkeypatch):
    monkeypatch.setattr(module, "BUDGET", 2000)
    live, source, _, told = screen()
    source.add(*(plain(numbered(n, "a")) for n in range(16)))
    await live.step(0.0)
    for poll in range(1, 60):
        await live.step(poll * module.POLL_S)
    told.clear()
    source.add(plain(numbered(99, "b")))
    await live.step(30.0)
    await live.step(30.0 + DONE)
    assert told == [(numbered(99, "b"), 1)]


async def test_run_draws_only_what_happens_from_now_on(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.001)
    live, source, out, told = screen(gatherer=Gatherer(quiet=0.0))
    source.add(plain(numbered(1)))
    running = asyncio.create_task(live.run())
    await asyncio.sleep(0.02)
    source.add(plain(numbered(2)))
    while not told:
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert drawn(out) == [numbered(2)]


async def test_finish_accounts_for_what_is_not_complete():
    live, source, out, told = screen()
    source.add(checkout()[1])
    await live.step(0.0)
    live.finish()
    assert told == [(TRACE, 1)]
    assert out.getvalue() == ""


async def test_the_companion_draws_on_standard_output_whatever_that_can_show(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    monkeypatch.setattr(module, "POLL_S", 0.001)
    monkeypatch.setattr(module, "Gatherer", lambda: Gatherer(quiet=0.0))
    source = Recent()
    running = SimpleNamespace(source=source, admin=Address("127.0.0.1", 9901))
    drawing = asyncio.create_task(module.waterfalls(cast("Running", running)))
    await asyncio.sleep(0.02)
    source.add(*checkout())
    while b"where the time went" not in raw.getvalue():
        assert not drawing.done()
        await asyncio.sleep(0.01)
    drawing.cancel()
    await asyncio.gather(drawing, return_exceptions=True)
    assert b"POST > shop" in raw.getvalue()
    assert b"\x1b" not in raw.getvalue()
