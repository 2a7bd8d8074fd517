"""Stock nginx and HAProxy: Debian's, with what anyone needs for a reverse proxy and no more."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers import change
from benchmarks.peers.base import (
    CONNECTIONS,
    HOST,
    HOSTS,
    RULE,
    Peer,
    Place,
    Variant,
    needed,
    ready,
    running,
    text,
    write,
)
from tests.real.nginx import Nginx
from tests.real.process import free_ports


def start(variant: Variant, place: Place) -> Peer:
    """nginx with ``place.workers`` workers."""
    port, tls_port = free_ports(2)
    nginx = Nginx(
        needed("nginx"),
        place.folder,
        configuration(place, port, tls_port),
        port,
        main=f"worker_processes {place.workers};",
        connections=CONNECTIONS,
        cpu=place.cpus,
    )
    return ready(Peer(variant.name, nginx.process, port, tls_port, place.folder), checked=place.checked)


def configuration(place: Place, port: int, tls_port: int) -> str:
    """What stands inside its http block."""
    values = {
        "port": port,
        "tls_port": tls_port,
        "upstream": place.upstream,
        "chain": place.certificate.chain,
        "key": place.certificate.key,
    }
    rules = [*_rules(place.rules, port), *_many(place, port)]
    return text("nginx.conf", rules="\n".join(rules), **values)


def _rules(count: int, port: int) -> Iterator[str]:
    """A server for each host, a location for each rule: what ingress-nginx makes of Ingresses."""
    if count == 1:
        return
    for team, services in spread(count):
        yield f"server {{\n    listen 127.0.0.1:{port};\n    server_name team-{team}.{HOST};"
        for service in services:
            yield f"    location {RULE % (team, service)} {{ proxy_pass http://backend; }}"
        yield "}"


def _many(place: Place, port: int) -> Iterator[str]:
    """A server for each Ingress, and one in a file of its own."""
    for number in range(place.ingresses):
        location = "location / { proxy_pass http://backend; }"
        yield f"server {{ listen 127.0.0.1:{port}; server_name app-{number}.{HOST}; {location} }}"
    if place.ingresses:
        path = write(place, f"{change.FILE}.conf", change.nginx(0, port))
        yield f"include {path};"


def spread(count: int) -> Iterator[tuple[int, range]]:
    """``count`` rules over at most `HOSTS` hosts: each host's number, and its services'."""
    hosts = min(count, HOSTS)
    for team in range(hosts):
        yield team, range(team * count // hosts, (team + 1) * count // hosts)


def start_haproxy(variant: Variant, place: Place) -> Peer:
    """HAProxy with ``place.workers`` threads."""
    port, tls_port = free_ports(2)
    path = write(place, "haproxy.cfg", haproxy_configuration(place, port, tls_port))
    return running(variant.name, place, [needed("haproxy"), "-W", "-db", "-f", path], port, tls_port)


def haproxy_configuration(place: Place, port: int, tls_port: int) -> str:
    """Its whole configuration; HAProxy wants the chain and the key in one file, which is written beside it."""
    pair = write(place, "pair.pem", place.certificate.chain.read_text() + place.certificate.key.read_text())
    values = {"port": port, "tls_port": tls_port, "upstream": place.upstream, "pair": pair, "threads": place.workers}
    return text("haproxy.cfg", **values)
