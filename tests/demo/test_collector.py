import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.util.re import parse_env_headers

from proxy.demo.collector import environment, printable
from proxy.settings import Tracing

P = "OTEL_EXPORTER_OTLP_TRACES_"


@pytest.mark.parametrize("endpoint", ["", "none", "NONE"])
def test_nothing_is_exported_when_the_proxy_exports_nothing(endpoint):
    assert environment(Tracing(endpoint=endpoint)) == {f"{P}ENDPOINT": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    assert printable(Tracing(endpoint=endpoint)) == ""


@pytest.mark.parametrize(
    ("tracing", "endpoint"),
    [
        (Tracing(endpoint="http://c:4317"), "http://c:4317"),
        (Tracing(endpoint="http://c:4318", protocol="http/protobuf"), "http://c:4318/v1/traces"),
        (Tracing(endpoint="http://c:4318/", protocol="http/protobuf"), "http://c:4318/v1/traces"),
        (Tracing(endpoint="http://c:4318/v1/traces", protocol="http/protobuf"), "http://c:4318/v1/traces"),
        (Tracing(endpoint="http://c/own", protocol="http/protobuf", exact_endpoint=True), "http://c/own"),
    ],
)
def test_the_services_export_where_the_proxy_does(tracing, endpoint):
    assert environment(tracing)[f"{P}ENDPOINT"] == endpoint
    assert environment(tracing)[f"{P}PROTOCOL"] == tracing.protocol


def test_everything_else_goes_along_if_it_is_set():
    tracing = Tracing(endpoint="c:4317", insecure=True, compression="gzip", certificate="ca.pem", timeout=2.5)
    assert environment(tracing) == {
        f"{P}ENDPOINT": "c:4317",
        f"{P}PROTOCOL": "grpc",
        f"{P}COMPRESSION": "gzip",
        f"{P}TIMEOUT": "2.5",
        f"{P}CERTIFICATE": "ca.pem",
        f"{P}INSECURE": "true",
    }


def test_what_is_printed_has_no_credentials():
    assert printable(Tracing(endpoint="https://user:secret@c:4318/x?key=secret")) == "https://c:4318/x"


texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


@given(st.text("abcdefghij-", min_size=1, max_size=9), texts)
def test_headers_arrive_as_they_were(name, value):
    (text,) = [
        v for k, v in environment(Tracing(endpoint="http://c", headers=((name, value),))).items() if "HEADERS" in k
    ]
    assert parse_env_headers(text, liberal=True) == {name.strip(): value}


SCRIPT = """
import sys
from proxy.demo import telemetry
provider = telemetry.set_up("shop", sys.argv[1])
kinds = [type(p.span_exporter).__module__.split(".")[4] for p in provider._active_span_processor._span_processors]
print(*kinds)
print(provider.resource.attributes["service.name"])
provider.shutdown()
"""


@pytest.mark.parametrize(
    ("receiver", "environ", "kinds"),
    [
        ("", {}, ""),
        ("http://127.0.0.1:1/v1/traces", {}, "http"),
        ("http://127.0.0.1:1/v1/traces", environment(Tracing(endpoint="http://127.0.0.1:1")), "http grpc"),
        ("", environment(Tracing(endpoint="http://127.0.0.1:1", protocol="http/protobuf")), "http"),
        ("", {**environment(Tracing()), "OTEL_SERVICE_NAME": "other"}, ""),
        (
            "",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http",
        ),
    ],
)
def test_a_service_exports_to_the_receiver_and_to_the_collector(receiver, environ, kinds):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, receiver],
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [kinds, "shop"]
