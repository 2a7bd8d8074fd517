"""What hypothesis feeds to the context formats."""

from __future__ import annotations

from hypothesis import strategies as st

trace_ids = st.binary(min_size=16, max_size=16).filter(any)
span_ids = st.binary(min_size=8, max_size=8).filter(any)

# Header values as the scanner lets them through: no CR, LF or NUL, no blanks at the ends.
_alphabet = st.one_of(
    st.sampled_from(b"0123456789abcdef-:"), st.sampled_from(b"ABCDEFdg%=,; \t\xff"), st.integers(0x21, 0xFF)
)
garbage = st.one_of(
    st.binary(max_size=80),
    st.lists(_alphabet, max_size=80).map(bytes),
)


@st.composite
def damaged(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    """A valid value with one byte changed, lost or added."""
    value = draw(values)
    at = draw(st.integers(0, len(value)))
    with_byte = bytes([draw(st.integers(0, 255))])
    return draw(
        st.sampled_from([value[:at] + with_byte + value[at + 1 :], value[:at] + with_byte + value[at:], value[:at]])
    )
