"""HTTP/1.1 as pure functions over bytes: no sockets, no clock, no logging."""
