"""Annotations in the data path: redirects, source ranges, rewrites, hosts' other names, headers, and what is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.edge.conftest import clean
from tests.harness import poll
from tests.harness.certificates import any_server
from tests.harness.client import Client
from tests.harness.collector import UNSET, Collector
from tests.harness.edge import Edge, request, sized
from tests.harness.manifests import documents, ingress, service
from tests.harness.traced import PARENT, Traced, failed, judged, told
from tests.harness.upstream import OK, answer
from tests.harness.wire import Response

ANYWHERE = "0.0.0.0/0,::/0"


def rules(
    name: str, host: str, paths: Sequence[str], *, kind: str = "ImplementationSpecific", **annotations: str
) -> dict[str, Any]:
    """An Ingress of ``paths`` to the upstream that records; annotations with "_" for "-"."""
    named = {key.replace("_", "-"): value for key, value in annotations.items()}
    return ingress(name, [(path, "app", kind) for path in paths], host=host, annotations=named)


def tls(item: Mapping[str, Any], *hosts: str) -> dict[str, Any]:
    """``item`` with a TLS section and no Secret: the default certificate is shown."""
    return {**item, "spec": {**item["spec"], "tls": [{"hosts": list(hosts)}]}}


def objects(edge: Edge) -> list[dict[str, Any]]:
    headers = "X-Frame-Options: DENY\nServer: app\nX-Powered-By:\nX-Extra: a b"
    return [
        *service("app", [edge.a.port]),
        *service("other", [edge.b.port]),
        # Redirects.
        tls(rules("secure", "secure.test", ["/"]), "secure.test"),
        tls(rules("wildsecure", "other.secure.test", ["/"], ssl_redirect="true"), "*.secure.test"),
        tls(rules("insecure", "insecure.test", ["/"], ssl_redirect="false"), "insecure.test"),
        rules("forced", "forced.test", ["/"], force_ssl_redirect="true"),
        rules("moved", "moved.test", ["/"], permanent_redirect="https://new.test/x?y=1"),
        rules("moved308", "moved308.test", ["/"], permanent_redirect="https://new.test$request_uri",
              permanent_redirect_code="308"),
        rules("found", "found.test", ["/"], temporal_redirect="https://new.test/", permanent_redirect="https://no.test"),
        rules("groups", "groups.test", ["/old/(.*)"], use_regex="true", permanent_redirect="https://new.test/$1"),
        rules("root", "root.test", ["/app", "/other"], app_root="/app/home"),
        rules("www", "www.example.test", ["/"], from_to_www_redirect="true"),
        rules("bare", "bare.test", ["/"], from_to_www_redirect="true"),
        # Source ranges.
        rules("allowed", "allowed.test", ["/"], whitelist_source_range="127.0.0.1,10.0.0.0/8"),
        rules("refused", "refused.test", ["/"], allowlist_source_range="10.0.0.0/8", app_root="/new.test"),
        rules("denied", "denied.test", ["/"], denylist_source_range="127.0.0.0/8", allowlist_source_range=ANYWHERE),
        rules("closed", "closed.test", ["/"], auth_url="http://auth.test"),
        # Paths.
        rules("rewrite", "rewrite.test", ["/something(/|$)(.*)"], rewrite_target="/$2",
              x_forwarded_prefix="/something"),
        ingress("beside", [("/Exact", "other", "Exact"), ("/pre", "other", "Prefix")], host="rewrite.test"),
        rules("fixed", "fixed.test", ["/from"], rewrite_target="/to"),
        rules("same", "same.test", ["/"], rewrite_target="/"),
        rules("regex", "regex.test", ["/a/[0-9]{3}", "/a/.*b"], use_regex="true"),
        ingress("regex2", [("/a", "other", "Prefix")], host="regex.test"),
        # The rest.
        rules("vhost", "vhost.test", ["/"], upstream_vhost="$service_name.$namespace.svc:80"),
        rules("prefix", "prefix.test", ["/"], x_forwarded_prefix="/p"),
        ingress("headers", [("/", "app", "Prefix")], host="headers.test",
                annotations={"spanway.io/response-headers": headers}),
        rules("alias", "named.test", ["/"], server_alias="alias.test, *.wild-alias.test"),
        ingress("alias2", [("/b", "other", "Prefix")], host="named.test"),
        rules("silent", "silent.test", ["/"], enable_access_log="false"),
        rules("untraced", "untraced.test", ["/"], enable_opentelemetry="false"),
        rules("wary", "wary.test", ["/"], opentelemetry_trust_incoming_span="false"),
        rules("called", "called.test", ["/"], opentelemetry_operation_name="$request_method ${ingress_name}/app"),
        ingress("ours", [("/", "app", "Prefix")], host="ours.test",
                annotations={"proxy-body-size": "1k", "spanway.io/proxy-body-size": "4"}),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def annotated(launch: Callable[..., Edge]) -> Iterator[Edge]:
    collector = Collector()
    edge = launch(collector=collector, https=True)
    before = edge.proxy.generation()
    edge.proxy.write("more.yaml", documents(*objects(edge)))
    edge.proxy.applied(before)
    yield edge
    collector.stop()


@pytest.fixture
def edge(annotated: Edge) -> Iterator[Edge]:
    yield from clean(annotated)


@pytest.fixture
def quiet(edge: Edge) -> Edge:
    """The same, once all that earlier requests leave behind is there: the ledger counts."""
    traced = Traced(edge.collector)
    assert asked(edge, "b.test", f"/{traced.trace_id}", traced.line).status == 200
    traced.server()
    poll.until(lambda: any(record["path"] == f"/{traced.trace_id}" for record in edge.proxy.log()), "its log record")
    edge.reset()
    return edge


def asked(edge: Edge, host: str, target: str = "/", *lines: str, **options: Any) -> Response:
    with edge.client() as client:
        return client.ask(request(*lines, host=host, target=target, **options), method=options.get("method", "GET"))


def redirected(edge: Edge, host: str, target: str, status: int, location: str, *lines: str) -> None:
    """The request is answered with a redirect by the proxy, on a connection that stays."""
    with edge.client() as client:
        response = client.ask(request(*lines, host=host, target=target))
        assert (response.status, response.fields.one("Location")) == (status, location)
        edge.probe(client, "b.test")
    assert edge.a.requests == []


# Redirects.


@pytest.mark.parametrize("target", ["/", "/a/b/?x=1", "/a%2Fb/", "/?"])
def test_plain_requests_go_to_https_where_there_is_tls(edge: Edge, target: str) -> None:
    redirected(edge, "secure.test", target, 308, f"https://secure.test{target}")
    redirected(edge, "secure.test:8080", target, 308, f"https://secure.test{target}")
    redirected(edge, "forced.test", target, 308, f"https://forced.test{target}")
    redirected(edge, "other.secure.test", target, 308, f"https://other.secure.test{target}")


def test_what_came_by_tls_is_not_redirected(edge: Edge) -> None:
    with Client(edge.proxy.tls_address, tls=any_server(), server_name="secure.test") as client:
        assert client.ask(request(host="secure.test")).status == 200
    assert asked(edge, "secure.test", "/", "X-Forwarded-Proto: https").status == 200
    assert asked(edge, "secure.test", "/", "X-Forwarded-Proto: http").status == 308
    assert asked(edge, "insecure.test").status == 200


def test_the_host_that_a_trusted_proxy_was_asked_for_is_redirected_to(edge: Edge) -> None:
    line = "X-Forwarded-Host: public.test:8443"
    redirected(edge, "secure.test", "/x", 308, "https://public.test/x", line)


def test_acme_challenges_are_answered_by_plain_http(edge: Edge) -> None:
    assert asked(edge, "secure.test", "/.well-known/acme-challenge/token").status == 200
    assert asked(edge, "secure.test", "/.well-known/acme-challengex").status == 308
    assert asked(edge, "secure.test", "/.well-known/acme-challenge/../../x").status == 308


def test_redirects_to_elsewhere(edge: Edge) -> None:
    redirected(edge, "moved.test", "/a?b=c", 301, "https://new.test/x?y=1")
    redirected(edge, "moved308.test", "/a/?b=c", 308, "https://new.test/a/?b=c")
    redirected(edge, "found.test", "/a", 302, "https://new.test/")
    redirected(edge, "groups.test", "/OLD/a/b?c=d", 301, "https://new.test/a/b")
    assert asked(edge, "groups.test", "/new").status == 404


def test_the_application_s_root(edge: Edge) -> None:
    redirected(edge, "root.test", "/", 302, "http://root.test/app/home")
    redirected(edge, "root.test:8080", "/?x=1", 302, "http://root.test:8080/app/home")
    assert asked(edge, "root.test", "/app").status == 200
    assert asked(edge, "root.test", "/nothing").status == 404


def test_www_both_ways(edge: Edge) -> None:
    redirected(edge, "example.test", "/a/?b", 308, "http://www.example.test/a/?b")
    redirected(edge, "www.bare.test", "/a", 308, "http://bare.test/a")
    redirected(edge, "www.bare.test", "/a", 308, "https://bare.test/a", "X-Forwarded-Proto: https")
    assert asked(edge, "www.example.test").status == 200


def test_a_redirect_is_one_span_one_sample_and_one_record(quiet: Edge) -> None:
    account = told(quiet, request(host="secure.test", target="/x"), 308)
    judged(account, 308, 0)
    assert account.attempts == []
    assert account.server.status == UNSET
    assert account.server.error_type is None
    assert account.server.attributes["http.route"] == "/"
    assert account.record["route"] == "default/secure:/"


def test_a_redirect_says_nothing_that_the_client_sent_but_its_location(edge: Edge) -> None:
    response = asked(edge, "secure.test", "/<script>")
    assert response.fields.one("Content-Type").startswith("text/plain")
    assert response.body == b"308 Permanent Redirect\n"
    assert asked(edge, "secure.test", method="HEAD").status == 308


def test_a_redirect_with_an_unread_body_ends_the_connection(edge: Edge) -> None:
    with edge.client() as client:
        assert client.ask(sized(b"x" * 10, host="secure.test")).status == 308
        assert client.closed()


# Source ranges.


def test_source_ranges(edge: Edge) -> None:
    assert asked(edge, "allowed.test").status == 200
    assert asked(edge, "allowed.test", "/", "X-Forwarded-For: 10.9.9.9").status == 200
    for address in ("203.0.113.7", "2001:db8::1", "::ffff:203.0.113.7", "10.0.0.1, 203.0.113.7"):
        assert asked(edge, "allowed.test", "/", f"X-Forwarded-For: {address}").status == 403, address
    # What a client says of itself stands to the left of what a trusted proxy says.
    assert asked(edge, "allowed.test", "/", "X-Forwarded-For: 127.0.0.1, 203.0.113.7").status == 403
    assert asked(edge, "denied.test", "/", "X-Forwarded-For: 203.0.113.7").status == 200
    assert asked(edge, "denied.test", "/", "X-Forwarded-For: ::ffff:127.0.0.9, ::ffff:127.0.0.9").status == 403
    # However much a client has put in front of what the trusted proxy has put behind.
    assert asked(edge, "allowed.test", "/", f"X-Forwarded-For: {'x' * 1100}, 203.0.113.7").status == 403


def test_a_refusal_is_a_fault_of_its_own(quiet: Edge) -> None:
    account = told(quiet, request(host="refused.test"), 403)
    failed(account, "source_refused")
    assert account.server.status == UNSET
    assert account.record["detail"] == "127.0.0.1"
    response = asked(quiet, "refused.test")
    assert "new.test" not in str(response.fields)
    assert b"127.0.0.1" not in response.body


def test_a_refused_client_s_connection_stays(edge: Edge) -> None:
    edge.refused(request(host="refused.test"), 403, closes=False)
    edge.refused(request(host="denied.test"), 403, closes=False)


def test_an_ingress_that_asks_for_authentication_is_closed_not_open(quiet: Edge) -> None:
    account = told(quiet, request(host="closed.test"), 503)
    failed(account, "route_closed")
    assert "auth-url is not supported" in account.record["detail"]


# Paths.


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/something", "/"),
        ("/something/", "/"),
        ("/something/new?a=b", "/new?a=b"),
        ("/SOMETHING/New", "/New"),
        ("/something/a%2Fb/", "/a%2Fb/"),
        ("/something//a/./b", "/a/b"),
        ("/something/x/?", "/x/"),
    ],
)
def test_rewrites(edge: Edge, target: str, sent: str) -> None:
    seen = edge.passed(request(host="rewrite.test", target=target), target=sent)
    assert seen.fields.one("X-Forwarded-Prefix") == "/something"


def test_a_rewrite_makes_every_path_of_its_host_an_expression(edge: Edge) -> None:
    assert asked(edge, "rewrite.test", "/somethings").status == 404  # (/|$)
    for target in ("/exact", "/EXACTLY", "/Exact/below", "/prefix"):
        assert asked(edge, "rewrite.test", target).status == 200
    assert [seen.target for seen in edge.b.requests] == ["/exact", "/EXACTLY", "/Exact/below", "/prefix"]


def test_a_rewrite_to_a_fixed_path_and_one_to_itself(edge: Edge) -> None:
    edge.passed(request(host="fixed.test", target="/from/a?b"), target="/to?b")
    edge.a.reset()
    edge.passed(request(host="same.test", target="/a/B"), target="/a/B")


def test_the_longest_expression_goes_first(edge: Edge) -> None:
    for target in ("/a/123", "/a/xb", "/a/12", "/Abc"):
        assert asked(edge, "regex.test", target).status == 200
    assert [seen.target for seen in edge.a.requests] == ["/a/123", "/a/xb"]
    assert [seen.target for seen in edge.b.requests] == ["/a/12", "/Abc"]
    assert asked(edge, "regex.test", "/b").status == 404


def test_a_rewritten_request_s_spans(edge: Edge) -> None:
    traced = Traced(edge.collector)
    with edge.client() as client:
        assert client.ask(request(traced.line, host="rewrite.test", target="/something/new?a=b")).status == 200
    assert traced.server().attributes["url.path"] == "/something/new"
    assert traced.server().attributes["http.route"] == "/something(/|$)(.*)"
    [attempt] = traced.attempts()
    assert attempt.attributes["url.full"] == f"http://127.0.0.1:{edge.a.port}/new?a=b"


# The rest.


def test_what_the_upstream_is_told(edge: Edge) -> None:
    seen = edge.passed(request(host="vhost.test"))
    assert seen.host == "app.default.svc:80"
    assert seen.fields.one("X-Forwarded-Host") == "vhost.test"
    edge.a.reset()
    seen = edge.passed(request("X-Forwarded-Prefix: /theirs", host="prefix.test"))
    assert seen.fields.all("X-Forwarded-Prefix") == ["/p"]


def test_response_headers(edge: Edge) -> None:
    edge.a.script = answer(
        b"HTTP/1.1 200 OK\r\nx-frame-options: SAMEORIGIN\r\nServer: theirs\r\nX-Powered-By: PHP\r\nX-Own: 1\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    response = asked(edge, "headers.test")
    assert response.fields.all("X-Frame-Options") == ["DENY"]
    assert response.fields.all("Server") == ["app"]
    assert "X-Powered-By" not in response.fields
    assert (response.fields.one("X-Own"), response.fields.one("X-Extra")) == ("1", "a b")
    # The proxy's own answers too, but for what says that they are its own.
    refusal = asked(edge, "headers.test", "/", "Content-Length: 9999999", method="POST")
    assert refusal.status == 413
    assert refusal.fields.all("Server") == ["spanway"]
    assert refusal.fields.one("X-Frame-Options") == "DENY"


def test_an_alias_has_all_rules_of_its_host(edge: Edge) -> None:
    for host in ("named.test", "alias.test", "x.wild-alias.test"):
        assert asked(edge, host, "/a").status == 200
        assert asked(edge, host, "/b/c").status == 200
    assert [seen.host for seen in edge.a.requests] == ["named.test", "alias.test", "x.wild-alias.test"]
    assert len(edge.b.requests) == 3


def test_ours_goes_before_ingress_nginx_s(edge: Edge) -> None:
    assert asked(edge, "ours.test", "/", "Content-Length: 5", method="POST").status == 413


# What is told of a request.


def test_without_an_access_log(quiet: Edge) -> None:
    traced = Traced(quiet.collector)
    before = len(quiet.proxy.log())
    assert asked(quiet, "silent.test", "/", traced.line).status == 200
    traced.server()
    assert asked(quiet, "a.test").status == 200
    poll.until(lambda: len(quiet.proxy.log()) > before, "the record of the second")
    assert [record["host"] for record in quiet.proxy.log()[before:]] == ["a.test"]


def test_without_traces(edge: Edge) -> None:
    traced = Traced(edge.collector)
    seen = edge.passed(request(traced.line, host="untraced.test"))
    assert seen.fields.one("traceparent") == f"00-{traced.trace_id}-{PARENT}-01"  # unchanged: no span of ours between
    edge.a.reset()
    seen = edge.passed(request(host="untraced.test"))
    assert seen.fields.one("traceparent").endswith("-00")
    later = Traced(edge.collector)
    assert asked(edge, "a.test", "/", later.line).status == 200
    later.server()
    assert edge.collector is not None
    assert not edge.collector.find(lambda span: span.attributes.get("server.address") == "untraced.test")


def test_a_trace_that_comes_along_is_linked_to(edge: Edge) -> None:
    traced = Traced(edge.collector)
    seen = edge.passed(request(traced.line, "X-B3-TraceId: " + "a" * 32, host="wary.test"))
    trace_id = seen.fields.one("traceparent").split("-")[1]
    assert trace_id != traced.trace_id
    assert "X-B3-TraceId" not in seen.fields
    assert edge.collector is not None
    server = next(span for span in edge.collector.trace(trace_id, 2) if span.kind == 2)
    assert server.links == [(traced.trace_id, PARENT)]
    assert server.parent_id == ""


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_span_s_own_name(edge: Edge, method: str) -> None:
    traced = Traced(edge.collector)
    edge.a.script = answer(OK)
    asked(edge, "called.test", "/x", traced.line, method=method)
    assert traced.server().name == f"{method} called/app"


def test_everything_is_shown(edge: Edge) -> None:
    page = edge.proxy.admin_json("/routes")
    actions = {route["host"]: route["actions"] for route in page["routes"]}
    assert actions["a.test"] == {}
    assert actions["secure.test"] == {"https": 308}
    assert actions["fixed.test"] == {"rewrite": "/to"}
    assert actions["refused.test"]["allow"] == ["10.0.0.0/8"]
    problems = {(problem["name"], problem["severity"]) for problem in page["problems"]}
    assert ("closed", "warning") in problems
