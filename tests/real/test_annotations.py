"""Redirects, rewrites and source ranges, held against a real nginx, configured as ingress-nginx would.

The configuration is what ingress-nginx makes of the same Ingresses, as far as it concerns these: locations in
its order and with its modifiers, ``rewrite ... break``, ``return``, ``allow`` and ``deny``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.edge import request
from tests.harness.manifests import documents, ingress, service
from tests.harness.proxy import Proxy
from tests.harness.upstream import Recorder
from tests.real.conftest import StartNginx, StartSpanway
from tests.real.nginx import Nginx
from tests.real.process import free_ports

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

NGINX = """
    upstream a {{ server 127.0.0.1:{a}; }}
    upstream b {{ server 127.0.0.1:{b}; }}
    proxy_set_header Host $http_host;
    server {{ listen 127.0.0.1:{port} default_server; return 404; }}
    server {{
        listen 127.0.0.1:{port}; server_name rewrite.test;
        location ~* "^/something(/|$)(.*)" {{ rewrite "(?i)/something(/|$)(.*)" /$2 break; proxy_pass http://a; }}
        location ~* "^/digits/[0-9]{{3}}" {{ proxy_pass http://b; }}
        location ~* "^/Exact" {{ proxy_pass http://b; }}
        location ~* "^/pre/" {{ proxy_pass http://b; }}
        location ~* "^/pre" {{ proxy_pass http://b; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name order.test;
        location ~* "^/foo/bar/[A-Z0-9]{{3}}" {{ proxy_pass http://a; }}
        location ~* "^/foo/bar/bar" {{ proxy_pass http://b; }}
        location ~* "^/foo/bar/.+" {{ proxy_pass http://b; }}
        location ~* "^/" {{ proxy_pass http://a; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name fixed.test;
        location ~* "^/from" {{ rewrite "(?i)/from" /to break; proxy_pass http://a; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name moved.test;
        location / {{ if ($uri ~* ^/) {{ return 301 https://new.test/x; }} proxy_pass http://a; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name kept.test;
        location / {{ return 308 https://new.test$request_uri; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name groups.test;
        location ~* "^/old/(.*)" {{ return 302 https://new.test/$1; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name secure.test;
        location / {{ return 308 https://$host$request_uri; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name root.test;
        if ($uri = /) {{ return 302 $scheme://$http_host/app; }}
        location /app/ {{ proxy_pass http://a; }}
        location = /app {{ proxy_pass http://a; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name denied.test;
        location / {{ deny 127.0.0.0/8; allow 0.0.0.0/0; deny all; proxy_pass http://a; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name allowed.test;
        location / {{ allow 127.0.0.1; deny all; proxy_pass http://a; }}
    }}
    server {{
        listen 127.0.0.1:{port}; server_name others.test;
        location / {{ allow 10.0.0.0/8; deny all; proxy_pass http://a; }}
    }}
"""


def of(name: str, *paths: str, **annotations: str) -> dict[str, Any]:
    """An Ingress of NAME.test; ``paths`` are a path and the upstream's name."""
    rules = [(path, to, "ImplementationSpecific") for path, _, to in (each.rpartition(" ") for each in paths)]
    named = {key.replace("_", "-"): value for key, value in annotations.items()}
    return ingress(name, rules, host=f"{name}.test", annotations=named)


INGRESSES = [
    of("rewrite", "/something(/|$)(.*) a", rewrite_target="/$2"),
    ingress("more", [("/Exact", "b", "Exact"), ("/pre", "b", "Prefix"), ("/digits/[0-9]{3}", "b", "Prefix")],
            host="rewrite.test"),
    of("order", "/ a", "/foo/bar/bar b", "/foo/bar/[A-Z0-9]{3} a", "/foo/bar/.+ b", use_regex="true"),
    of("fixed", "/from a", rewrite_target="/to"),
    of("moved", "/ a", permanent_redirect="https://new.test/x"),
    of("kept", "/ a", permanent_redirect="https://new.test$request_uri", permanent_redirect_code="308"),
    of("groups", "/old/(.*) a", temporal_redirect="https://new.test/$1", use_regex="true"),
    of("secure", "/ a", force_ssl_redirect="true"),
    of("root", "/app a", app_root="/app"),
    of("denied", "/ a", denylist_source_range="127.0.0.0/8", whitelist_source_range="0.0.0.0/0"),
    of("allowed", "/ a", whitelist_source_range="127.0.0.1"),
    of("others", "/ a", whitelist_source_range="10.0.0.0/8"),
]  # fmt: skip

ASKED = {
    "rewrite.test": [
        "/something", "/something/", "/something/new", "/SOMETHING/New?a=b&c", "/something/a/b/?", "/somethingelse",
        "/something//a", "/something/./a", "/something/x/../y", "/exact", "/EXACTLY", "/prefix", "/pre/x", "/digits/12",
        "/digits/123x", "/nothing", "/x/something/y",
    ],
    "order.test": ["/foo/bar/bar", "/foo/bar/b", "/foo/bar/ab", "/foo/bar/1a2", "/foo", "/FOO/BAR/BAR", "/"],
    "fixed.test": ["/from", "/from/x?y=z", "/FROMAGE", "/to"],
    "moved.test": ["/", "/a?b=c"],
    "kept.test": ["/", "/a/b/?c=d&e", "/a%20b"],
    "groups.test": ["/old/", "/old/a/b?c=d", "/OLD/x", "/old", "/new"],
    "secure.test": ["/", "/a/?b", "/a%2Fb"],
    "root.test": ["/", "/?x", "/app", "/app/x", "/other"],
    "denied.test": ["/"],
    "allowed.test": ["/"],
    "others.test": ["/"],
}  # fmt: skip


@pytest.fixture
def upstreams() -> Iterator[dict[str, Recorder]]:
    made = {"a": Recorder(), "b": Recorder()}
    yield made
    for each in made.values():
        each.stop()


def outcome(address: tuple[str, int], upstreams: dict[str, Recorder], host: str, target: str) -> tuple[Any, ...]:
    """Status, Location, and which upstream was asked for what."""
    for each in upstreams.values():
        each.reset()
    with Client(address) as client:
        response = client.ask(request("Connection: close", host=host, target=target))
    seen = [(name, item.target, item.host) for name, each in upstreams.items() for item in each.requests]
    return response.status, response.fields.get("Location"), seen


def test_as_nginx_does(start_nginx: StartNginx, start_spanway: StartSpanway, upstreams: dict[str, Recorder]) -> None:
    (port,) = free_ports(1)
    ports = {name: each.port for name, each in upstreams.items()}
    nginx: Nginx = start_nginx(NGINX.format(port=port, **ports), port)
    proxy: Proxy = start_spanway(
        documents(*INGRESSES, *(item for name, number in ports.items() for item in service(name, [number])))
    )
    differing = []
    for host, targets in ASKED.items():
        for target in targets:
            theirs = outcome(("127.0.0.1", nginx.port), upstreams, host, target)
            ours = outcome(proxy.address, upstreams, host, target)
            if ours != theirs:
                differing.append((host, target, theirs, ours))
    assert differing == []
