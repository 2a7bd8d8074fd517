from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.dev import PATIENCE, rules
from proxy.errors import SettingsError
from proxy.route.spec import EndpointSpec
from proxy.route.stats import Ledger
from proxy.route.table import Table


def test_hosts_paths_and_urls() -> None:
    table = rules(
        ["shop.localhost=http://127.0.0.1:3000", "shop.localhost/api=http://127.0.0.1:4000", "http://[::1]:5000/"]
    )
    assert [(route.host, route.path, route.path_type, route.backend) for route in table.routes] == [
        ("shop.localhost", "/", "Prefix", "dev/http://127.0.0.1:3000"),
        ("shop.localhost", "/api", "Prefix", "dev/http://127.0.0.1:4000"),
        ("", "/", "Prefix", "dev/http://[::1]:5000"),
    ]
    assert [backend.endpoints for backend in table.backends] == [
        (EndpointSpec("127.0.0.1", 3000),),
        (EndpointSpec("127.0.0.1", 4000),),
        (EndpointSpec("::1", 5000),),
    ]
    assert {(route.namespace, route.body_limit) for route in table.routes} == {("dev", 0)}
    assert {(route.read_timeout, route.send_timeout) for route in table.routes} == {(PATIENCE, PATIENCE)}
    assert table.routes[1].name == "shop.localhost/api"
    made = Table(table, {backend.key: backend.service for backend in table.backends}, Ledger().of)
    for host, path, expected in (
        (b"shop.localhost", b"/api/x", "http://127.0.0.1:4000"),
        (b"shop.localhost", b"/apix", "http://127.0.0.1:3000"),
        (b"elsewhere", b"/", "http://[::1]:5000"),
    ):
        route = made.match(host, path)
        assert route is not None
        assert route.backend == expected


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("SHOP.localhost.=http://a:1", "shop.localhost", "/"),
        ("*.shop.localhost/x/=http://a:1", "*.shop.localhost", "/x/"),
        ("127.0.0.1=http://a:1", "127.0.0.1", "/"),
        ("[::1]/a=http://a:1", "[::1]", "/a"),
        ("/api=http://a:1", "", "/api"),
        ("localhost=http://a:1", "localhost", "/"),
    ],
)
def test_where(text: str, host: str, path: str) -> None:
    [route] = rules([text]).routes
    assert (route.host, route.path) == (host, path)


@pytest.mark.parametrize(
    ("url", "scheme", "endpoint", "server_name"),
    [
        ("http://127.0.0.1", "http", EndpointSpec("127.0.0.1", 80), ""),
        ("https://api.example.org", "https", EndpointSpec("api.example.org", 443), "api.example.org"),
        ("https://127.0.0.1:8443/", "https", EndpointSpec("127.0.0.1", 8443), ""),
        ("HTTP://LocalHost:1", "http", EndpointSpec("localhost", 1), ""),
    ],
)
def test_targets(url: str, scheme: str, endpoint: EndpointSpec, server_name: str) -> None:
    [backend] = rules([f"a={url}"]).backends
    assert (backend.scheme, backend.endpoints, backend.server_name) == (scheme, (endpoint,), server_name)


def test_several_urls_share_a_rule_and_rules_share_a_backend() -> None:
    table = rules(["a=http://x:1,http://x:2,http://x:1", "b=http://x:1,http://x:2"])
    [backend] = table.backends
    assert backend.endpoints == (EndpointSpec("x", 1), EndpointSpec("x", 2))
    assert {route.backend for route in table.routes} == {backend.key}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no rule was given; write HOST"),
        (["a=http://x", "a/=http://y"], "'a/=http://y': a/ has a rule already"),
        (["a/b=http://x", "a/b/=http://y"], "a/b/ has a rule already"),
        (["=http://x"], "the host is missing"),
        (["a"], "'a' is no http or https URL"),
        (["a=b"], "'b' is no http or https URL"),
        (["a="], "'' is no http or https URL"),
        (["a=127.0.0.1:3000"], "is no http or https URL"),
        (["a=ftp://x"], "'ftp://x' is no http or https URL"),
        (["a=http://"], "'http://' is no http or https URL"),
        (["a=http://x:99999"], "is no URL (Port out of range"),
        (["a=http://x:0"], "has port 0"),
        (["a=http://[::1"], "is no URL (Invalid IPv6 URL)"),
        (["a=http://x/base"], "'http://x/base' has more than host and port; requests keep their own path"),
        (["a=http://x?q=1"], "has more than host and port"),
        (["a=http://x_y"], "'x_y' is neither a name nor an address"),
        (["a=http://u:HUSH@x"], "a URL here carries no user or password"),
        (["a=http://x,https://x"], "must all be http or all be https"),
        (["a=http://x,"], "'' is no http or https URL"),
        (["a_b=http://x"], "the host 'a_b' must be lower-case letters"),
        (["a:80=http://x"], "leave its port out"),
        (["*=http://x"], "a wildcard must be the whole first label"),
        (["a//b=http://x"], "'//b' is no path"),
        (["a/b?c=http://x"], "'/b?c' is no path"),
    ],
)
def test_what_is_refused_names_the_argument_and_the_form(args: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rules(args)
    assert message in str(caught.value)


@given(
    st.lists(
        st.text("ab.*/:=[]?#@,%\u00e9 ht\n", max_size=20).map(lambda text: text.replace("ht", "http://")),
        min_size=1,
        max_size=2,
    )
)
def test_any_argument_is_read_or_refused(args: list[str]) -> None:
    try:
        table = rules(args)
    except SettingsError:
        return
    Table(table, {backend.key: "" for backend in table.backends}, Ledger().of)
    assert len(table.routes) == len(args)
