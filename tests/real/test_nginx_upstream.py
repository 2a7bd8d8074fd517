"""A real nginx as upstream: what it answers arrives as it is, under load and while it comes and goes."""

from __future__ import annotations

import gzip
import random
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import manifests, poll
from tests.harness.proxy import REQUESTS as REQUESTS_METRIC
from tests.harness.proxy import Proxy
from tests.real import load
from tests.real.client import Answer, Connection, many, once
from tests.real.conftest import StartNginx, StartSpanway
from tests.real.nginx import Nginx
from tests.real.process import free_ports

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

HOST = {"Host": "files.test"}
KIB, MIB = 1024, 1024 * 1024
SIZES = (0, 1, 1459, 4 * KIB, 64 * KIB, 64 * KIB + 1, MIB, 5 * MIB + 7)
# Each connection's own business, and the clock's.
PER_HOP = {"connection", "date", "keep-alive", "transfer-encoding", "content-length"}
NO_LIMIT = {"proxy-body-size": "0"}


def server(port: int, root: Path, more: str = "") -> str:
    """A server of files, with everything that makes answers differ: types, validators, ranges, compression, PUT."""
    return f"""
    types {{ text/plain txt; application/octet-stream bin; }}
    gzip on;
    gzip_min_length 20;
    gzip_types text/plain;
    if_modified_since before;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {root};
        client_max_body_size 0;
        {more}
        location /stored/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
        location = /teapot {{ return 418 "short and stout\\n"; }}
        location = /moved {{ return 302 /elsewhere; }}
        location = /empty {{ return 204; }}
        location = /ok {{ return 200 "ok\\n"; }}
    }}"""


@dataclass(frozen=True)
class Site:
    """nginx, and a proxy in front of it."""

    nginx: Nginx
    proxy: Proxy
    root: Path

    @property
    def direct(self) -> tuple[str, int]:
        return "127.0.0.1", self.nginx.port

    def url(self, path: str) -> str:
        host, port = self.proxy.address
        return f"http://{host}:{port}{path}"


@pytest.fixture
def site(start_nginx: StartNginx, start_spanway: StartSpanway, tmp_path: Path) -> Site:
    """With files of every size, of bytes that no one can guess."""
    root = tmp_path / "root"
    root.mkdir()
    for size in SIZES:
        (root / f"{size}.bin").write_bytes(random.Random(size).randbytes(size))
    (root / "long.txt").write_text("a line that compresses well\n" * 40_000)
    (port,) = free_ports(1)
    nginx = start_nginx(server(port, root), port)
    objects = manifests.site("files", [port], annotations=NO_LIMIT)
    return Site(nginx, start_spanway(manifests.documents(*objects)), root)


def essence(answer: Answer) -> tuple[int, Mapping[str, str], bytes]:
    """What a proxy must not change."""
    kept = {name: value for name, value in answer.fields.items() if name not in PER_HOP}
    return answer.status, kept, answer.body


GET, HEAD = "GET", "HEAD"
REQUESTS: dict[str, tuple[str, str, dict[str, str]]] = {
    **{f"GET {size} bytes": (GET, f"/{size}.bin", {}) for size in SIZES},
    **{f"HEAD {size} bytes": (HEAD, f"/{size}.bin", {}) for size in (0, 64 * KIB, 5 * MIB + 7)},
    "HEAD of nothing": (HEAD, "/nothing", {}),
    "gzip": (GET, "/long.txt", {"Accept-Encoding": "gzip"}),
    "HEAD of gzip": (HEAD, "/long.txt", {"Accept-Encoding": "gzip"}),
    "identity": (GET, "/long.txt", {"Accept-Encoding": "identity"}),
    "first bytes": (GET, f"/{MIB}.bin", {"Range": "bytes=0-99"}),
    "last bytes": (GET, f"/{MIB}.bin", {"Range": "bytes=-5"}),
    "from the middle": (GET, f"/{MIB}.bin", {"Range": "bytes=500000-"}),
    "beyond the end": (GET, f"/{MIB}.bin", {"Range": "bytes=9999999-"}),
    "not modified since": (GET, "/long.txt", {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    "precondition": (GET, "/long.txt", {"If-Match": '"never"'}),
    "not there": (GET, "/nothing", {}),
    "redirect": (GET, "/moved", {}),
    "no content": (GET, "/empty", {}),
    "odd status": (GET, "/teapot", {}),
    "not allowed": ("POST", "/long.txt", {}),
    "query": (GET, "/ok?a=1&b=%20%2F&&c", {}),
}


def test_every_answer_is_the_upstreams_own(site: Site) -> None:
    with Connection(site.proxy.address) as connection:
        for round_number in range(2):  # the second time over connections that have carried all the others
            for name, (method, target, fields) in REQUESTS.items():
                # nginx announces keep-alive with its 412 and closes all the same: the proxy must bear it, we need not.
                expected = once(site.direct, method, target, HOST | fields)
                answer = connection.ask(method, target, HOST | fields)
                assert essence(answer) == essence(expected), f"{name}, round {round_number}"
                if method == HEAD:
                    assert answer.fields.get("content-length") == expected.fields.get("content-length"), name


def test_a_validator_brings_304_without_a_body(site: Site) -> None:
    with Connection(site.proxy.address) as connection:
        etag = connection.ask(GET, "/long.txt", HOST | {"Accept-Encoding": "identity"}).fields["etag"]
        answer = connection.ask(GET, "/long.txt", HOST | {"If-None-Match": etag})
        assert (answer.status, answer.body, answer.fields["etag"]) == (304, b"", etag)
        assert connection.ask(GET, "/ok", HOST).body == b"ok\n"  # and the connection is in step


def test_several_ranges_arrive_whole(site: Site) -> None:
    answer = once(site.proxy.address, GET, f"/{MIB}.bin", HOST | {"Range": "bytes=0-9,1000-1999,-7"})
    content = (site.root / f"{MIB}.bin").read_bytes()
    assert answer.status == 206
    boundary = answer.fields["content-type"].partition("boundary=")[2].encode()
    parts = [part.partition(b"\r\n\r\n")[2] for part in answer.body.split(b"\r\n--" + boundary)[1:-1]]
    assert parts == [content[:10], content[1000:2000], content[-7:]]


def test_a_chunked_gzip_answer_unpacks_to_the_file(site: Site) -> None:
    answer = once(site.proxy.address, GET, "/long.txt", HOST | {"Accept-Encoding": "gzip"})
    assert answer.fields["transfer-encoding"] == "chunked"
    assert answer.fields["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == (site.root / "long.txt").read_bytes()


def test_what_is_put_is_what_is_stored(site: Site) -> None:
    with Connection(site.proxy.address) as connection:
        for size in SIZES:
            body = random.Random(-size).randbytes(size)
            stored = site.root / "stored" / f"{size}.bin"
            assert connection.ask("PUT", f"/stored/{size}.bin", HOST, body).status == 201
            assert stored.read_bytes() == body
            assert connection.ask(GET, f"/stored/{size}.bin", HOST).body == body
            assert connection.ask("DELETE", f"/stored/{size}.bin", HOST).status == 204
            assert not stored.exists()


def test_a_chunked_upload_is_stored_whole(site: Site) -> None:
    body = random.Random(1).randbytes(3 * MIB + 1)
    with site.proxy.client() as client:
        client.send(b"PUT /stored/chunked.bin HTTP/1.1\r\nHost: files.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 70_000):
            chunk = body[start : start + 70_000]
            client.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        client.send(b"0\r\n\r\n")
        assert client.response("PUT").status == 201
    assert (site.root / "stored" / "chunked.bin").read_bytes() == body


def test_many_clients_at_once_get_their_own_files(site: Site) -> None:
    def ask(connection: Connection, number: int) -> bool:
        size = SIZES[number % len(SIZES)]
        return connection.ask(GET, f"/{size}.bin", HOST).body == (site.root / f"{size}.bin").read_bytes()

    assert all(many(site.proxy.address, 400, 16, ask))


def test_an_upstream_that_closes_after_three_requests_fails_none(
    start_nginx: StartNginx, start_spanway: StartSpanway, tmp_path: Path, wrk: Path
) -> None:
    (port,) = free_ports(1)
    nginx = start_nginx(server(port, tmp_path, "keepalive_requests 3;"), port)
    proxy = start_spanway(manifests.documents(*manifests.site("files", [nginx.port])))
    host, listening = proxy.address
    result = load.run(wrk, f"http://{host}:{listening}/ok", 16, 3, HOST)
    assert result.errors == {}
    assert result.requests > 100


def test_an_upstream_that_soon_closes_idle_connections_fails_none(
    start_nginx: StartNginx, start_spanway: StartSpanway, tmp_path: Path
) -> None:
    # nginx closes 50 ms after an answer: requests that come just then meet connections being closed.
    (port,) = free_ports(1)
    start_nginx(server(port, tmp_path, "keepalive_timeout 50ms;"), port)
    proxy = start_spanway(manifests.documents(*manifests.site("files", [port])))
    pauses = random.Random(7)
    waits = [pauses.uniform(0.046, 0.056) for _ in range(240)]

    def ask(connection: Connection, number: int) -> int:
        threading.Event().wait(waits[number])
        return connection.ask(GET, "/ok", HOST).status

    assert set(many(proxy.address, len(waits), 8, ask)) == {200}


def test_load_sees_no_error(site: Site, wrk: Path) -> None:
    for path in ("/ok", f"/{64 * KIB}.bin", "/long.txt"):
        result = load.run(wrk, site.url(path), 32, 2, HOST)
        assert result.errors == {}, path
        assert result.requests > 100, path


def test_a_reload_of_the_upstream_fails_no_request(site: Site, wrk: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(load.run, wrk, site.url("/ok"), 16, 4, HOST)
        reloads = 0
        while not loaded.done() and reloads < 4:
            site.nginx.reload()
            reloads += 1
        result = loaded.result()
    assert reloads == 4
    assert result.errors == {}


def test_an_upstream_that_stops_is_502_until_it_is_back(site: Site) -> None:
    with Connection(site.proxy.address) as connection:
        assert connection.ask(GET, "/ok", HOST).status == 200
        site.nginx.stop()
        for _ in range(3):
            answer = connection.ask(GET, "/ok", HOST | {"Accept": "text/plain"})
            assert answer.status == 502
            assert answer.body
        site.nginx.start()
        assert connection.ask(GET, "/ok", HOST).status == 200


def test_while_one_of_two_upstreams_is_gone_the_other_serves_all(
    start_nginx: StartNginx, start_spanway: StartSpanway, tmp_path: Path, wrk: Path
) -> None:
    ports = free_ports(2)
    first, _ = (start_nginx(server(port, tmp_path), port) for port in ports)
    proxy = start_spanway(manifests.documents(*manifests.site("files", ports)))
    host, listening = proxy.address
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(load.run, wrk, f"http://{host}:{listening}/ok", 16, 4, HOST)
        poll.until(lambda: proxy.metrics().total(REQUESTS_METRIC) > 0, "the first request")
        first.stop()
        result = loaded.result()
    assert result.errors == {}
    # A body that was never sent may go elsewhere too: the refused connection took none of it.
    answers = many(
        proxy.address, 20, 2, lambda connection, number: connection.ask("PUT", f"/stored/{number}", HOST, b"x")
    )
    assert {answer.status for answer in answers} == {201}
