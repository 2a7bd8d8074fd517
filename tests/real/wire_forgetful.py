"""`spanway wire` that looks for each way anew once a second: `python -m tests.real.wire_forgetful ARGUMENT..`."""

from __future__ import annotations

import sys

from proxy.cli import main
from proxy.layers import ways

if __name__ == "__main__":
    vars(ways)["KEPT_S"] = 1.0
    sys.exit(main(sys.argv[1:]))
