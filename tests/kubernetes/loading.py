"""wrk in the background, for as long as something else takes."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Final, Self

from tests.harness import poll
from tests.real.load import Load, parse, wrk_command

LONGEST: Final = 60  # seconds; wrk ends by itself then, whatever becomes of the test


class Loading:
    """Load on ``host`` at ``address`` while the context lasts; ``result`` afterwards.

    wrk reports what it has measured when it is interrupted.
    """

    def __init__(self, program: Path, address: tuple[str, int], host: str, connections: int) -> None:
        url = f"http://{address[0]}:{address[1]}/"
        self._command = wrk_command(program, url, connections, LONGEST, {"Host": host})
        self.result: Load

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        poll.until(lambda: self._handles_interrupts() or kind is not None, "wrk to run")
        ended = self._process.poll() is not None
        self._process.send_signal(signal.SIGINT)
        try:
            output, _none = self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _none = self._process.communicate()
        if kind is None:
            assert not ended, f"the load ended before the test:\n{output}"
            self.result = parse(output)

    def _handles_interrupts(self) -> bool:
        """Whether it has come so far; before, SIGINT would just end it."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        caught = next(line for line in text.splitlines() if line.startswith("SigCgt:")).split()[1]
        return bool(int(caught, 16) & 1 << (signal.SIGINT - 1))
