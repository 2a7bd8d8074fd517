"""The way in: listeners, PROXY protocol, TLS by SNI, and the downstream connection."""
