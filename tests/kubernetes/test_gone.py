"""The API server is gone for long, and meanwhile the world goes on: backends die, and nobody says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.harness import poll
from tests.kubernetes.clusters import Cluster, ingress_class, site
from tests.kubernetes.conftest import Backends, StartController, StartLoad

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # no connection outlives its answer, so that the end is one

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"mortal")

    def log_message(self, *_: object) -> None:
        pass


class Mortal:
    """A backend that can be ended."""

    def __init__(self, address: str) -> None:
        self._server = ThreadingHTTPServer((address, 0), _Answer)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def mortal(backends: Backends) -> Iterator[Mortal]:
    made = Mortal(backends.address)
    yield made
    made.end()


def test_a_backend_dies_while_the_api_server_is_gone(
    cluster: Cluster, backends: Backends, mortal: Mortal, start_controller: StartController, load: StartLoad
) -> None:
    """No request fails: what fails is tried elsewhere, and ejected. On return everything is caught up with."""
    cluster.apply(ingress_class(), *site("shop", backends.address, [backends.ports[0], mortal.port]))
    controller = start_controller(cluster)
    controller.serves("shop.test", backends.body(0))
    controller.serves("shop.test", b"mortal")
    with load(controller.address, "shop.test") as running:
        cluster.kill()
        poll.until(lambda: controller.count("spanway_watch_faults_total", code="unreachable") >= 10, "failed calls", 60)
        mortal.end()
        poll.until(lambda: controller.count("spanway_endpoint_ejections_total") >= 1, "an ejection", 30)
        assert {controller.get("shop.test").body for _ in range(20)} == {backends.body(0)}
        assert controller.admin("/readyz")[0] == 200
        cluster.start()
        cluster.apply(*site("shop", backends.address, [backends.ports[0], backends.ports[1]]))
        controller.serves("shop.test", backends.body(1), within=60)
    assert running.result.errors == {}
    assert "Traceback" not in controller.said()
