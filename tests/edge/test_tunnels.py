"""Upgrades: a tunnel after 101, bytes both ways, half-closes, and nothing left behind."""

from __future__ import annotations

import base64
import hashlib
import threading

from tests.harness import poll
from tests.harness.client import Client
from tests.harness.edge import Edge, request
from tests.harness.feed import Feed
from tests.harness.poll import stalls
from tests.harness.upstream import Exchange, answer, in_turn

MIB = 1024 * 1024


# Tunnels.

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def websocket(exchange: Exchange) -> None:
    """Accept, then send everything back in upper case until the end of the stream."""
    key = exchange.request.fields.one("Sec-WebSocket-Key").encode()
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    exchange.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    while data := exchange.stream.some():
        exchange.send(data.upper())
    exchange.close()


def upgrade() -> bytes:
    return request(
        "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"
    )


def opened(client: Client, how: Feed = Feed.WHOLE) -> None:
    response = client.ask(upgrade(), how)
    assert response.status == 101
    assert response.fields.one("Upgrade") == "websocket"
    assert "upgrade" in response.fields.one("Connection").lower()
    assert response.fields.one("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_websocket_tunnel(edge: Edge, how: Feed) -> None:
    edge.a.script = websocket
    with edge.client() as client:
        opened(client, how)
        for message in (b"hello", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", bytes(range(64))):
            client.send(message, how)
            assert client.stream.exactly(len(message)) == message.upper()
    edge.a.wait_closed()
    assert edge.a.requests[0].fields.one("Sec-WebSocket-Version") == "13"


def test_tunnel_bytes_with_the_handshake(edge: Edge) -> None:
    """Bytes in the same segment as the 101, and ours in the same as the request (which an eager client may send)."""
    edge.a.script = answer(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst words"
    )
    with edge.client() as client:
        client.send(upgrade())
        assert client.response().status == 101
        assert client.stream.exactly(11) == b"first words"


def test_tunnel_large_both_ways(edge: Edge) -> None:
    edge.a.script = websocket
    payload = bytes(range(97, 113)) * (4 * MIB // 16)
    with edge.client() as client:
        opened(client)
        sender = threading.Thread(target=client.send, args=(payload,))
        sender.start()
        assert client.stream.exactly(len(payload)) == payload.upper()
        sender.join()


def test_tunnel_client_half_close(edge: Edge) -> None:
    """FIN from the client reaches the upstream, whose last words still reach the client."""

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        heard = exchange.stream.rest()
        exchange.send(b"bye " + heard)
        exchange.close()

    edge.a.script = script
    with edge.client() as client:
        client.send(upgrade())
        assert client.response().status == 101
        client.send(b"hello")
        client.finish_writing()
        assert client.stream.rest() == b"bye hello"


def test_tunnel_upstream_half_close(edge: Edge) -> None:
    heard: list[bytes] = []

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nbye")
        exchange.finish_writing()
        heard.append(exchange.stream.rest())
        exchange.close()

    edge.a.script = script
    with edge.client() as client:
        client.send(upgrade())
        assert client.response().status == 101
        assert client.stream.rest() == b"bye"
        client.send(b"and you")
        client.finish_writing()
        poll.until(lambda: heard, "the client's last words")
    assert heard == [b"and you"]


def test_tunnel_ends_with_its_client(edge: Edge) -> None:
    edge.a.script = websocket
    client = edge.client()
    opened(client)
    client.reset()
    edge.a.wait_closed()


def test_tunnel_ends_with_its_upstream(edge: Edge) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        exchange.stream.exactly(1)
        exchange.reset()

    edge.a.script = script
    with edge.client() as client:
        client.send(upgrade())
        assert client.response().status == 101
        client.send(b"x")
        assert client.closed()


def test_any_upgrade_token(edge: Edge) -> None:
    edge.a.script = answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp-ish\r\nConnection: Upgrade\r\n\r\nhi")
    with edge.client() as client:
        response = client.ask(request("Upgrade: tcp-ish", "Connection: Upgrade"))
        assert response.status == 101
        assert client.stream.exactly(2) == b"hi"


def test_tunnel_backpressure(edge: Edge) -> None:
    sent = 0

    def script(exchange: Exchange) -> None:
        nonlocal sent
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        while sent < 64 * MIB:
            exchange.send(b"x" * 65536)
            sent += 65536

    edge.a.script = script
    with edge.client(receive_buffer=65536) as client:
        client.send(upgrade())
        stalls(lambda: sent, 48 * MIB, "tunnel")
        client.reset()


def test_closed_tunnels_leave_nothing_behind(edge: Edge) -> None:
    edge.a.script = in_turn(websocket, answer())
    with edge.client() as client:
        opened(client)
    edge.a.wait_closed()
    edge.probe()
    assert len(edge.a.connections) == 2, "a tunnel's connection came back to the pool"
