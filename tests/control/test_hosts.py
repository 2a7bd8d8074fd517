"""What annotations of one Ingress mean for a whole host, and for hosts that it does not name in a rule."""

from __future__ import annotations

import pytest

from proxy.route.spec import RouteSpec, TableSpec
from tests.control.texts import API, built, clean, ingress, said

NGINX = "nginx.ingress.kubernetes.io/"
TLS = "tls: [{hosts: [shop.test]}]"


def note(**annotations: str) -> str:
    """Annotations in YAML's flow form, "_" for "-"."""
    return ", ".join(f"'{NGINX}{name.replace('_', '-')}': '{value}'" for name, value in annotations.items())


def shown(table: TableSpec) -> list[str]:
    return [f"{route.path_type} {route.host}{route.path}" for route in table.routes]


def of(table: TableSpec, host: str, path: str = "/") -> RouteSpec:
    [route] = [route for route in table.routes if (route.host, route.path) == (host, path)]
    return route


@pytest.mark.parametrize("said", [{"use_regex": "true"}, {"rewrite_target": "/$1"}])
def test_one_ingress_makes_every_path_of_a_host_an_expression(said: dict[str, str]) -> None:
    table = clean(
        API,
        ingress("Prefix /a(.*) -> api:80", annotations=note(**said)),
        ingress("Exact /Exact -> api:80", "Prefix /pre -> api:80", name="other"),
        ingress("Exact /Exact -> api:80", host="elsewhere.test", name="elsewhere"),
    )
    assert sorted(shown(table)) == [
        "Exact elsewhere.test/Exact",
        "Regex shop.test/Exact",
        "Regex shop.test/a(.*)",
        "Regex shop.test/pre",
    ]


def test_a_rewrite_to_itself_is_none() -> None:
    table = clean(API, ingress("Prefix / -> api:80", annotations=note(rewrite_target="/")))
    assert shown(table) == ["Prefix shop.test/"]
    assert of(table, "shop.test").actions is None


def test_a_path_that_is_no_expression_takes_no_requests() -> None:
    table, problems = built(
        API,
        ingress("Prefix /( -> api:80", "Prefix /fine -> api:80", annotations=note(use_regex="true")),
    )
    assert shown(table) == ["Regex shop.test/fine"]
    [problem] = said(problems)
    assert "spec.rules[0].http.paths[0].path: '/(' is no regular expression of RE2: missing )" in problem


def test_a_group_that_the_path_does_not_have_is_told() -> None:
    table, problems = built(API, ingress("Prefix /a/(.*) -> api:80", annotations=note(rewrite_target="/$2")))
    assert shown(table) == ["Regex shop.test/a/(.*)"]
    [problem] = said(problems)
    assert "the path has 1 groups, so that in rewrite-target $2 is always empty" in problem


@pytest.mark.parametrize(
    ("tls", "annotations", "redirected"),
    [
        ("", "", False),
        (TLS, "", True),
        ("tls: [{hosts: ['*.test']}]", "", True),
        ("tls: [{hosts: [other.test]}]", "", False),
        ("tls: [{hosts: ['*.other.test']}]", "", False),
        (TLS, note(ssl_redirect="false"), False),
        (TLS, note(ssl_redirect="false", force_ssl_redirect="true"), True),
        ("", note(force_ssl_redirect="true"), True),
    ],
)
def test_plain_requests_are_redirected_where_there_is_tls(tls: str, annotations: str, redirected: bool) -> None:
    table = clean(API, ingress("Prefix / -> api:80", extra=tls, annotations=annotations))
    actions = of(table, "shop.test").actions
    assert (actions is not None and actions.https == 308) is redirected


def test_the_tls_of_another_ingress_counts_and_each_ingress_decides_for_itself() -> None:
    table = clean(
        API,
        ingress("Prefix / -> api:80", extra=TLS, annotations=note(ssl_redirect="false")),
        ingress("Prefix /a -> api:80", name="other"),
    )
    assert of(table, "shop.test").actions is None
    actions = of(table, "shop.test", "/a").actions
    assert actions is not None
    assert actions.https == 308


def test_a_missing_secret_does_not_open_the_plain_way() -> None:
    table, problems = built(
        API, ingress("Prefix / -> api:80", extra="tls: [{hosts: [shop.test], secretName: missing}]")
    )
    assert len(problems) == 1
    actions = of(table, "shop.test").actions
    assert actions is not None
    assert actions.https == 308


def test_aliases_have_the_rules_of_all_ingresses_of_their_host() -> None:
    table = clean(
        API,
        ingress("Prefix / -> api:80", annotations=note(server_alias="b.test, *.c.test")),
        ingress("Exact /x -> api:80", name="other"),
    )
    assert sorted(shown(table)) == [
        f"{kind} {host}{path}"
        for kind, path in (("Exact", "/x"), ("Prefix", "/"))
        for host in ("*.c.test", "b.test", "shop.test")
    ]


def test_an_alias_with_rules_of_its_own_is_none() -> None:
    table, problems = built(
        API,
        ingress("Prefix / -> api:80", annotations=note(server_alias="b.test", from_to_www_redirect="true")),
        ingress("Prefix /own -> api:80", name="other", host="b.test"),
        ingress("Prefix /own -> api:80", name="www", host="www.shop.test"),
    )
    assert sorted(shown(table)) == ["Prefix b.test/own", "Prefix shop.test/", "Prefix www.shop.test/own"]
    messages = said(problems)
    assert len(messages) == 2
    assert "has no effect for b.test, which has rules of its own" in messages[0]
    assert "has no effect for www.shop.test, which has rules of its own" in messages[1]


def test_an_alias_without_a_host() -> None:
    table, problems = built(API, ingress("Prefix / -> api:80", host="", annotations=note(server_alias="b.test")))
    assert shown(table) == ["Prefix /"]
    assert "no rule has a host that it could be an alias of" in said(problems)[0]


def test_two_aliases_of_each_other_end() -> None:
    one = ingress("Prefix /( -> api:80", host="a.test", annotations=note(server_alias="b.test", use_regex="true"))
    two = ingress(
        "Prefix /( -> api:80", host="b.test", name="two", annotations=note(server_alias="a.test", use_regex="true")
    )
    table, problems = built(API, one, two)
    assert table.routes == ()
    assert problems


@pytest.mark.parametrize(("host", "other"), [("shop.test", "www.shop.test"), ("www.shop.test", "shop.test")])
def test_www(host: str, other: str) -> None:
    table = clean(
        API,
        ingress(
            "Prefix /a -> api:80", host=host, annotations=note(from_to_www_redirect="true", enable_access_log="false")
        ),
    )
    assert sorted(shown(table)) == sorted([f"Prefix {host}/a", f"Prefix {other}/"])
    actions = of(table, other).actions
    assert actions is not None
    assert (actions.redirect, actions.redirect_code) == (f"$scheme://{host}$request_uri", 308)
    assert not actions.logged


def test_wildcards_have_no_www() -> None:
    table = clean(API, ingress("Prefix / -> api:80", host="'*.test'", annotations=note(from_to_www_redirect="true")))
    assert shown(table) == ["Prefix *.test/"]


def test_an_application_s_root_is_a_rule_of_its_own() -> None:
    table = clean(API, ingress("Prefix /app -> api:80", annotations=note(app_root="/app")))
    assert shown(table) == ["Prefix shop.test/app", "Exact shop.test/"]
    table = clean(API, ingress("Prefix /app(.*) -> api:80", annotations=note(app_root="/app", use_regex="true")))
    assert shown(table) == ["Regex shop.test/app(.*)", "Exact shop.test/"]


def test_service_upstream_is_the_cluster_ip() -> None:
    service = """
        apiVersion: v1
        kind: Service
        metadata: {name: api, namespace: shop}
        spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80, targetPort: 8080}]}
    """
    table = clean(service, ingress("Prefix / -> api:80", annotations=note(service_upstream="true")))
    [backend] = table.backends
    assert backend.key == "shop/api:80;service"
    assert [(each.host, each.port) for each in backend.endpoints] == [("10.96.0.7", 80)]
    assert of(table, "shop.test").tries == 1


def test_what_stands_for_the_rule_is_filled_in() -> None:
    said = note(
        upstream_vhost="$service_name.$namespace.svc", opentelemetry_operation_name="$ingress_name $location_path"
    )
    actions = of(clean(API, ingress("Prefix / -> api:80", annotations=said)), "shop.test").actions
    assert actions is not None
    assert (actions.upstream_host, actions.span_name) == ("api.shop.svc", "web /")
