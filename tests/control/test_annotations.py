from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.annotations import ALREADY, KNOWN, MOST_TRIES, NGINX, OURS, ROWS, SNIPPETS, Options, options_of
from proxy.control.objects import Place
from proxy.control.problem import Subject
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
    assert (options.body_limit, problems) == (2048, [])
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
    assert problem.startswith(f"0 warning metadata.annotations[{NGINX}{name}]: refused: snippets are")
    assert "HUSH" not in problem


@pytest.mark.parametrize(
    "name", ["rewrite-target", "ssl-redirect", "whitelist-source-range", "auth-url", "enable-cors"]
)
def test_what_is_not_supported_yet_is_said(name: str) -> None:
    for prefix in (NGINX, OURS):
        options, problems = read({prefix + name: "true"})
        assert options == Options()
        said = "is not supported yet and has no effect (requests are served as without it)"
        assert problems == [f"0 warning metadata.annotations[{prefix}{name}]: {said}"]


@pytest.mark.parametrize(("name", "value"), sorted(ALREADY.items()))
def test_what_is_asked_for_and_done_anyway_needs_no_word(name: str, value: str) -> None:
    assert read({NGINX + name: value}) == (Options(), [])
    assert len(read({NGINX + name: "something else"})[1]) == 1


def test_mistyped_names_are_told_from_known_ones() -> None:
    [problem] = read({NGINX + "proxy-body-sise": "1m"})[1]
    assert problem.endswith(f"is unknown and has no effect (did you mean {NGINX}proxy-body-size?)")
    [problem] = read({NGINX + "rewrite-targte": "/"})[1]
    assert problem.endswith(f"(did you mean {NGINX}rewrite-target?)")
    [problem] = read({OURS + "colour": "blue"})[1]
    assert "(known are backend-protocol, canary, load-balance, " in problem


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
    assert len(rows) == len(set(rows))
    assert not set(rows) & (KNOWN | set(SNIPPETS))
    assert not KNOWN & set(SNIPPETS)
    fields = {field.name for field in msgspec.structs.fields(Options)}
    assert {row.field for row in ROWS} == fields


@given(st.dictionaries(st.sampled_from([p + r.name for p in (NGINX, OURS) for r in ROWS]), st.text(max_size=12)))
def test_any_value_is_read_or_reported(annotations: dict[str, str]) -> None:
    options, problems = read(annotations)
    assert len(problems) <= len(annotations)
    assert options.body_limit >= 0
    assert min(options.connect_timeout, options.read_timeout, options.send_timeout) >= 1
    assert 1 <= options.tries <= MOST_TRIES
    assert options.sample_ratio is None or 0 <= options.sample_ratio <= 1
    assert (options.policy == "hash") == bool(options.hash_by)
