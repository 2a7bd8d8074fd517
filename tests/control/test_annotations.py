from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.actions import Meant, actions_of
from proxy.control.annotation_others import GROUPS, OTHERS, PROTECTING
from proxy.control.annotations import (
    ALREADY,
    KNOWN,
    MOST_TOLD,
    MOST_TRIES,
    NGINX,
    OURS,
    ROWS,
    SNIPPETS,
    Options,
    options_of,
)
from proxy.control.objects import Place
from proxy.control.problem import Subject
from proxy.route.actions import Actions
from tests.control.texts import said


def read(annotations: dict[str, str], defaults: Options = Options()) -> tuple[Options, list[str]]:  # noqa: B008 - frozen
    subject = Subject("Ingress", "shop", "web", Place())
    options = options_of(annotations, defaults, subject)
    return options, said(subject.problems)


def test_defaults_are_ingress_nginx_s() -> None:
    options, problems = read({})
    assert problems == []
    assert (options.body_limit, options.connect_timeout, options.tries) == (1024 * 1024, 5.0, 3)
    assert (options.read_timeout, options.send_timeout) == (60.0, 60.0)
    assert (options.policy, options.hash_by, options.scheme, options.sample_ratio) == ("round_robin", "", None, None)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("proxy-body-size", "0", "body_limit", 0),
        ("proxy-body-size", "512", "body_limit", 512),
        ("proxy-body-size", "8k", "body_limit", 8 * 1024),
        ("proxy-body-size", "1m", "body_limit", 1024**2),
        ("proxy-body-size", "2G", "body_limit", 2 * 1024**3),
        ("proxy-body-size", " 8M ", "body_limit", 8 * 1024**2),
        ("proxy-body-size", "8589934591g", "body_limit", (2**33 - 1) * 1024**3),
        ("proxy-connect-timeout", "1", "connect_timeout", 1.0),
        ("proxy-read-timeout", "3600", "read_timeout", 3600.0),
        ("proxy-send-timeout", "120", "send_timeout", 120.0),
        ("proxy-next-upstream-tries", "1", "tries", 1),
        ("proxy-next-upstream-tries", "0", "tries", MOST_TRIES),
        ("proxy-next-upstream-tries", "1000", "tries", MOST_TRIES),
        ("backend-protocol", "HTTP", "scheme", "http"),
        ("backend-protocol", "HTTPS", "scheme", "https"),
        ("backend-protocol", "https", "scheme", "https"),
        ("load-balance", "round_robin", "policy", "round_robin"),
        ("load-balance", "ewma", "policy", "ewma"),
        ("load-balance", "least_conn", "policy", "least_conn"),
        ("upstream-hash-by", "$remote_addr", "hash_by", "$remote_addr"),
        ("upstream-hash-by", "$request_uri$http_x_user", "hash_by", "$request_uri$http_x_user"),
        ("upstream-hash-by", "${arg_id}-${cookie_s}", "hash_by", "${arg_id}-${cookie_s}"),
        ("canary", "true", "canary", True),
        ("ssl-redirect", "false", "ssl_redirect", False),
        ("force-ssl-redirect", "TRUE", "force_ssl_redirect", True),
        ("rewrite-target", "/", "rewrite", "/"),
        ("rewrite-target", "/$2", "rewrite", "/$2"),
        ("rewrite-target", "$1", "rewrite", "$1"),
        ("rewrite-target", "/a%20b/$1/..", "rewrite", "/a%20b/$1/.."),
        ("use-regex", "true", "use_regex", True),
        ("permanent-redirect", "https://example.org", "permanent", "https://example.org"),
        ("permanent-redirect", "http://[2001:db8::1]:8080/x?y=z#f", "permanent", "http://[2001:db8::1]:8080/x?y=z#f"),
        ("permanent-redirect", "https://www.$host$request_uri", "permanent", "https://www.$host$request_uri"),
        ("temporal-redirect", "https://example.org/$1$is_args$args", "temporal", "https://example.org/$1$is_args$args"),
        ("permanent-redirect-code", "308", "permanent_code", 308),
        ("temporal-redirect-code", "307", "temporal_code", 307),
        ("app-root", "/app?x=1", "app_root", "/app?x=1"),
        ("from-to-www-redirect", "true", "www", True),
        ("server-alias", "a.test, *.B.test,a.test", "aliases", ("a.test", "*.b.test")),
        ("whitelist-source-range", "10.0.0.0/8, 192.0.2.7", "allow", ("10.0.0.0/8", "192.0.2.7/32")),
        ("allowlist-source-range", "10.1.2.3/8,2001:db8::/32", "allow", ("10.0.0.0/8", "2001:db8::/32")),
        ("denylist-source-range", "0.0.0.0/0", "deny", ("0.0.0.0/0",)),
        (
            "proxy-next-upstream",
            "error timeout http_503  non_idempotent error",
            "next_upstream",
            ("error", "timeout", "http_503", "non_idempotent"),
        ),
        ("proxy-next-upstream", "off", "next_upstream", ()),
        ("proxy-next-upstream-timeout", "0", "next_timeout", 0.0),
        ("proxy-next-upstream-timeout", "10", "next_timeout", 10.0),
        ("service-upstream", "true", "service_upstream", True),
        ("upstream-vhost", "app.internal:8080", "upstream_host", "app.internal:8080"),
        ("upstream-vhost", "${service_name}.$namespace.svc", "upstream_host", "${service_name}.$namespace.svc"),
        ("x-forwarded-prefix", "/shop/$1", "prefix", "/shop/$1"),
        ("enable-access-log", "false", "logged", False),
        ("enable-opentelemetry", "false", "recorded", False),
        ("opentelemetry-trust-incoming-span", "false", "trust_incoming", False),
        ("opentelemetry-operation-name", "$request_method $service_name", "span_name", "$request_method $service_name"),
    ],
)
def test_values_under_both_prefixes(name: str, value: str, field: str, expected: object) -> None:
    for prefix in (NGINX, OURS):
        options, problems = read({prefix + name: value})
        assert problems == []
        assert getattr(options, field) == expected


@pytest.mark.parametrize(
    ("value", "ratio"), [("0", 0.0), ("1", 1.0), ("0.01", 0.01), (".5", 0.5), ("1.0", 1.0), ("0.", 0.0)]
)
def test_the_sample_ratio_is_ours_alone(value: str, ratio: float) -> None:
    assert read({OURS + "sample-ratio": value}) == (Options(sample_ratio=ratio), [])
    options, [problem] = read({NGINX + "sample-ratio": value})
    assert options.sample_ratio is None
    assert "is unknown and has no effect" in problem


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("proxy-body-size", ["", "8 m", "8mb", "-1", "1.5m", "1t", "1kk", "\u0661", "9" * 16]),
        ("proxy-body-size", ["8589934592g", "9" * 15 + "g"]),  # above 2**63 - 1: no table could hold it
        ("proxy-read-timeout", ["", "0", "60s", "1.5", "-1", "1h", "604801", "\u0661"]),
        ("proxy-next-upstream-tries", ["", "-1", "x", "1.0"]),
        ("backend-protocol", ["", "H2", "http://"]),
        ("load-balance", ["", "ip_hash", "random", "ROUND_ROBIN"]),
        (
            "upstream-hash-by",
            ["", "static", "$nothing", "$remote_addrx", "$", "${uri", "$uri\nx", "$uri" * 100, "$http_"],
        ),
        ("sample-ratio", ["", ".", "1.1", "2", "-0.1", "50%", "1e-3", "nan", "0,5"]),
        ("canary", ["", "yes", "1"]),
        ("use-regex", ["", "on"]),
        (
            "rewrite-target",
            [
                "",
                "/a b",
                "/x?y=$1",
                "/#",
                "/\r\nX: y",
                "/\u00e9",
                "/$uri",
                "/$0",
                "/$",
                "/../x",
                "/%zz",
                "/%00",
                "/a\\b",
                "/" + "x" * 1024,
            ],
        ),
        (
            "permanent-redirect",
            [
                "",
                "/here",
                "//example.org",
                "ftp://example.org",
                "https://",
                "https:///x",
                "javascript:alert(1)",
                "https://$1",
                "https://$1.example.org/",
                "https://$request_uri",
                "https://a@b/",
                "https://a\\b/",
                "https://example.org/\r\nSet-Cookie: a",
                "https://example.org/ x",
                "https://ex\u00e4mple.org/",
                "https://a..b/",
                "https://example.org/$nothing",
                "https://x/" + "y" * 1024,
            ],
        ),
        ("temporal-redirect-code", ["", "200", "304", "399", "3e2", "-301"]),
        ("app-root", ["", "app", "https://x/", "/a b", "/\r\nX: y", "/\u00e9"]),
        ("server-alias", ["", "a.test,", "a_b.test", "10.0.0.1", "a.*.test", "a.test:80", ",".join(["a.test"] * 101)]),
        ("proxy-next-upstream", ["", "http_5xx", "error,timeout", "off error", "updating"]),
        ("proxy-next-upstream-timeout", ["", "-1", "1s"]),
        (
            "upstream-vhost",
            ["", "a b", "a\r\nX: y", "a/b", "$host", "$location_path", "a:b", "a:99999", "$1", "\u00e9.test"],
        ),
        ("x-forwarded-prefix", ["", "/a b", "/\r\nX: y", "/$uri", '/"', "/\u00e9"]),
        ("opentelemetry-operation-name", ["", "$uri", "$request_uri x", "a\nb", "x" * 129, "caf\u00e9", "$1"]),
        (
            "response-headers",
            [
                "",
                "X",
                ": x",
                "X Y: z",
                "X-A: 1\nX-a: 2",
                "X: \x00",
                "X: a\rSet-Cookie: b",
                "X: \u00e9",
                "Connection: x",
                "Content-Length: 1",
                "Transfer-Encoding: chunked",
                "Set-Cookie: a=b",
                "Traceparent: x",
                "X: y\n folded",
                "X-\u00e9: 1",
                "X: " + "y" * 4096,
                "\n".join(f"X-{n}: 1" for n in range(33)),
            ],
        ),
    ],
)
def test_a_value_that_means_nothing_is_an_error_and_the_default_holds(name: str, values: list[str]) -> None:
    for value in values:
        options, [problem] = read({OURS + name: value})
        assert options == Options()
        assert problem.startswith(f"0 error metadata.annotations[{OURS}{name}]: ")
        assert "cannot be used (" in problem


@pytest.mark.parametrize("value", ["GRPC", "GRPCS", "FCGI", "AUTO_HTTP", "grpc"])
def test_protocols_to_come_are_a_warning(value: str) -> None:
    options, [problem] = read({NGINX + "backend-protocol": value})
    assert options == Options()
    assert problem.startswith("0 warning ")
    assert f"{value.upper()} is not supported yet: the upstream is spoken to in HTTP/1.1" in problem


def test_ours_goes_before_nginx_s() -> None:
    options, problems = read({NGINX + "proxy-body-size": "1k", OURS + "proxy-body-size": "2k"})
    assert options.body_limit == 2048
    said = "has no effect: the same is said otherwise by an annotation that goes first (keep one)"
    assert problems == [f"0 warning metadata.annotations[{NGINX}proxy-body-size]: {said}"]
    assert read({NGINX + "proxy-body-size": "2k", OURS + "proxy-body-size": "2048"})[1] == []
    options, problems = read({OURS + "proxy-body-size": "bad", NGINX + "proxy-body-size": "1k"})
    assert (options.body_limit, len(problems)) == (1024, 1)


def test_a_hash_goes_before_a_policy() -> None:
    options, problems = read({NGINX + "load-balance": "ewma", NGINX + "upstream-hash-by": "$uri"})
    assert (options.policy, options.hash_by, problems) == ("hash", "$uri", [])


def test_defaults_hold_where_annotations_say_nothing() -> None:
    defaults = Options(tries=7, body_limit=9)
    assert read({NGINX + "proxy-body-size": "1k"}, defaults) == (msgspec.structs.replace(defaults, body_limit=1024), [])


@pytest.mark.parametrize(
    ("value", "tries", "warned"), [("2", 2, False), ("5", 3, True), ("99", 3, True), ("0", 3, False)]
)
def test_no_more_tries_than_the_operator_allows(value: str, tries: int, warned: bool) -> None:
    subject = Subject("Ingress", "shop", "web", Place())
    assert options_of({NGINX + "proxy-next-upstream-tries": value}, Options(), subject, 3).tries == tries
    assert [problem.message for problem in subject.problems] == [
        f"'{value}' is more than the setting retry-tries allows: it counts as 3"
    ] * warned


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_are_refused(name: str) -> None:
    options, [problem] = read({NGINX + name: "return 200 HUSH;"})
    assert options == Options()
    assert problem.startswith(f"0 error metadata.annotations[{NGINX}{name}]: refused: snippets are")
    assert "HUSH" not in problem


@pytest.mark.parametrize("name", sorted(KNOWN - PROTECTING))
def test_what_is_not_supported_is_said_with_why_and_what_instead(name: str) -> None:
    for prefix in (NGINX, OURS):
        options, problems = read({prefix + name: "something"})
        assert options == Options()
        said = f"is not supported and has no effect ({OTHERS[name].why}: {OTHERS[name].instead})"
        assert problems == [f"0 warning metadata.annotations[{prefix}{name}]: {said}"]


@pytest.mark.parametrize("name", sorted(PROTECTING))
def test_what_protects_and_is_not_supported_closes_the_ingress(name: str) -> None:
    for prefix in (NGINX, OURS):
        options, [problem] = read({prefix + name: "something"})
        assert options.closed == f"{prefix}{name} is not supported"
        assert "protects what is behind it: requests get 503" in problem


@pytest.mark.parametrize(
    "value",
    ["", ",", "10.0.0.0/33", "10.0.0.256", "10.0.0.0/255.0.0.0", "10.0.0.0/-1", "10/8", "::/129", "fe80::1%eth0",
     "all", "private", "none", "10.0.0.0/8;", "\u0661.0.0.1", "010.0.0.1", "1.2.3.4/8/9", "10.0.0.0/8," * 1000 + "::1"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["whitelist-source-range", "allowlist-source-range", "denylist-source-range"])
def test_a_list_of_networks_that_cannot_be_read_closes_the_ingress(name: str, value: str) -> None:
    options, [problem] = read({NGINX + name: value})
    assert options == Options(closed=f"{name} cannot be read")
    assert problem.startswith("0 error ")


def test_every_field_of_a_list_of_response_headers() -> None:
    text = "X-Frame-Options: DENY\n\n  Strict-Transport-Security:max-age=1; includeSubDomains\t\nServer:"
    options, problems = read({OURS + "response-headers": text})
    assert problems == []
    assert options.response_headers == (
        ("X-Frame-Options", "DENY"),
        ("Strict-Transport-Security", "max-age=1; includeSubDomains"),
        ("Server", ""),
    )
    assert read({OURS + "response-headers": "A: b\r\nC: d"})[0].response_headers == ()  # CR is none of ours to mend
    assert "is unknown" in read({NGINX + "response-headers": "A: b"})[1][0]


def test_thousands_of_annotations_are_read_in_no_time_and_told_in_few_words() -> None:
    many = {f"{NGINX}proxy-body-siz{number}": "x" for number in range(5000)}
    options, problems = read({**many, NGINX + "proxy-body-size": "2k", NGINX + "server-snippet": "x"})
    assert options.body_limit == 2048
    assert len(problems) <= MOST_TOLD + 2
    assert any("more that have no effect" in problem for problem in problems)
    assert any("refused: snippets" in problem for problem in problems)
    assert read({**many, NGINX + "auth-url": "http://x"})[0].closed


def test_service_upstream_makes_one_attempt() -> None:
    options, _ = read({NGINX + "service-upstream": "true", NGINX + "proxy-next-upstream-tries": "3"})
    assert (options.service_upstream, options.tries) == (True, 1)


def test_two_names_for_one_thing() -> None:
    options, [problem] = read(
        {NGINX + "whitelist-source-range": "10.0.0.0/8", NGINX + "allowlist-source-range": "192.0.2.0/24"}
    )
    assert options.allow == ("192.0.2.0/24",)
    assert (
        "whitelist-source-range]: has no effect: the same is said otherwise by an annotation that goes first" in problem
    )


@pytest.mark.parametrize(("name", "value"), sorted(ALREADY.items()))
def test_what_is_asked_for_and_done_anyway_needs_no_word(name: str, value: str) -> None:
    assert read({NGINX + name: value}) == (Options(), [])
    assert len(read({NGINX + name: "something else"})[1]) == 1


def test_mistyped_names_are_told_from_known_ones() -> None:
    [problem] = read({NGINX + "proxy-body-sise": "1m"})[1]
    assert problem.endswith(f"is unknown and has no effect (did you mean {NGINX}proxy-body-size?)")
    [problem] = read({NGINX + "rewrite-targte": "/"})[1]
    assert problem.endswith(f"(did you mean {NGINX}rewrite-target?)")
    [problem] = read({NGINX + "enable-corse": "true"})[1]
    assert problem.endswith(f"(did you mean {NGINX}enable-cors?)")
    [problem] = read({OURS + "colour": "blue"})[1]
    assert "(known are allowlist-source-range, app-root, backend-protocol, " in problem


def test_other_annotations_are_nobodys_business() -> None:
    others = {
        "kubernetes.io/ingress.class": "x",
        "cert-manager.io/issuer": "y",
        "nginx.org/rewrites": "z",
        "spanway.iox/a": "",
    }
    assert read(others) == (Options(), [])


def test_no_name_is_both_supported_and_not() -> None:
    rows = [row.name for row in ROWS]
    assert set(ALREADY) <= KNOWN
    assert PROTECTING <= KNOWN
    assert sum(len(group.names) for group in GROUPS) == len(KNOWN)
    assert len(rows) == len(set(rows))
    assert not set(rows) & (KNOWN | set(SNIPPETS))
    assert not KNOWN & set(SNIPPETS)
    fields = {field.name for field in msgspec.structs.fields(Options)}
    assert {row.field for row in ROWS} == fields - {"closed"}


@given(st.dictionaries(st.sampled_from([p + r.name for p in (NGINX, OURS) for r in ROWS]), st.text(max_size=12)))
def test_any_value_is_read_or_reported(annotations: dict[str, str]) -> None:
    options, problems = read(annotations)
    assert len(problems) <= len(annotations)
    assert options.body_limit >= 0
    assert min(options.connect_timeout, options.read_timeout, options.send_timeout) >= 1
    assert 1 <= options.tries <= MOST_TRIES
    assert options.sample_ratio is None or 0 <= options.sample_ratio <= 1
    assert (options.policy == "hash") == bool(options.hash_by)
    # Whatever was read can be compiled and sent.
    spec = actions_of(options, Meant("shop", "web", "app", "80", "/a(.*)"))
    if spec is not None:
        assert b"\r" not in Actions(spec).own_lines.replace(b"\r\n", b"")
