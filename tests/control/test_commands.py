from __future__ import annotations

from pathlib import Path

import pytest

from proxy.control import commands
from proxy.errors import SettingsError
from proxy.settings import Address, Override, Settings
from tests.control.texts import API, ingress


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "api.yaml").write_text(API)
    (tmp_path / "web.yaml").write_text(ingress("Prefix /caf\u00e9 -> api:80", "Exact /a -> api:80"))
    return Settings(ingress=(tmp_path,))


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.test/caf\u00e9/1",
        "http://shop.test/caf%c3%a9?x=1#y",
        "http://SHOP.test:8080/x/../caf%C3%A9",
        "https://user@shop.test//%63af\u00e9",
    ],
)
def test_a_url_is_taken_as_the_proxy_would_see_it(
    settings: Settings, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.explain(settings, url) == 0
    out, err = capsys.readouterr()
    assert "Route shop.test, Prefix /caf\u00e9 (Ingress shop/web)" in out
    assert err == ""


def test_no_route(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.explain(settings, "http://shop.test") == 1
    assert "No route" in capsys.readouterr().out


def test_method_headers_and_overrides(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings.replace(upstream=(Override("", "api", "", "http", (Address("::1", 9000),)),))
    assert commands.explain(settings, "http://127.0.0.1/a", "POST", ["Host: shop.test", "X: y"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("POST http://shop.test/a\n")
    assert "endpoints: [::1]:9000" in out


@pytest.mark.parametrize(
    ("broken", "words"), [("- 1", "1 error, and what it"), ("- 1\n---\n- 2", "2 errors, and what they")]
)
def test_broken_manifests_are_said(
    settings: Settings, broken: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (settings.ingress[0] / "z.yaml").write_text(broken)
    assert commands.explain(settings, "http://shop.test/a") == 0
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("shop.test/a", "is no http or https URL; write http://HOST/PATH"),
        ("ftp://shop.test/a", "is no http or https URL"),
        ("http:///a", "is no http or https URL"),
        ("http://[::1/a", "is no URL"),
        ("http://sh\u00f6p.test/", "write the host in its ASCII form"),
        ("http://shop.test:99999/", "would be answered with 400: "),
        ("http://a..b/", "would be answered with 400: an empty label"),
        ("http://shop.test/../a", "would be answered with 400: the path climbs above the root"),
        ("http://shop.test/%00", "would be answered with 400: an escaped NUL"),
    ],
)
def test_what_is_no_request(settings: Settings, url: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        commands.explain(settings, url)
    assert message in str(caught.value)


def test_what_is_no_header_field(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="'X' is no header field; write 'NAME: VALUE'"):
        commands.explain(settings, "http://shop.test/a", headers=["X"])


def test_explaining_needs_manifests() -> None:
    with pytest.raises(SettingsError, match="name manifests with --ingress PATH"):
        commands.explain(Settings(), "http://shop.test/a")


def test_check(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    folder = settings.ingress[0]
    assert commands.check([str(folder)]) == 0
    assert capsys.readouterr().out == "0 errors, 0 warnings, 2 files, 2 routes, 0 certificates\n"
    assert commands.check([folder], "mine") == 0
    assert "0 routes" in capsys.readouterr().out
    (folder / "z.yaml").write_text("- 1")
    assert commands.check([folder]) == 1
