"""The scanner that is in use: `strict`, unless its compiled twin ``scan.pyx`` stands in this module's place.

The twin takes the heads that nothing is wrong with, and hands every other to `strict`, so that both refuse alike.
"""

from proxy.http1.strict import scan_request, scan_response

__all__ = ["scan_request", "scan_response"]
