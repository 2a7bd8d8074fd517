"""The span encoder that is in use: `encode.Encoder`, unless its compiled twin ``encoder.pyx`` stands in this module's
place. Both write the same bytes.
"""

from proxy.trace.encode import Encoder

__all__ = ["Encoder"]
