"""Tests against the real parts: nginx, Jaeger, HotROD; `parts` finds or builds them."""
