"""Admission as the upstream and the record see it; `tests/edge` has the rows of the table one by one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.net.addresses import parse_networks
from proxy.settings import Settings
from tests.rig import OK, Recorded, Rig, rig, table

_parts = st.sampled_from(
    [
        b"/",
        b"//",
        b".",
        b"..",
        b"/../",
        b"/./",
        b"%2e",
        b"%2F",
        b"%5c",
        b"%41",
        b"%zz",
        b"%00",
        b"?",
        b"a",
        b"b",
        b"%25",
        b";",
        b"*",
    ]
)
targets = st.lists(_parts, max_size=10).map(lambda parts: b"/" + b"".join(parts))


def fields(head: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        found.setdefault(name.lower(), []).append(value.strip())
    return found


def ask(r: Rig, request: bytes, peer: str = "127.0.0.1") -> tuple[bytes, Recorded]:
    """The request as the upstream got it (b"" if it did not), and what was recorded of it."""
    client = r.client(request, peer)
    seen = b""
    if r.dials:
        upstream = r.upstream()
        seen = upstream.take()
        r.send(upstream, OK)
    (recorded,) = r.recorded
    client.lose()
    return seen, recorded


@given(targets)
def test_what_is_routed_is_what_is_forwarded(target: bytes) -> None:
    with rig(spec=table(path="/a")) as r:
        seen, recorded = ask(r, b"GET %b HTTP/1.1\r\nHost: a.test\r\n\r\n" % target)
        routed = recorded.path == b"/a" or recorded.path.startswith(b"/a/")
        assert bool(seen) == routed
        if seen:
            method, forwarded, version = seen.partition(b"\r\n")[0].split(b" ")
            assert (method, version) == (b"GET", b"HTTP/1.1")
            assert forwarded.partition(b"?")[0] == recorded.path
            # The query is the client's own, to the byte.
            assert forwarded.partition(b"?")[1:] == target.partition(b"?")[1:]
        else:
            assert recorded.status == (404 if recorded.path and recorded.error_type == "no_route" else 400)


@given(
    st.sampled_from([b"http", b"HTTPS"]),
    st.sampled_from([b"a.test", b"A.TEST", b"a.test.", b"a.test:80", b"a.test:443", b"a.test:8080", b"b.test", b"a@b"]),
    st.sampled_from([b"a.test", b"a.test:80", b"a.test:443", b"b.test"]),
)
def test_absolute_form_is_the_host_or_refused(scheme: bytes, authority: bytes, host: bytes) -> None:
    with rig() as r:
        seen, recorded = ask(r, b"GET %b://%b/x HTTP/1.1\r\nHost: %b\r\n\r\n" % (scheme, authority, host))
        default = 443 if scheme == b"HTTPS" else 80

        def place(value: bytes) -> tuple[bytes, int]:
            name, _, port = value.lower().partition(b":")
            return name.rstrip(b"."), int(port or default)

        same = b"@" not in authority and place(authority) == place(host)
        assert bool(seen) == (same and host != b"b.test")
        if not same:
            assert (recorded.status, recorded.error_type) == (400, "bad_host")
        elif seen:
            assert seen.startswith(b"GET /x HTTP/1.1\r\nHost: %b\r\n" % host)


@given(
    st.lists(
        st.sampled_from(
            [
                b"Connection: close", b"Connection: keep-alive", b"Connection: x-mine, close", b"Connection: ,",
                b"X-Mine: 1",
                b"Keep-Alive: timeout=5", b"TE: trailers", b"TE: gzip",
                b"Proxy-Connection: keep-alive", b"Upgrade: h2c",
                b"Upgrade: websocket", b"Connection: upgrade", b"X-Forwarded-For: 6.6.6.6", b"X-Real-IP: 6.6.6.6",
                b"Forwarded: for=6.6.6.6", b"X-Request-ID: mine",
                b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ]
        ),
        max_size=8,
        unique=True,
    ),
    st.sampled_from(["192.0.2.66", "127.0.0.1"]),
)  # fmt: skip
def test_a_head_is_rewritten_once_and_well(extra: list[bytes], peer: str) -> None:
    """Whatever hop-by-hop and forwarding fields come, what goes on is one clean head."""
    with rig() as r:
        request = b"GET /x HTTP/1.1\r\nHost: a.test\r\n%b\r\n" % b"".join(line + b"\r\n" for line in extra)
        seen, _ = ask(r, request, peer)
        assert seen
        head, end, rest = seen.partition(b"\r\n\r\n")
        assert end
        assert not rest
        assert all(
            re.fullmatch(rb"[!-9;-~]+: ?[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?", line)
            for line in head.split(b"\r\n")[1:]
        )
        got = fields(seen)
        for once in (b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
                     b"x-real-ip", b"x-request-id", b"traceparent"):  # fmt: skip
            assert len(got[once]) == 1, once
        assert not {b"keep-alive", b"proxy-connection", b"transfer-encoding"} & set(got)
        assert got.get(b"te", [b"trailers"]) == [b"trailers"]
        options = got.get(b"connection", [])
        assert options in ([], [b"TE"], [b"Upgrade"], [b"TE", b"Upgrade"], [b"Upgrade", b"TE"])
        assert (b"upgrade" in got) == (b"Upgrade" in options)
        assert got.get(b"upgrade", [b"websocket"]) == [b"websocket"]
        if b"Connection: x-mine, close" in extra:
            assert b"x-mine" not in got
        if peer != "127.0.0.1":
            assert b"6.6.6.6" not in head
            assert got[b"x-forwarded-for"] == got[b"x-real-ip"] == [peer.encode()]
            assert got[b"x-request-id"] != [b"mine"]
            assert b"0af7651916cd43dd8448eb211c80319c" not in head


def test_forwarding_lines_of_a_connection_follow_the_host() -> None:
    """They are kept for the connection's next request, but not for another Host."""
    with rig(Settings(forwarded=True), table(host="")) as r:
        client = r.client(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "192.0.2.66")
        upstream = r.upstream()
        for host in (b"a.test", b"b.test:81", b"b.test:81", b"a.test"):
            if not upstream.sent:
                r.send(client, b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
            got = fields(upstream.take())
            assert got[b"host"] == got[b"x-forwarded-host"] == [host]
            assert got[b"x-forwarded-port"] == [host.partition(b":")[2] or b"8080"]
            assert got[b"forwarded"] == [b'for=192.0.2.66;host="%b";proto=http' % host]
            r.send(upstream, OK)
        assert client.take() == OK * 4


@pytest.mark.parametrize("forwarded", [False, True])
def test_forwarding_lines_are_the_same_for_whichever_host_of_a_connection(forwarded: bool) -> None:
    """The first host's are written at once, others' into what is kept of them."""
    hosts = (b"a.test", b"b.test", b"b.test:81", b"c.test:81", b"d.test", b"a.test", b"a.test:65535")
    with rig(Settings(forwarded=forwarded), table(host="")) as r:
        r.client(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % hosts[0], "192.0.2.66")
        upstream = r.upstream()
        alone = [_forwarding(upstream.take())]
        r.send(upstream, OK)
        for host in hosts[1:]:  # each over a connection of its own
            r.client(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host, "192.0.2.66")
            alone.append(_forwarding(upstream.take()))
            r.send(upstream, OK)
        client = r.client(b"", "192.0.2.66")
        for host, wanted in zip(hosts, alone, strict=True):
            assert b"X-Forwarded-Host: %b" % host in wanted
            r.send(client, b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
            assert _forwarding(upstream.take()) == wanted
            r.send(upstream, OK)


def _forwarding(head: bytes) -> list[bytes]:
    names = (b"host:", b"x-forwarded-", b"x-real-ip:", b"forwarded:")
    return [line for line in head.split(b"\r\n") if line.lower().startswith(names)]


def test_a_claim_belongs_to_one_request() -> None:
    """A trusted proxy sends several clients' requests over one connection."""
    with rig(Settings(trust=parse_networks("10.0.0.0/8"))) as r:
        client = r.client(peer="10.0.0.1")
        seen = []
        for line in (
            b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n",
            b"",
            b"X-Forwarded-For: 192.0.2.2\r\n",
            b"",
        ):
            r.send(client, b"GET / HTTP/1.1\r\nHost: a.test\r\n%b\r\n" % line)
            upstream = r.upstream() if r.dials else r.loop.wires[0]
            got = fields(upstream.take())
            seen.append((*got[b"x-real-ip"], *got[b"x-forwarded-proto"], *got[b"x-forwarded-for"]))
            r.send(upstream, OK)
        assert seen == [
            (b"192.0.2.1", b"https", b"192.0.2.1, 10.0.0.1"),
            (b"10.0.0.1", b"http", b"10.0.0.1"),
            (b"192.0.2.2", b"http", b"192.0.2.2, 10.0.0.1"),
            (b"10.0.0.1", b"http", b"10.0.0.1"),
        ]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"Connection: host", 400),
        (b"Connection: Content-Length", 400),
        (b"Connection: traceparent", 400),
        (b"Connection: x-forwarded-for", 400),
        (b"Connection: authorization", 400),
        (b"Expect: 200-ok", 417),
        (b"Transfer-Encoding: gzip", 501),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
    ],
)
def test_refused_with_what_is_known(line: bytes, status: int) -> None:
    """Who is refused still has a trace and a record, and leaves no upstream touched."""
    with rig() as r:
        seen, recorded = ask(r, b"POST /x?y HTTP/1.1\r\nHost: a.test\r\n%b\r\n\r\n" % line)
        assert not seen
        assert (recorded.status, recorded.method) == (status, b"POST")
        assert any(recorded.trace_id)
        assert any(recorded.span_id)
        assert recorded.stamps[0] <= recorded.stamps[1]
