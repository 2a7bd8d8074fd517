"""The load: closed loops by wrk and h2load, an open loop of our own, handshakes, WebSockets, held connections."""
