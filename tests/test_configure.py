"""Where settings come from: precedence, the file, the project's variables and OpenTelemetry's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.catalogue import catalogue
from proxy.configure import load
from proxy.errors import SettingsError
from proxy.settings import Address, Settings

# A value for each setting, as one writes it, that is not its default.
SAMPLES = {
    "ingress": "pyproject.toml",
    "upstream": "shop=127.0.0.1:3000",
    "http": "127.0.0.1:81",
    "https": "127.0.0.1:444",
    "admin": "off",
    "workers": "3",
    "trust": "10.0.0.0/8",
    "access_log": "off",
    "ingress_class": "spanway",
    "upstream_ca": "pyproject.toml",
    "tracing.endpoint": "http://collector:4317",
    "tracing.protocol": "http/protobuf",
    "tracing.headers": "a=b",
    "tracing.compression": "gzip",
    "tracing.certificate": "pyproject.toml",
    "tracing.client_certificate": "pyproject.toml",
    "tracing.client_key": "pyproject.toml",
    "tracing.propagators": "b3",
    "tracing.sampler": "always_off",
    "tracing.sampler_argument": "0.5",
    "tracing.service_name": "edge",
    "tracing.resource": "a=b",
    "tracing.known_methods": "GET,BREW",
    "tracing.redact": "token",
    "tracing.skip_paths": "/healthz",
    "tracing.queue": "1MiB",
    "retry_tries": "5",
    "default_backend": "shop/cart:80",
    "default_certificate": "shop/wildcard",
    "wire.socket": "/tmp/wire.sock",
    "wire.ports": "50000-50999",
    "wire.kernel": "never",
    "cluster.kubeconfig": "kubeconfig",
    "cluster.watch_namespace": "shop",
    "cluster.publish_service": "spanway/edge",
    "cluster.publish_address": "192.0.2.1,edge.example.org",
    "cluster.election_namespace": "spanway",
    "cluster.update_status": "false",
    "cluster.update_status_on_shutdown": "false",
    "cluster.zone": "a",
}
KINDS = {bool: "true", int: "20000", float: "12.5"}


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])


def sample(key: str) -> str:
    return SAMPLES.get(key) or KINDS[catalogue()[key].kind]


def companions(key: str) -> dict[str, str]:
    """What has to be set beside it."""
    pair = {"tracing.client_certificate": "tracing.client_key", "tracing.client_key": "tracing.client_certificate"}
    return {catalogue()[pair[key]].variable: "dev"} if key in pair else {}


def written(tmp_path: Path, text: str) -> dict[str, object]:
    file = tmp_path / "spanway.toml"
    file.write_text(text)
    return {"config": str(file)}


def refused(flags: dict[str, object], environment: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(flags, environment or {})
    return str(caught.value)


def otel(**environment: str) -> tuple[Settings, tuple[str, ...]]:
    return load({}, {f"OTEL_{name}": value for name, value in environment.items()})


def test_defaults() -> None:
    assert load({}, {}) == (Settings(), ())


@pytest.mark.parametrize("key", list(catalogue()))
def test_every_setting_by_its_variable(key: str) -> None:
    entry = catalogue()[key]
    settings, warnings = load({}, {entry.variable: sample(key), **companions(key)})
    assert entry.value_in(settings) != entry.value_in(Settings())
    assert not warnings


@pytest.mark.parametrize("key", list(catalogue()))
def test_every_setting_in_the_file(key: str, tmp_path: Path) -> None:
    entry = catalogue()[key]
    table = f"[{entry.section}]\n" if entry.section else ""
    file = written(tmp_path, f"{table}{entry.name.replace('_', '-')} = '{sample(key)}'\n")
    settings, _ = load(file, companions(key))
    by_variable, _ = load({}, {entry.variable: sample(key), **companions(key)})
    assert settings == by_variable


@pytest.mark.parametrize("key", [key for key, entry in catalogue().items() if entry.meaning.otel])
def test_every_opentelemetry_variable(key: str) -> None:
    entry = catalogue()[key]
    text = "12500" if entry.meaning.unit == "s" else sample(key)
    by_variable, _ = load({}, {entry.variable: sample(key), **companions(key)})
    for name in entry.meaning.otel:
        settings, warnings = load({}, {name: text, **companions(key)})
        assert entry.value_in(settings) == entry.value_in(by_variable)
        assert not warnings


def test_precedence(tmp_path: Path) -> None:
    file = written(tmp_path, "http = 1\nworkers = 1\nvia = true\n[tracing]\nservice-name = 'file'\nbatch = 1\n")
    flags = file | {"http": ["4"]}
    environment = {
        "SPANWAY_HTTP": "3",
        "SPANWAY_WORKERS": "3",
        "SPANWAY_TRACING_SERVICE_NAME": "own",
        "OTEL_SERVICE_NAME": "otel",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2",
    }
    settings, _ = load(flags, environment)
    assert settings.http == (Address("0.0.0.0", 4),)
    assert settings.workers == 3
    assert settings.via
    assert settings.tracing.service_name == "own"
    assert settings.tracing.batch == 2


def test_a_lower_default_is_kept_where_nothing_is_said() -> None:
    base = Settings(access_log="off", http=(Address("127.0.0.1", 8000),))
    settings, _ = load({"via": True}, {"SPANWAY_TIMEOUTS_IDLE": "9"}, base)
    assert (settings.access_log, settings.http, settings.via) == ("off", base.http, True)
    assert settings.timeouts.idle == 9
    assert settings.timeouts.head == Settings().timeouts.head


def test_errors_name_the_flag_the_variable_or_the_line(tmp_path: Path) -> None:
    assert refused({"http": ["80x"]}).startswith("--http: ")
    assert refused({}, {"SPANWAY_HTTP": "80x"}).startswith("SPANWAY_HTTP: ")
    file = written(tmp_path, "# settings\nvia = true\n\n[timeouts]\nhead = 5\nidle = 'soon'\n")
    assert refused(file).startswith(f"{file['config']}:6: timeouts.idle: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vai = true\n", ":1: vai: there is no such setting; did you mean 'via'?"),
        ("[timeouts]\nidel = 3\n", ":2: timeouts.idel: there is no such setting; did you mean 'timeouts.idle'?"),
        ("via = true\n[limit]\nhead = 1\n", ":2: limit: there is no such setting"),
        ("timeouts.idle = 'x'\n", ":1: timeouts.idle: 'x' is not a time"),
        ("timeouts = 3\n", ":1: timeouts: is a table; write [timeouts]"),
        ("access-log = 'a'\naccess_log = 'b'\n", ":2: access_log: is set twice"),
        ("via = \n", "is not valid TOML: Invalid value (at line 1"),
        ("[tracing]\nheaders = { a = ['hunter2'] }\n", ":2: tracing.headers: has a value that is neither"),
        ("x = {y = 1}\n", ":1: x: there is no such setting"),
        ("http = [8080, true]\n", ":1: http: takes text or a list of texts"),
    ],
)
def test_what_is_wrong_in_the_file(text: str, says: str, tmp_path: Path) -> None:
    assert says in refused(written(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    assert refused({"config": missing}).startswith(f"--config: '{missing}' does not exist")
    assert refused({}, {"SPANWAY_CONFIG": missing}).startswith(f"SPANWAY_CONFIG: '{missing}' does not exist")
    assert "cannot be read" in refused({"config": str(tmp_path)})
    (tmp_path / "latin.toml").write_bytes(b"access-log = '\xe9'\n")
    assert "is not UTF-8" in refused({"config": str(tmp_path / "latin.toml")})


def test_an_empty_variable_counts_as_absent() -> None:
    assert load({}, {"SPANWAY_HTTP": "", "OTEL_SERVICE_NAME": "", "SPANWAY_CONFIG": ""}) == (Settings(), ())


def test_a_misspelt_variable_is_told() -> None:
    settings, warnings = load({}, {"SPANWAY_TIMEOUT_IDLE": "3"})
    assert settings == Settings()
    assert warnings == ("SPANWAY_TIMEOUT_IDLE is not a setting and was ignored; did you mean SPANWAY_TIMEOUTS_IDLE?",)


def test_a_variable_like_no_setting_is_somebody_elses() -> None:
    assert load({}, {"SPANWAY_CACHE": "/var/cache", "SPANWAY_VERSION": "1", "SPANWAY_IMAGE": "x"}) == (Settings(), ())


def test_what_kubernetes_sets_for_a_service_of_our_name_is_not_ours() -> None:
    links = {
        "SPANWAY_SERVICE_HOST": "10.0.0.1",
        "SPANWAY_SERVICE_PORT": "80",
        "SPANWAY_SERVICE_PORT_HTTP": "80",
        "SPANWAY_PORT": "tcp://10.0.0.1:80",
        "SPANWAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "SPANWAY_ADMIN_SERVICE_PORT": "9901",
        "SPANWAY_ADMIN_PORT": "tcp://10.0.0.1:9901",
    }
    assert load({}, links) == (Settings(), ())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"http": ["off"]}, "--http: nothing is left to listen on"),
        ({"upstream_ca": "no/such.pem"}, "--upstream-ca: 'no/such.pem' is not a file"),
        ({"wire.socket": "off"}, None),
        ({"wire.socket": "wire.sock"}, "--wire: 'wire.sock' is not the path of a unix socket: absolute"),
        ({"wire.socket": "/" + "x" * 107}, "at most 107 bytes; or 'off'"),
        ({"tracing.endpoint": "collector"}, None),
        ({"tracing.endpoint": "ftp://collector"}, "--otlp: OTLP endpoint 'ftp://collector' is neither http nor https"),
        ({"tracing.endpoint": "http://:4317"}, "has no usable host name"),
        ({"tracing.endpoint": "http://[::1"}, "is not a URL"),
        ({"tracing.endpoint": "http://a:99999"}, "is not a URL"),
    ],
)
def test_what_no_setting_sees_alone(flags: dict[str, Any], says: str | None) -> None:
    if says is None:
        load(flags, {})
    else:
        assert says in refused(flags)


def test_credentials_in_an_endpoint_are_not_repeated() -> None:
    assert "hunter2" not in refused({"tracing.endpoint": "ftp://me:hunter2@collector"})


def test_pairs_of_settings() -> None:
    assert "go together" in refused({}, {"SPANWAY_TRACING_CLIENT_KEY": "dev"})
    assert "cannot hold a request line" in refused({}, {"SPANWAY_LIMITS_HEAD": "1k"})


# OpenTelemetry --------------------------------------------------------------------------------------------------------


ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"


@pytest.mark.parametrize(
    ("flags", "environment", "endpoint", "protocol"),
    [
        ({}, {ENDPOINT: "http://c:4317"}, "http://c:4317", "grpc"),
        ({}, {ENDPOINT: "c:4317"}, "c:4317", "grpc"),
        ({}, {ENDPOINT: "unix:/run/otel.sock"}, "unix:/run/otel.sock", "grpc"),
        ({}, {ENDPOINT: "http://c:4318"}, "http://c:4318", "http/protobuf"),
        ({}, {ENDPOINT: "https://c/otlp"}, "https://c/otlp", "http/protobuf"),
        ({}, {ENDPOINT: "https://c/"}, "https://c/", "grpc"),
        ({}, {ENDPOINT: "c:4318"}, "c:4318", "grpc"),
        ({}, {TRACES_ENDPOINT: "http://a:1", ENDPOINT: "http://b:2"}, "http://a:1", "grpc"),
        ({}, {ENDPOINT: "http://c:4318", PROTOCOL: "grpc"}, "http://c:4318", "grpc"),
        (
            {},
            {ENDPOINT: "http://c:9", PROTOCOL: "grpc", TRACES_PROTOCOL: "http/protobuf"},
            "http://c:9",
            "http/protobuf",
        ),
        ({"tracing.endpoint": "http://f:4317"}, {ENDPOINT: "http://c:4318"}, "http://f:4317", "grpc"),
        ({"tracing.endpoint": "http://f:4318"}, {}, "http://f:4318", "http/protobuf"),
        ({"tracing.endpoint": "none"}, {ENDPOINT: "http://c:4318"}, "none", "grpc"),
        ({}, {"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4317", "grpc"),
        ({}, {"OTEL_TRACES_EXPORTER": "otlp", ENDPOINT: "http://c:1"}, "http://c:1", "grpc"),
        (
            {},
            {"OTEL_TRACES_EXPORTER": "otlp", PROTOCOL: "http/protobuf"},
            "http://localhost:4318",
            "http/protobuf",
        ),
        ({}, {"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://c:4317"}, "none", "grpc"),
    ],
)
def test_endpoints(flags: dict[str, object], environment: dict[str, str], endpoint: str, protocol: str) -> None:
    settings, warnings = load(flags, environment)
    assert settings.tracing.endpoint == endpoint
    assert settings.tracing.protocol == protocol
    assert not warnings


@pytest.mark.parametrize(
    ("flags", "environment", "exact"),
    [
        ({}, {ENDPOINT: "http://c:4318/x"}, False),
        ({}, {TRACES_ENDPOINT: "http://c:4318/x"}, True),
        ({}, {TRACES_ENDPOINT: "http://c:4318/x", "SPANWAY_TRACING_EXACT_ENDPOINT": "false"}, False),
        ({"tracing.endpoint": "http://f:4318"}, {TRACES_ENDPOINT: "http://c:4318/x"}, False),
    ],
)
def test_only_the_variable_for_traces_is_a_whole_url(
    flags: dict[str, object], environment: dict[str, str], exact: bool
) -> None:
    assert load(flags, environment).settings.tracing.exact_endpoint is exact


def test_a_disabled_sdk_records_nothing_and_passes_context_on() -> None:
    settings, _ = otel(SDK_DISABLED="True", EXPORTER_OTLP_ENDPOINT="http://c:4317", PROPAGATORS="b3")
    assert settings.tracing.endpoint == "none"
    assert settings.tracing.sampler == "always_off"
    assert settings.tracing.propagators == ("b3",)
    assert otel(SDK_DISABLED="1")[0] == Settings()


def test_durations_are_milliseconds() -> None:
    settings, warnings = otel(EXPORTER_OTLP_TIMEOUT="2500", BSP_SCHEDULE_DELAY="5000")
    assert settings.tracing.timeout == 2.5
    assert settings.tracing.delay == 5
    assert not warnings
    settings, warnings = otel(EXPORTER_OTLP_TIMEOUT="2.5s")
    assert settings == Settings()
    assert warnings == ("OTEL_EXPORTER_OTLP_TIMEOUT: '2.5s' is not a number of milliseconds; it was ignored",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("TRACES_SAMPLER", "jaeger_remote"),
        ("TRACES_SAMPLER_ARG", "often"),
        ("TRACES_SAMPLER_ARG", "2"),
        ("BSP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("RESOURCE_ATTRIBUTES", "a=b,c"),
        ("TRACES_EXPORTER", "console"),
        ("PROPAGATORS", "xray"),
    ],
)
def test_what_cannot_be_used_is_ignored_with_a_warning(name: str, text: str) -> None:
    settings, warnings = otel(**{name: text})
    assert settings == Settings()
    assert warnings
    assert all(warning.startswith(f"OTEL_{name}: ") for warning in warnings)


def test_unusable_variables_for_traces_leave_the_one_for_every_signal() -> None:
    settings, warnings = otel(EXPORTER_OTLP_TRACES_COMPRESSION="zip", EXPORTER_OTLP_COMPRESSION="gzip")
    assert settings.tracing.compression == "gzip"
    assert len(warnings) == 1


def test_propagators_only_others_know_are_left_out() -> None:
    settings, warnings = otel(PROPAGATORS="xray, b3 ,tracecontext")
    assert settings.tracing.propagators == ("b3", "tracecontext")
    assert len(warnings) == 1
    assert otel(PROPAGATORS="xray") == (
        Settings(),
        ("OTEL_PROPAGATORS: 'xray' is not one of tracecontext, baggage, jaeger, b3, b3multi, none; it was ignored",),
    )
    assert otel(PROPAGATORS="xray,ot")[1] == ("OTEL_PROPAGATORS: nothing of 'xray,ot' can be used; it was ignored",)


def test_the_service_name_is_found_in_the_resource_unless_it_is_given() -> None:
    settings, _ = otel(RESOURCE_ATTRIBUTES="service.name=edge,team=web")
    assert settings.tracing.service_name == "edge"
    assert settings.tracing.resource == (("team", "web"),)
    settings, _ = otel(RESOURCE_ATTRIBUTES="service.name=edge", SERVICE_NAME="front")
    assert settings.tracing.service_name == "front"
    assert settings.tracing.resource == ()


def test_headers_are_decoded_and_never_warned_about_in_clear() -> None:
    settings, _ = otel(EXPORTER_OTLP_HEADERS="Authorization=Basic%20aGk%3D,x=1")
    assert settings.tracing.headers == (("Authorization", "Basic aGk="), ("x", "1"))
    _, warnings = otel(EXPORTER_OTLP_HEADERS="hunter2")
    assert warnings
    assert "hunter2" not in warnings[0]
