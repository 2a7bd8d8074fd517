from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
    user_agent_attributes,
)

from proxy.errors import Kind, Side
from proxy.settings import Tracing
from proxy.trace import semconv, semconv_wire
from proxy.trace.encode import Encoder
from tests.trace.oracle import parsed
from tests.trace.records import Reading, Route, attempt, record

PAGE = Path(__file__).parents[2] / "docs" / "tracing.md"
STABLE = {
    value
    for module in (
        client_attributes,
        error_attributes,
        http_attributes,
        network_attributes,
        server_attributes,
        url_attributes,
        user_agent_attributes,
    )
    for value in vars(module).values()
    if isinstance(value, str) and "." in value and " " not in value
}
OPT_IN = {"http.request.body.size", "http.response.body.size"}  # in development


def test_names_are_the_conventions_or_our_own() -> None:
    for attribute in semconv.ATTRIBUTES:
        if attribute.name.startswith("spanway."):
            assert re.fullmatch(r"spanway(\.[a-z]+(_[a-z]+)*)+", attribute.name)
        else:
            assert attribute.name in STABLE | OPT_IN
    names = [attribute.name for attribute in semconv.ATTRIBUTES]
    assert len(set(names)) == len(names)


def test_microseconds_say_so() -> None:
    for attribute in semconv.ATTRIBUTES:
        assert attribute.name.endswith(".us") == (attribute.unit == "us")


@pytest.mark.parametrize(
    "made",
    [
        record(
            parent_id=b"parent01",
            query=b"a=1",
            request_body_size=1,
            method=b"BREW",
            outcome="upgraded",
            error_type="internal",
        ),
        record(
            attempts=[attempt(queue_ns=1, dns_ns=1, connect_ns=1, tls_ns=1, resend=1, status=0, error_type="internal")]
        ),
        record(attempts=[attempt(status=0, tcp=Reading())], route=Route(uid=""), tcp=Reading()),
    ],
)
def test_spans_have_only_listed_attributes_of_the_listed_type_and_kind(made) -> None:
    listed = {attribute.name: attribute for attribute in semconv.ATTRIBUTES}
    kinds = {"string_value": "string", "int_value": "int", "bool_value": "boolean"}
    for span in parsed(Encoder(Tracing()).encode(made)):
        for each in span.attributes:
            attribute = listed[each.key]
            assert kinds[each.value.WhichOneof("value") or ""] == attribute.type
            assert attribute.spans in ("both", "SERVER" if span.kind == 2 else "CLIENT")


def test_every_listed_attribute_is_written_somewhere() -> None:
    attempts = [
        attempt(queue_ns=1, dns_ns=1, connect_ns=1, tls_ns=1, resend=1, error_type="response_cut", tcp=Reading()),
        attempt(status=0),
    ]
    everything = record(
        parent_id=b"parent01",
        query=b"a=1",
        request_body_size=1,
        method=b"BREW",
        outcome="upgraded",
        error_type="internal",
        tcp=Reading(),
        attempts=attempts,
    )
    written = [{each.key for each in span.attributes} for span in parsed(Encoder(Tracing()).encode(everything))]
    server, client = written[0], written[1] | written[2]
    for attribute in semconv.ATTRIBUTES:
        assert (attribute.name in server) == (attribute.spans in ("both", "SERVER")), attribute
        assert (attribute.name in client) == (attribute.spans in ("both", "CLIENT")), attribute


def test_faults_of_the_client_are_those_of_the_table() -> None:
    assert {kind.label for kind in Kind if kind.side is Side.DOWNSTREAM} == semconv.DOWNSTREAM_FAULTS
    assert semconv.CLIENT_GONE in semconv.DOWNSTREAM_FAULTS
    assert "upstream_reset" not in semconv.DOWNSTREAM_FAULTS
    assert semconv.FAULT_TEXTS["upstream_reset"] == Kind.UPSTREAM_RESET.text


def test_names_of_the_wire() -> None:
    names = [attribute.name for attribute in semconv_wire.ATTRIBUTES]
    assert len({*names, *(attribute.name for attribute in semconv.ATTRIBUTES)}) == len(names) + len(semconv.ATTRIBUTES)
    for attribute in semconv_wire.ATTRIBUTES:
        assert attribute.spans in ("wire", "place")
        assert attribute.name == "network.transport" or attribute.name.startswith("spanway.w")
        assert (attribute.unit == "us") == (".us" in attribute.name)
    assert semconv_wire.place_us("ovs br0") == "spanway.wire.us.ovs_br0"
    assert semconv_wire.place_us("Link (px)") == "spanway.wire.us.link_px"


# The page


def test_the_page_is_current() -> None:
    page = PAGE.read_text("utf-8")
    assert semconv.renew(page) == page, "run: python -m proxy.trace.semconv docs/tracing.md"


def test_every_row_has_as_many_cells_as_its_head() -> None:
    for name, table in semconv.TABLES.items():
        for part in table().split("\n\n"):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in part.splitlines()}) == 1, name


def test_the_page_names_everything() -> None:
    page = PAGE.read_text("utf-8")
    attributes = (*semconv.ATTRIBUTES, *semconv_wire.ATTRIBUTES)
    for name in (*(a.name for a in attributes), *semconv.OUTCOMES, *semconv_wire.VERDICTS, *(k.label for k in Kind)):
        assert f"`{name}`" in page


def test_a_page_without_its_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="attributes"):
        semconv.renew("# Tracing\n")


def test_the_command_prints_and_renews(tmp_path, capsys) -> None:
    semconv.main([])
    printed = capsys.readouterr().out
    assert all(f"| `{attribute.name}` |" in printed for attribute in semconv.ATTRIBUTES)
    page = tmp_path / "page.md"
    page.write_text("before\n" + printed.replace("http.route", "stale.name") + "after\n", "utf-8")
    semconv.main([str(page)])
    assert page.read_text("utf-8") == f"before\n{printed}after\n"
