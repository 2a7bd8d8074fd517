"""Closed loops by wrk: so many connections, each with one request at a time, as fast as they are answered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.peers.base import HOST
from tests.real import load
from tests.real.load import Load


def run(
    lab: Lab,
    url: str,
    connections: int,
    seconds: float,
    fields: Mapping[str, str] | None = None,
    script: Path | None = None,
) -> Load:
    """Load ``url`` from the load's CPU. ``script`` is Lua that stands before the one that reports the figures."""
    command = load.wrk_command(lab.wrk, url, connections, seconds, {"Host": HOST} | dict(fields or {}))
    if script is not None:
        whole = lab.folder / f"{script.stem}-and-report.lua"
        whole.write_text(script.read_text() + load.SCRIPT.read_text())
        command[command.index(str(load.SCRIPT))] = str(whole)
    return load.parse(lab.load(command, seconds))
