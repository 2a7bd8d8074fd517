"""Relaying: what goes back to the downstream."""
