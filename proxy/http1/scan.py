"""The scanner that is in use: `strict`, unless its compiled twin ``scan.pyx`` stands in this module's place.

The twin takes the heads that nothing is wrong with, and hands every other to `strict`, so that both refuse alike.
"""

from proxy.http1.head import HEAD_END
from proxy.http1.strict import scan_request, scan_response

__all__ = ["find_end", "find_slash", "scan_request", "scan_response"]


def find_end(data: bytes, start: int = 0) -> int:
    """Where the first empty line from ``start`` on has its CRLF CRLF, -1 if there is none."""
    return data.find(HEAD_END, start)


def find_slash(path: bytes, start: int) -> int:
    """Where the first slash from ``start`` on is, -1 if there is none."""
    return path.find(b"/", start)
