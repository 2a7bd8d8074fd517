from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import SettingsError
from proxy.settings import Tracing
from proxy.trace.transport import (
    TEXT_LIMIT,
    Outcome,
    Wording,
    accepted,
    bad_endpoint,
    check_files,
    check_headers,
    exports,
    parse_endpoint,
    secrets_of,
)
from tests.trace.collectors import partial


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://collector:4317", ("http", "collector", 4317, "", "", "")),
        (" HTTPS://Collector/base/ ", ("https", "collector", None, "/base/", "", "")),
        ("http://[::1]:4318/x?k=v", ("http", "::1", 4318, "/x", "k=v", "")),
        ("collector.ns.svc:4317", ("", "collector.ns.svc", 4317, "", "", "")),
        ("[fd00::1]:4317", ("", "fd00::1", 4317, "", "", "")),
        ("https://me:s%3Acret@c.example/", ("https", "c.example", None, "/", "", "me:s:cret")),
    ],
)
def test_endpoints(text: str, expected: tuple[object, ...]) -> None:
    assert tuple(parse_endpoint(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://",
        "http://:4317",
        "http://host:port",
        "http://host:99999",
        "http://host:0",
        "http://[::1",
        "http://ho st:4317",
        "http://host\n:4317",
        "http://höst:4317",
        "http://a..b:4317",
        f"http://{'a' * 64}.example:4317",
        ":4317",
        "://",
    ],
)
def test_bad_endpoints_are_named(text: str) -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        parse_endpoint(text)


def test_errors_and_displays_never_show_credentials_or_query() -> None:
    for text in (
        "http://me:hunter2@host:x/p?key=hunter2",
        "me:hunter2@host:x?hunter2",
        "http://a@b:hunter2@h:x#hunter2",
    ):
        with pytest.raises(SettingsError) as caught:
            parse_endpoint(text)
        assert "hunter2" not in str(caught.value)
    endpoint = parse_endpoint("https://me:hunter2@host:4318/p?key=hunter2")
    assert str(endpoint) == "https://host:4318/p"
    assert "hunter2" not in repr(endpoint)
    assert "host:1/p'" in str(bad_endpoint("http://u:hunter2@host:1/p?q", "is bad"))


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_a_settings_error(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except SettingsError:
        return
    assert endpoint.host


def test_when_export_is_off() -> None:
    assert not exports(Tracing())
    assert not exports(Tracing(endpoint=" NONE "))
    assert exports(Tracing(endpoint="http://c:4317"))


@pytest.mark.parametrize("header", [("", "x"), ("a b", "x"), ("naïve", "x"), ("a:", "x")])
def test_bad_header_names(header: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_HEADERS"):
        check_headers((header,))


@pytest.mark.parametrize("value", ["line\r\nX-Evil: 1", "nul\0", "schlüssel"])
def test_bad_header_values_are_not_repeated(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_headers((("x-key", value),))
    assert "x-key" in str(caught.value)
    assert value not in str(caught.value)


def test_good_headers() -> None:
    check_headers((("Authorization", "Basic dXNlcjpwYXNz=="), ("x-tab", "a\tb"), ("empty", "")))


def test_certificate_files_must_be_there(tmp_path) -> None:
    present = tmp_path / "there.pem"
    present.write_text("x")
    check_files(Tracing(certificate=str(present), client_certificate=str(present), client_key=str(present)))
    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_CERTIFICATE.*gone\.pem"):
        check_files(Tracing(certificate=str(tmp_path / "gone.pem")))
    with pytest.raises(SettingsError, match="needs its key"):
        check_files(Tracing(client_certificate=str(present)))


def test_a_strangers_words_are_made_fit_for_a_log_line() -> None:
    wording = secrets_of((("authorization", "Bearer abcd1234"), ("x-team", "ok")), "querykey")
    assert (
        wording("token abcd1234\r\nis\x1b[31m bad: Bearer abcd1234, ?querykey")
        == "token REDACTED is?[31m bad: REDACTED, ?REDACTED"
    )
    assert wording("ok") == "ok"  # a value of two letters is no secret, and blotting it would eat the text
    assert "abcd" not in repr(wording)


def test_a_secret_is_not_cut_in_half() -> None:
    wording = Wording("s" * 50)
    text = wording("x" * (TEXT_LIMIT - 20) + "s" * 50)
    assert "ssss" not in text
    assert len(text) <= TEXT_LIMIT


@given(st.text(max_size=2000))
def test_words_are_bounded_and_printable(text: str) -> None:
    said = Wording()(text)
    assert len(said) <= TEXT_LIMIT
    assert said.isprintable()


def test_accepted_answers() -> None:
    assert accepted("200", b"", Wording()) == Outcome("accepted", "200")
    assert accepted("200", partial(3, "too old"), Wording()) == Outcome("accepted", "200", rejected=3, text="too old")
    strange = accepted("200", b"<html>", Wording())
    assert strange.verdict == "accepted"
    assert "OTLP collector?" in str(strange)
    assert str(Outcome("retry", "503")) == "503"
