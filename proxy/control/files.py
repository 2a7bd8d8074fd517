"""Paths into texts: which files are manifests, what state they are in, and what they hold.

A path is a file, or a directory of which every ``*.yaml``, ``*.yml`` and ``*.json`` is read, in the order of their
names, but no directory below it (as `kubectl apply -f` does without ``-R``). Names that begin with a dot are passed
over, which is also what makes a mounted ConfigMap one set of files: its data lies behind the links ``..data`` and
``..2026_01_05_...``.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from proxy.control.documents import DocumentError
from proxy.control.problem import Problem

LARGEST_FILE: Final = 16 * 1024 * 1024  # bytes; ten thousand Ingresses are 5 MiB
MOST_FILES: Final = 10_000  # in one directory
SUFFIXES: Final = (".yaml", ".yml", ".json")


class Signature(NamedTuple):
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified: int  # nanoseconds
    changed: int  # nanoseconds; also moves when a file is put back with its old times


def files_of(paths: Iterable[Path]) -> tuple[list[Path], list[Problem]]:
    """The files to read, each once, and what is wrong with the paths themselves."""
    files: dict[Path, None] = {}
    problems: list[Problem] = []
    for path in paths:
        try:
            if not path.is_dir():
                path.stat()
                files[path] = None
                continue
            found = sorted(
                entry for entry in path.iterdir() if entry.suffix in SUFFIXES and not entry.name.startswith(".")
            )
        except OSError as exc:
            hint = "check the path, and whether it may be read"
            problems.append(Problem("error", _os_error(exc), hint, file=str(path)))
            continue
        if not found:
            hint = f"it needs files named *{', *'.join(SUFFIXES)}; directories below it are not searched"
            problems.append(Problem("warning", "the directory holds no manifest", hint, file=str(path)))
        if len(found) > MOST_FILES:
            message = f"the directory holds more than {MOST_FILES:,} manifests"
            problems.append(Problem("error", message, "name a directory further down", file=str(path)))
            continue
        files.update(dict.fromkeys(entry for entry in found if not entry.is_dir()))
    return list(files), problems


def signature(path: Path) -> Signature | None:
    """A file's state now, None if it is not there. Follows links, so a swapped ``..data`` shows."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def text_of(path: Path) -> str:
    """What a file holds. Raises `DocumentError`, whose line is 0 where it is the file as a whole."""
    try:
        data = _bytes(path)
    except OSError as exc:
        raise DocumentError(0, _os_error(exc), "check the path, and whether it may be read") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise DocumentError(line, "is not UTF-8 text", "save the file as UTF-8") from None


def _bytes(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # a FIFO or a device could block for ever
        raise DocumentError(0, "is not a regular file", "write its content to a file")
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise DocumentError(0, f"is larger than {LARGEST_FILE:,} bytes", "split it")
    return data


def _os_error(exc: OSError) -> str:
    return f"cannot be read: {(exc.strerror or type(exc).__name__).lower()}"
