"""A proxy between a client and two recorders, on a standard site, and the judgement every row of the notes asks for.

Three things are judged: the client's status, whether the connection closed, and what the upstream saw.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.client import Client
from tests.harness.collector import Collector
from tests.harness.feed import Feed
from tests.harness.manifests import documents, ingress, service, site
from tests.harness.proxy import Proxy
from tests.harness.upstream import Recorder, Refusing
from tests.harness.wire import Ended, Request, Response

#: Bytes: the body limit of small.test.
SMALL = 16


def request(
    *lines: str,
    target: str = "/",
    host: str | None = "a.test",
    method: str = "GET",
    version: str = "1.1",
    body: bytes = b"",
) -> bytes:
    """A request head from ``lines`` (after Host, unless ``host`` is None) and the raw ``body``."""
    head = [f"{method} {target} HTTP/{version}", *([] if host is None else [f"Host: {host}"]), *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def sized(body: bytes, *lines: str, method: str = "POST", **options: Any) -> bytes:
    """A request with a Content-Length and ``body``."""
    return request(f"Content-Length: {len(body)}", *lines, method=method, body=body, **options)


def chunked(
    *chunks: bytes, trailers: bytes = b"", lines: Sequence[str] = (), method: str = "POST", **options: Any
) -> bytes:
    """A request with a chunked body of ``chunks`` and raw ``trailers`` lines."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"
    return request("Transfer-Encoding: chunked", *lines, method=method, body=body, **options)


class Edge:
    """One proxy and its two upstreams ``a`` and ``b``.

    Hosts: a.test and b.test; paths.test (/ to a, /admin and exactly /exact to b); small.test (bodies up to 16 bytes),
    open.test (no limit), quick.test (1 s timeouts), none.test (no endpoint), dead.test (refuses), *.wild.test; and
    without any host, what lies below /any.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        collector: Collector | None = None,
        extra: Sequence[Mapping[str, Any]] = (),
        **options: Any,
    ) -> None:
        self.collector = collector
        self.a, self.b, self.dead = Recorder(), Recorder(), Refusing()
        a, b = [self.a.port], [self.b.port]
        quick = {"proxy-read-timeout": "1", "proxy-send-timeout": "1", "proxy-connect-timeout": "1"}
        paths = [("/", "paths", "Prefix"), ("/admin", "b", "Prefix"), ("/exact", "b", "Exact")]
        self.site = [
            *site("a", a),
            *site("b", b),
            *service("paths", a),
            ingress("paths", paths, host="paths.test"),
            *site("small", a, annotations={"proxy-body-size": str(SMALL)}),
            *site("open", a, annotations={"proxy-body-size": "0"}),
            *site("quick", a, annotations=quick),
            *site("none", []),
            *site("dead", [self.dead.port]),
            *site("wild", a, host="*.wild.test"),
            *site("any", a, host="", path="/any"),
            *extra,
        ]
        try:
            self.proxy = Proxy(folder, documents(*self.site), *arguments, collector=collector, **options)
        except BaseException:
            self._stop_upstreams()
            raise

    def _stop_upstreams(self) -> None:
        self.a.stop()
        self.b.stop()
        self.dead.stop()

    def client(self, **options: Any) -> Client:
        """A new connection to the proxy."""
        return self.proxy.client(**options)

    def reset(self) -> None:
        """Ready for the next test."""
        self.a.reset()
        self.b.reset()

    def stop(self) -> None:
        """End the proxy and the upstreams."""
        self.proxy.stop()
        self._stop_upstreams()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Judgements.

    def probe(self, client: Client | None = None, host: str = "a.test") -> None:
        """A plain request on ``client`` (or a new connection) is answered by the upstream."""
        raw = request(target="/probe", host=host)
        if client is not None:
            assert client.ask(raw).status == 200
            return
        with self.client() as fresh:
            assert fresh.ask(raw).status == 200

    def refused(
        self,
        raw: bytes,
        status: int | Collection[int],
        how: Feed = Feed.WHOLE,
        *,
        closes: bool | None = True,
        begun: int = 0,
        method: str = "GET",
    ) -> Response:
        """``raw`` is answered with ``status`` by the proxy itself, and no upstream sees a complete request of it.

        ``closes`` None: either, but a connection that stays open must serve the next request. ``begun`` is how many
        requests the upstream may have seen the start of (a body is streamed, so its faults are found late).
        """
        wanted = {status} if isinstance(status, int) else set(status)
        with self.client() as client:
            sent = client.send(raw, how)
            response = client.response(method)
            assert response.status in wanted, (response.status, response.body)
            assert response.complete
            assert not response.interim, "an interim response before a refusal"
            assert sent or closes is not False
            if closes is True:
                assert client.closed(), "the connection stays open"
            elif closes is False or not _announces_close(response):
                self.probe(client)
        self.probe()  # whatever was forwarded before this has arrived by now
        seen = [item for item in self.a.requests + self.b.requests if item.target != "/probe"]
        assert not [item.head for item in seen if item.complete], "the upstream saw a complete request"
        assert len(seen) <= begun, [item.head for item in seen]
        if begun == 0:
            assert not self.b.connections, self.b.raw
        for item in seen:
            number = next(c.number for c in self.a.connections if item in c.requests)
            self.a.wait_closed(number)
        if closes is True:
            assert response.fields.get("Connection") in ("close", None)
            if response.minor == 1:  # RFC 9112 section 9.6: a server that will close says so
                assert _announces_close(response), response.fields
        return response

    def passed(
        self,
        raw: bytes,
        how: Feed = Feed.WHOLE,
        *,
        status: int = 200,
        closes: bool = False,
        target: str | None = None,
        body: bytes | None = None,
        method: str | None = None,
        check: Callable[[Request], None] | None = None,
    ) -> Request:
        """``raw`` reaches upstream ``a`` as exactly one request and is answered; the request, for more checks."""
        verb = raw.lstrip(b"\r\n").split(b" ", 1)[0].decode("latin-1")
        with self.client() as client:
            assert client.send(raw, how), "the proxy closed before the request was sent"
            response = client.response(verb)
            assert response.status == status, (response.status, response.body)
            if closes:
                assert client.closed(), "the connection stays open"
            else:
                self.probe(client, "b.test")
        seen = self.a.one()
        assert seen.complete
        assert seen.method == (method or verb)
        if target is not None:
            assert seen.target == target
        if body is not None:
            assert seen.body == body
        if check is not None:
            check(seen)
        return seen


def _announces_close(response: Response) -> bool:
    return "close" in (response.fields.get("Connection") or "").lower()


def nothing_more(client: Client) -> bool:
    """Whether the proxy closes without another word, even a malformed one."""
    try:
        return client.closed()
    except Ended:
        return True
