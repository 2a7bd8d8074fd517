"""`spanway wire` from its settings: what is wrong with them is said before anything is opened."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from proxy import __version__
from proxy.errors import SettingsError
from proxy.layers import ways
from proxy.layers.find import OpenVSwitch
from proxy.layers.ovs import unixctl
from proxy.layers.service import Plan, Service
from proxy.net.addresses import parse_address
from proxy.saying import say
from proxy.settings_wire import PortRange
from proxy.trace.export import make_transport

if TYPE_CHECKING:
    from proxy.layers.ways import Look
    from proxy.settings import Address, Settings
    from proxy.trace.transport import Transport

NICE: Final = 10
"""Of this process, setpriority(2): where processors are short, traffic goes first, and a tenth of one task is left:
records must be read before their socket is full.

That alone is not enough. Since Linux 6.6 whoever wakes waits for the end of the running task's slice, some 3 ms,
whatever their weights. So it rests between two records or blocks, after `taps.STINT_NS` of work, unless a ring is
filling.
"""
_COLLECT: Final = (50_000, 20, 50)
"""Allocations before a garbage collection (CPython: 700), then collections before an older. What is kept are records
and packets without cycles: to look for some took a third of the time of joining."""
AUTO: Final = "auto"
ALL: Final = "all"
OFF: Final = "off"


def run(
    settings: Settings,
    interfaces: str,
    places: str,
    ports: str,
    transport: Transport | None = None,
    *,
    ipfix: str = OFF,
) -> int:
    """Work until SIGTERM; the exit code.

    ``interfaces`` is ``auto`` or names separated by commas, ``places`` a file or "", ``ports`` ``auto``, ``all`` or a
    range, ``ipfix`` an address or ``off``. ``transport`` is another way than the settings' own.

    Raises `SettingsError` for what cannot be used, or is not permitted.
    """
    if settings.wire.socket == "off":
        raise SettingsError("the socket is 'off', so that nothing can arrive; name one with --socket PATH")
    tracing = settings.tracing
    if not tracing.endpoint:
        raise SettingsError(
            "there is nothing to send spans to; name a collector with --otlp URL (OTEL_EXPORTER_OTLP_ENDPOINT), or "
            "give --otlp none to count only. The proxy's own admin listener takes spans too: "
            "--otlp http://127.0.0.1:9901 --otlp-protocol http/protobuf"
        )
    named = os.environ.get("OVS_RUNDIR")  # as Open vSwitch's own programs have it
    directory = Path(named) if named else unixctl.run_directory()
    switch = None if directory is None else OpenVSwitch(directory)
    look = _look(interfaces, places, switch)
    chosen, widen = _ports(settings.wire.ports, ports)
    collector = _collector(ipfix)
    _permitted()
    _give_way()
    logging.basicConfig(level=logging.WARNING, format="spanway: %(message)s", stream=sys.stderr)
    plan = Plan(
        socket=Path(settings.wire.socket),
        ports=chosen,
        widen=widen,
        look=look,
        tracing=tracing,
        transport=transport or make_transport(tracing, __version__),
        admin=settings.admin,
        switch=switch,
        ipfix=collector,
    )
    return uvloop.run(_serve(plan))


async def _serve(plan: Plan) -> int:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    return await Service(plan).run()


def _look(interfaces: str, places: str, switch: OpenVSwitch | None) -> Look:
    """Who says which interfaces a connection passes."""
    names = tuple(name.strip() for name in interfaces.split(",") if name.strip())
    if places:
        if names != (AUTO,):
            raise SettingsError("--interfaces and --places both say where to look; keep one of them")
        return ways.written(Path(places))
    if names == (AUTO,):
        return ways.found(switch, say)
    if not names or AUTO in names:
        raise SettingsError("--interfaces takes 'auto', or names separated by commas, from the proxy to the backend")
    return ways.named(names)


def _ports(usual: PortRange, text: str) -> tuple[PortRange | None, bool]:
    """The ports to listen to first, None for all, and whether to widen them by what the proxy tells of."""
    if text == AUTO:
        return usual, True
    if text == ALL:
        return None, False
    found = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= 65535:
        raise SettingsError(f"--ports: '{text}' is not auto, all or a range such as {usual}")
    return PortRange(int(found[1]), int(found[2])), False


def _give_way() -> None:
    """Let others go first, unless whoever started this process has said so already."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def _collector(text: str) -> Address | None:
    """Where to listen for IPFIX; a port alone is on loopback: whoever can send there can make proofs up."""
    if text == OFF:
        return None
    try:
        return parse_address(text, default_host="127.0.0.1")
    except SettingsError as problem:
        raise SettingsError(f"--ipfix: {problem}, as Open vSwitch is told; 4739 is IPFIX's own port") from None


def _permitted() -> None:
    """Raise `SettingsError` where this process may not listen to packets at all."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0).close()
    except PermissionError:
        raise SettingsError(
            "listening to packets needs the capability CAP_NET_RAW, which this process has not got. Start it as root, "
            "or give it that one: in a systemd unit AmbientCapabilities=CAP_NET_RAW, in a pod user 0 with "
            "capabilities {drop: [ALL], add: [NET_RAW]}, in a shell "
            "'setpriv --inh-caps +net_raw --ambient-caps +net_raw spanway wire'"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"this kernel has no packet sockets ({error.strerror}); load the module af_packet"
        ) from None
