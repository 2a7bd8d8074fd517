"""What `spanway layers` shows, as text and as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from proxy import cli
from proxy.layers.report import report
from proxy.layers.report_print import run, show
from proxy.trace.view import SpanView
from tests.admin.spans import plain
from tests.layers.reported import request, slow_switch


def drawn(spans: list[SpanView], *, color: bool = False, width: int = 100) -> str:
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, color_system="standard" if color else None, no_color=not color
    )
    show(report(spans), as_json=False, console=console)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_bars_show_who_owns_the_tail() -> None:
    text = drawn(slow_switch())
    lines = text.splitlines()
    assert lines[0] == "shop/web /  200 requests joined"
    bars = dict(line.split(maxsplit=1) for line in lines[1:4])
    assert bars["p99"].startswith("=" * 38)
    assert bars["p50"].startswith("####==+++::::")
    assert {len(line.split()[1]) for line in lines[1:4]} == {40}
    assert bars["p99"].endswith("21.1 ms")
    assert "= ovs br0" in text
    assert "> the tail is ovs br0's: 19.9 ms of the 19.9 ms that it takes beyond a typical request" in text
    assert "verdicts: application 196 · switch 4" in text
    assert text.count("200 of 200 attempts joined exactly (100 %)") == 2


def test_colours_are_for_terminals() -> None:
    text = drawn(slow_switch(), color=True)
    assert "█" in text
    assert "\x1b[35m" in text
    assert "▸ the tail is" in text


def test_few_requests_losses_and_what_is_missing_are_said() -> None:
    spans = request(1, {"proxy": 5, "backend": 50}, lost=("ovs br0", 1448)) + request(2, None)
    text = drawn(spans, width=160)
    assert "1 request joined; below 100 the p99 is the slowest of them" in text
    assert "lost at ovs br0: 1,448 bytes in 1 request" in text
    assert "1 of 2 attempts joined exactly (50 %), 1 of them while a tap dropped packets; missing: " in text
    assert "the tail is" not in text


def test_names_from_elsewhere_cannot_move_the_cursor() -> None:
    spans = request(1, {"proxy": 5, "backend": 50}, path="/\x1b[2J\nx", verdict="\x1b]0;x")
    text = drawn(spans)
    assert "\x1b" not in text


def test_nothing_joined_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "traces"
    path.write_bytes(plain())
    assert run(str(path), None, "", as_json=False) == 1
    assert "0 of 0 attempts joined exactly" in capsys.readouterr().out


def test_the_command(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "traces"
    path.write_bytes(plain())
    assert cli.main(["layers", "--from", str(path), "--json"]) == 1
    document = json.loads(capfdbinary.readouterr().out)
    assert document["coverage"] == {"attempts": 0, "joined": 0, "incomplete": 0, "missing": {}, "unsent": 1}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either --from FILE or --last TIME"),
        (["--from", "x", "--last", "5m"], "give either --from FILE or --last TIME"),
        (["--last", "soon"], "'soon' is no time; write 90s, 10m or 1h"),
        (["--last", "0m"], "'0m' is no time"),
        (["--from", "no/such/file"], "cannot be read: No such file"),
    ],
)
def test_what_it_is_told_wrongly(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers", *arguments]) == 2
    assert says in capsys.readouterr().err
