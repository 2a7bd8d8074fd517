from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings import Tracing
from proxy.trace.redact import Redactor, credentials, without_credentials

redactor = Redactor(Tracing().redact)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (b"", b""),
        (b"a=1&b=2", b"a=1&b=2"),
        (b"sig=s", b"sig=REDACTED"),
        (b"a=1&sig=s&b=2", b"a=1&sig=REDACTED&b=2"),
        (b"sig=s&sig=t", b"sig=REDACTED&sig=REDACTED"),
        (b"sig=a=b", b"sig=REDACTED"),
        (b"sig=", b"sig=REDACTED"),
        (b"sig", b"sig"),
        (b"Sig=s&SIG=s", b"Sig=s&SIG=s"),  # case-sensitive
        (b"signal=s&mysig=s&q=sig=s", b"signal=s&mysig=s&q=sig=s"),
        (b"AWSAccessKeyId=k&Signature=s&Expires=7", b"AWSAccessKeyId=REDACTED&Signature=REDACTED&Expires=7"),
        (b"X-Amz-Credential=c&X-Amz-Security-Token=t", b"X-Amz-Credential=REDACTED&X-Amz-Security-Token=REDACTED"),
        (b"X-Goog-Signature=s", b"X-Goog-Signature=REDACTED"),
        (b"X-Amz%2DSignature=s&%73ig=s", b"X-Amz%2DSignature=REDACTED&%73ig=REDACTED"),
        (b"a=%73&&b", b"a=%73&&b"),
        (b"sig=\xff\xfe", b"sig=REDACTED"),
    ],
)
def test_query(query: bytes, shown: bytes) -> None:
    assert redactor.query(query) == shown


def test_the_list_is_a_setting() -> None:
    assert Redactor(("token",)).query(b"sig=s&token=t") == b"sig=s&token=REDACTED"
    assert Redactor(()).query(b"sig=s") == b"sig=s"
    assert Redactor(("a.b",)).query(b"axb=1&a.b=2") == b"axb=1&a.b=REDACTED"


_names = st.sampled_from([b"sig", b"Signature", b"a", b"%73ig", b"sig%", b"", b"X-Amz-Signature"])
_values = st.one_of(st.just(b"hunter2"), st.from_regex(rb"[a-z=%0-9]{0,6}", fullmatch=True))
_parameters = st.lists(st.tuples(_names, st.sampled_from([b"=", b""]), _values), max_size=6)


@given(_parameters)
def test_only_values_of_listed_names_change(parameters: list[tuple[bytes, bytes, bytes]]) -> None:
    parts = [name + b"=" + value if equals else name for name, equals, value in parameters]
    shown = redactor.query(b"&".join(parts)).split(b"&")
    secret = {b"sig", b"Signature", b"%73ig", b"X-Amz-Signature"}
    for before, after in zip(parts or [b""], shown, strict=True):
        name, equals, _ = before.partition(b"=")
        assert after == (name + b"=REDACTED" if equals and name in secret else before)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (b"http://h:80/p?q=a@b", b"http://h:80/p?q=a@b"),
        (b"http://u:p@h:80/p", b"http://REDACTED:REDACTED@h:80/p"),
        (b"https://u@h", b"https://REDACTED:REDACTED@h"),
        (b"http://u:p@q@h/", b"http://REDACTED:REDACTED@h/"),
        (b"http://h?x=u:p@h", b"http://h?x=u:p@h"),
        (b"/p@q", b"/p@q"),
    ],
)
def test_credentials(url: bytes, shown: bytes) -> None:
    assert credentials(url) == shown


def test_credentials_before_a_host() -> None:
    assert without_credentials(b"u:p@h") == b"h"
    assert without_credentials(b"h") == b"h"


def test_repr_names_no_secret() -> None:
    assert repr(redactor) == "Redactor(7 names)"
