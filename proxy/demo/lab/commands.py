"""Programs that make networks, run with a limit; and another network namespace for one thread."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
LIMIT_S: Final = 15.0  # for any one program; each takes milliseconds
PACKAGES: Final = {  # program: Debian's package
    "ip": "iproute2",
    "tc": "iproute2",
    "setpriv": "util-linux",
}
SWITCH_PACKAGES: Final = {
    "ovsdb-tool": "openvswitch-common",
    "ovsdb-server": "openvswitch-switch",
    "ovs-vswitchd": "openvswitch-switch",
    "ovs-vsctl": "openvswitch-switch",
}
NAMESPACES: Final = Path("/run/netns")  # where ip-netns(8) keeps names
_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_SIOCETHTOOL: Final = 0x8946  # linux/sockios.h
_ETHTOOL_STXCSUM: Final = 0x17  # linux/ethtool.h; without checksums the kernel turns off TSO, GSO and SG as well


class LabError(Exception):
    """The namespaces cannot be made or used; the message says why, and the next step."""


def missing(*, switch: bool) -> str:
    """One line naming what must be installed, with the command; empty when everything is there."""
    wanted = {**PACKAGES, **(SWITCH_PACKAGES if switch else {})}
    absent = [program for program in wanted if shutil.which(program, path=PATH) is None]
    if not absent:
        return ""
    packages = sorted({wanted[program] for program in absent} - ({"openvswitch-common"} if switch else set()))
    if switch and any(program in SWITCH_PACKAGES for program in absent):
        packages = sorted({*packages, "openvswitch-switch"})  # it brings openvswitch-common
    return (
        f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing: "
        f"sudo apt-get install --no-install-recommends {' '.join(packages)}"
    )


def program(name: str) -> str:
    """The path of an installed program; raises `LabError`."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise LabError(missing(switch=name in SWITCH_PACKAGES) or f"{name} is missing")
    return found


def run(*argv: str, namespace: str | None = None, environ: dict[str, str] | None = None) -> str:
    """Standard output of a program that must succeed, within `LIMIT_S`; raises `LabError` with its last words."""
    command = [*inside(namespace), program(argv[0]), *argv[1:]]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and none of it comes from outside
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            env=None if environ is None else {**os.environ, **environ},
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"'{' '.join(argv)}' did not end within {LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        where = f" in the namespace {namespace}" if namespace else ""
        raise LabError(f"'{' '.join(argv)}'{where} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def inside(namespace: str | None) -> Sequence[str]:
    """What to put before a command so that it runs in the named namespace; nothing for this process's own."""
    return () if namespace is None else (program("ip"), "netns", "exec", namespace)


@contextlib.contextmanager
def entered(namespace: str | None) -> Iterator[None]:
    """This thread is in the named network namespace meanwhile, see setns(2); sockets stay where they were made.

    Raises `LabError` when there is none of the name or this process may not.
    """
    if namespace is None:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(descriptor: int) -> None:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise LabError(f"cannot enter the namespace {namespace}: {os.strerror(ctypes.get_errno())}")

    with contextlib.ExitStack() as closing:
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        closing.callback(os.close, back)
        try:
            there = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LabError(f"no network namespace {namespace}: {error.strerror}") from error
        closing.callback(os.close, there)
        enter(there)
        try:
            yield
        finally:
            enter(back)


def no_offload(interface: str) -> None:
    """Turn off transmit checksum offload, and with it segmentation offload, of an interface of this namespace.

    A switch in user space forwards what an AF_PACKET socket reads: a frame whose checksum is left to a network card
    would never be completed.
    """
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        except OSError as error:
            raise LabError(f"cannot turn off transmit offload of {interface}: {error.strerror}") from error
