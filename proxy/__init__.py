"""Spanway: an ingress proxy that traces every request through every layer it crosses.

Reading the package from top to bottom is a request walking through the house: `accept` takes its connection, `http1`
reads its head, `admit` judges it, `route` finds its way, `balance` an endpoint, `connect` a connection, `relay` moves
the bytes; `exchange` tells the story, `trace` remembers it.
"""

from typing import Final

__version__: Final = "0.1.0"
