"""Connections to upstreams: opening, keeping, lending and closing them."""
