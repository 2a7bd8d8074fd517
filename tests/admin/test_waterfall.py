"""What the terminal shows, as text: wide, narrow, without Unicode, and for traces that are not as they should be."""

import io
import re

import pytest
from rich.console import Console

from proxy.admin.columns import Palette
from proxy.admin.waterfall import Waterfall
from proxy.trace.tree import assemble
from proxy.trace.view import decode
from tests.admin.spans import TRACE, batch, checkout, plain, request, span


def draw(*batches, width=100, encoding="utf-8", color=None, most=48):
    (trace,) = assemble(decode(batches))
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(
        file=out,
        width=width,
        color_system=color,
        force_terminal=color is not None,
        no_color=color is None,
        highlight=False,
    )
    console.print(Waterfall(trace, Palette(), most))
    out.flush()
    return raw.getvalue().decode(encoding)


WIDE = """\
POST shop.localhost/checkout  500  612 ms ─────────────────── trace 4bf92f3577b34da6a3ce929d0e0e4736
━ own time ─ waiting                            0           200 ms       400 ms      600 ms
spanway  POST /                                 ──────────────────────────────────────   612 ms  500
         │ demo/shop · admit 61 µs · route 4 µs · self 173 µs
spanway  └ POST → shop                          ──────────────────────────────────────   612 ms  500
           │ 127.0.0.1:41234 · connect 212 µs · wait 611 ms · relay 88 µs
shop       └ POST /checkout                     ──────────────────────────────────────   610 ms  500
shop         ├ GET → cart                       ╸                                       4.60 ms  200
cart         │ └ GET /api/cart/{user}           ╸                                       2.00 ms  200
shop         ├ POST → stock                     ╾───────────────────────────────         504 ms  201
stock        │ └ POST /api/stock/{item}/reser…  ╶───────────────────────────────         502 ms  201
stock        │   ├ wait for shelf lock          ╺━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸         490 ms
stock        │   └ UPDATE item                                                 ━        10.3 ms
shop         ├ POST → stock                     ╶─────                                  87.7 ms  201
stock        │ └ POST /api/stock/{item}/reser…  ╶─────                                  85.0 ms  201
stock        │   └ UPDATE item                  ╺━━━━━                                  83.4 ms
shop         └ charge card                                                     ╺━━━━━━  95.0 ms  ERR
                 ✗ PaymentFailed: the bank did not answer in time
▸ where the time went: stock · wait for shelf lock  490 ms of 612 ms (80 %)
  stock 82 % · shop 16 % · between services 1 % · cart <1 % · spanway <1 %
"""

ASCII = """\
GET localhost/  200  4.20 ms
trace 4bf92f3577b34da6a3ce929d0e0e4736
= own time - waiting        0        2 ms    4 ms
spanway  GET /              =----------------=  4.20 ms  200
         | self 140 us
spanway  ` GET > 127.0.0.~  ==================  4.00 ms  200
             reused connection - wait 3.70 ms
> where the time went: upstream 127.0.0.1:3000  4.00 ms of ~
  upstream 127.0.0.1:3000 95 % - spanway 5 %
"""


def test_the_head_says_the_time_of_the_answer_also_where_work_goes_on_after_it():
    where = {"url__path": "/", "server__address": "localhost"}
    served = span(1, 0, "GET /", 0, 10, "SERVER", **request("GET", 200, **where))
    later = span(2, 1, "send mail", 5, 40)
    lines = draw(batch("spanway", served), batch("shop", later)).splitlines()
    assert lines[0].startswith("GET localhost/  200  10.0 ms ")
    assert re.search("^spanway .* 10.0 ms  200$", lines[2])
    assert "of the trace's 40.0 ms (" in "\n".join(lines)


def test_a_checkout_that_failed():
    assert draw(*checkout(failed=True)) == WIDE


def test_narrow_and_ascii():
    assert draw(plain(), width=60, encoding="ascii") == ASCII


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200, 400])
def test_nothing_is_wider_than_the_terminal_and_the_trace_id_is_whole(width):
    text = draw(*checkout(failed=True), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert TRACE in text
    lines = [line for line in text.splitlines() if re.search(r"(spanway|shop|cart|stock) .*\d [mµ]?s( |$)", line)]
    ends = {len(re.sub(r"(.*\d [mµ]?s).*", r"\1", line)) for line in lines if not line.startswith(("▸", "  ", "POST"))}
    assert len(ends) == 1, "the times stand in one column"


def test_colours_tell_services_and_errors_apart():
    text = draw(*checkout(failed=True), color="standard")
    assert "\x1b[1;36mspanway" in text
    assert "\x1b[32mshop" in text
    assert "\x1b[35mcart" in text
    assert "\x1b[1;31mcharge card" in text
    assert draw(*checkout(failed=True)).count("\x1b") == 0


def test_a_service_keeps_its_colour_over_traces():
    palette = Palette()
    (first,) = assemble(decode(checkout()))
    styles = {node.span.service: palette.of(node.span) for node in first.nodes}
    assert len(set(map(str, styles.values()))) == 4
    assert all(palette.of(node.span) == styles[node.span.service] for node in reversed(first.nodes))


def test_a_retry_and_why():
    first = {"http__request__method": "GET", "server__address": "10.0.0.1", "server__port": 80}
    second = {**first, "server__address": "10.0.0.2", "http__request__resend_count": 1}
    where = {"url__path": "/a", "server__address": "h.test"}
    text = draw(
        batch(
            "spanway",
            span(1, 0, "GET /a", 0, 5030, "SERVER", "connect_timeout", **request("GET", 504, **where)),
            span(2, 1, "GET", 0.1, 0.4, "CLIENT", "connect_failed", **first),
            span(3, 1, "GET", 0.5, 5029, "CLIENT", "connect_timeout", **second),
        )
    )
    assert "├ GET → 10.0.0.1:80" in text
    assert "✗ connect_failed: The upstream refused the connection." in text
    assert "└ GET → 10.0.0.2:80" in text
    assert "retry 1" in text
    assert text.count("✗ connect_timeout") == 1, "a failure that passes upward is said once"
    assert "where the time went: upstream 10.0.0.2:80" in text


def test_a_request_the_proxy_answered_itself_is_short():
    text = draw(
        batch(
            "spanway",
            span(
                1,
                0,
                "GET",
                0,
                0.08,
                "SERVER",
                "no_route",
                **request("GET", 404, url__path="/", server__address="x.test"),
            ),
        )
    )
    assert "✗ no_route: No Ingress rule matches this host and path." in text
    assert "where the time went" not in text
    assert len(text.splitlines()) == 4


def test_a_long_trace_is_cut_and_says_so():
    spans = [span(1, 0, "root", 0, 100), *(span(n, 1, f"step {n}", n, n + 1) for n in range(2, 90))]
    text = draw(batch("app", *spans), most=10)
    assert "step 10" in text
    assert "step 11" not in text
    assert f"… 79 more spans: see /traces/{TRACE}" in text


def test_a_tree_deeper_than_the_terminal_is_wide():
    spans = [span(n + 1, n, f"level {n}", n, 200 - n) for n in range(45)]
    text = draw(batch("app", *spans), width=80)
    assert "level 44" in text
    assert max(map(len, text.splitlines())) <= 80


def test_spans_whose_parent_is_not_there_and_links_are_marked():
    text = draw(
        batch("spanway", span(1, 0, "GET /", 0, 9, "SERVER", links=["ab" * 16])),
        batch("app", span(5, 4, "lost", 2, 3)),
    )
    assert f"→ linked to the caller's own trace {'ab' * 16}" in text
    assert "(the span above it is not here)" in text


def test_times_that_make_no_sense_are_drawn_all_the_same():
    text = draw(
        batch("app", span(1, 0, "backwards", 50, 10), span(2, 1, "before", 0, 5), span(3, 1, "after", 500, 900))
    )
    assert all(name in text for name in ("backwards", "before", "after"))
    assert draw(batch("app", span(1, 0, "instant", 5, 5))).splitlines()[1].endswith("0")


def test_nothing_in_a_trace_reaches_the_terminal_as_a_command():
    evil = "\x1b]0;owned\x07[bold]x[/bold]"
    text = draw(batch(evil, span(1, 0, evil, 0, 5, "SERVER", evil, (evil, evil), **request(evil, 500, url__path=evil))))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]x[/bold]" in text, "markup is text"


def wired(split, *places, number=20, client=2, start=0.2, end=3.9, **said):
    """What `spanway wire` adds to `plain`: the split of an attempt, and a span per place that mattered."""
    names = {f"spanway__{key}": value for key, value in said.items()}
    return batch(
        "spanway-wire",
        span(number, client, "wire", start, end, spanway__wire__split=split, **names),
        *(
            span(number + i, number, name, begin, finish, spanway__wire__place=name)
            for i, (name, begin, finish) in enumerate(places, 1)
        ),
    )


SPLIT = "proxy send 12.0 us | ovs br0 > 61.0 us | backend 3.55 ms | ovs br0 < 64.0 us | proxy receive 21.0 us"


def test_the_wire_has_its_split_and_its_verdict():
    said = {
        "wait__verdict": "application",
        "wait__place": "backend",
        "wait__excess__us": 2500,
        "wire__lost__bytes": 1448,
        "wire__lost__at": "ovs br0",
        "wire__incomplete": True,
    }
    drawn = draw(plain(), wired(SPLIT, ("backend", 0.3, 3.8), **said), width=140)
    assert re.search(r"spanway-wire +└ wire +[╶╺╾─━╸╼╴]+ +3.70 ms\n", drawn)
    assert (
        "proxy send 12.0 µs | ovs br0 > 61.0 µs | backend 3.55 ms | ovs br0 < 64.0 µs | proxy receive 21.0 µs\n"
        in drawn
    )
    assert "verdict: application (backend) · 2.50 ms beyond the usual · 1448 bytes lost at ovs br0 · a tap" in drawn
    assert "where the time went: wire: backend" in drawn


def test_the_wire_takes_no_time_from_whoever_says_what_it_did():
    shop = batch("shop", span(3, 2, "GET /", 0.5, 3.5, "SERVER", **request("GET", 200)))
    drawn = draw(plain(), shop, wired(SPLIT, ("backend", 0.3, 3.8)), width=140)
    assert "where the time went: shop" in drawn
    assert "wire" not in drawn.rpartition("where the time went")[2]


def test_what_the_service_leaves_is_the_wires_and_the_backends_share_is_the_services():
    shop = batch("shop", span(3, 2, "GET /", 0.5, 1.5, "SERVER", **request("GET", 200)))
    drawn = draw(plain(), shop, wired(SPLIT, ("backend", 0.3, 2.0), ("ovs br0", 2.0, 3.8)), width=140)
    where = drawn.rpartition("where the time went")[2]
    assert where.startswith(": wire: ovs br0  1.80 ms")
    assert "wire: ovs br0 43 % · shop 40 % · between services" in where
    assert "backend" not in where


def test_a_split_that_says_nothing_else():
    drawn = draw(plain(), wired("proxy 1.0 us"))
    assert "proxy 1.0 µs" in drawn
    assert "verdict" not in drawn
