"""One route that changes among many: a file of its own in Spanway's manifests, a file that nginx's includes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.base import HOST as MAIN
from benchmarks.peers.base import Peer

HOST: Final = f"changing.{MAIN}"
PATH: Final = "/version-%d"
FILE: Final = "changing"
AT_ONCE: Final = 500  # Ingresses in one file


def nginx(number: int, port: int) -> str:
    """nginx's server for the one route; every other path of its host is not there."""
    listen = f"listen 127.0.0.1:{port}; server_name {HOST};"
    locations = f"location {PATH % number} {{ proxy_pass http://backend; }} location / {{ return 404; }}"
    return f"server {{ {listen} {locations} }}\n"


def ingress(name: str, host: str, paths: list[str]) -> dict[str, Any]:
    """An Ingress of Prefix paths to the one Service."""
    backend = {"service": {"name": "bench", "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": p, "pathType": "Prefix", "backend": backend} for p in paths]}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"},
        "spec": {"rules": [rule]},
    }


def many(count: int) -> list[str]:
    """``count`` Ingresses, each for a host of its own, as the texts of some files."""
    whole = [ingress(f"app-{number}", f"app-{number}.{MAIN}", ["/"]) for number in range(count)]
    groups = (whole[start : start + AT_ONCE] for start in range(0, count, AT_ONCE))
    return [json.dumps({"apiVersion": "v1", "kind": "List", "items": group}) for group in groups]


def write(peer: Peer, number: int) -> None:
    """Put the route at `PATH` % ``number``: replace the file, as an editor does, and tell nginx."""
    manifests = peer.folder / "manifests"
    if manifests.is_dir():
        _replace(manifests / f"{FILE}.json", json.dumps(ingress(FILE, HOST, [PATH % number])))
        return
    _replace(peer.folder / f"{FILE}.conf", nginx(number, peer.port))
    os.kill(peer.process.pid, signal.SIGHUP)


def _replace(path: Path, content: str) -> None:
    beside = path.parent.parent / f"{path.name}.new"
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)
