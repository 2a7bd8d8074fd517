"""`spanway wire` for the demo: its spans go to the proxy's own receiver, and to the user's collector where one is set.

A process of its own, `python -m proxy.demo.wire`, as `spanway wire` is one; it is told all in one variable, since the
headers of a collector are secret and an argument is not.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy import __version__
from proxy.errors import SettingsError
from proxy.layers import start
from proxy.saying import say
from proxy.settings import Settings, Tracing
from proxy.trace.export import make_transport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.trace.batch import Body
    from proxy.trace.transport import Outcome, Transport

VARIABLE: Final = "SPANWAY_DEMO_WIRE"
FURTHER_S: Final = 2.0  # for the user's collector, on whom the waterfalls must not wait


class Both:
    """A transport to ``near`` that tells ``further`` once, whatever comes of it: a waterfall waits for nobody."""

    def __init__(self, near: Transport, further: Transport) -> None:
        self._near: Final = near
        self._further: Final = further
        self._trouble = ""

    def __repr__(self) -> str:
        return f"Both({self._near!r}, {self._further!r})"

    @property
    def endpoint(self) -> str:
        """Where ``near`` leads to."""
        return self._near.endpoint

    @property
    def protocol(self) -> str:
        """That of ``near``."""
        return self._near.protocol

    def send(self, body: Body, timeout: float) -> Outcome:
        """One call to each; what came of the first."""
        outcome = self._near.send(body, timeout)
        if outcome.verdict == "accepted":
            further = self._further.send(body, min(timeout, FURTHER_S))
            trouble = "" if further.verdict == "accepted" else str(further)
            if trouble and trouble != self._trouble:
                say(f"{self._further.endpoint} has not taken the wire's spans: {trouble}")
            self._trouble = trouble
        return outcome

    def abort(self) -> None:
        """End both calls."""
        self._near.abort()
        self._further.abort()

    def close(self) -> None:
        """Close both."""
        self._near.close()
        self._further.close()


def told(socket: Path, places: Path | None, receiver: str, tracing: Tracing) -> dict[str, str]:
    """The environment of the process; ``receiver`` is the proxy's, ``tracing`` the user's."""
    words = {"socket": str(socket), "places": str(places or ""), "receiver": receiver, "tracing": asdict(tracing)}
    return {VARIABLE: json.dumps(words)}


def transport(receiver: Tracing, further: Tracing) -> Transport:
    """Where spans go to; raises `SettingsError` for a collector that cannot be used."""
    near, also = make_transport(receiver, __version__), make_transport(further, __version__)
    if near is None:
        raise ValueError("the proxy's receiver has an address")
    return near if also is None else Both(near, also)


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Work until SIGTERM; the exit code. Raises `SettingsError` as `start.run` does."""
    words: dict[str, Any] = json.loads(environ[VARIABLE])
    user = replace(_tracing(words["tracing"]), service_name="spanway-wire")
    own = replace(Tracing(), endpoint=words["receiver"], protocol="http/protobuf", service_name="spanway-wire")
    settings = Settings()
    settings = settings.replace(admin=None, tracing=own, wire=replace(settings.wire, socket=words["socket"]))
    return start.run(settings, start.AUTO, words["places"], start.AUTO, transport(own, user))


def _tracing(words: Mapping[str, Any]) -> Tracing:
    """As `told` wrote it: JSON knows no tuples."""
    return Tracing(**{field.name: _tuple(words[field.name]) for field in fields(Tracing)})


def _tuple(value: object) -> Any:
    return tuple(_tuple(each) for each in value) if isinstance(value, list) else value


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SettingsError as problem:
        say(f"error: {problem}")
        sys.exit(2)
