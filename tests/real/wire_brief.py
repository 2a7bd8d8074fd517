"""`spanway wire` that keeps packets for 3 s, not for 30: `python -m tests.real.wire_brief ARGUMENT..`.

So what is bounded by time is full soon, and what is not bounded shows.
"""

from __future__ import annotations

import sys

from proxy.cli import main
from proxy.layers import joining, service

if __name__ == "__main__":
    vars(joining)["KEPT_NS"] = 3_000_000_000
    vars(service)["LOOK"] = 1.0
    sys.exit(main(sys.argv[1:]))
