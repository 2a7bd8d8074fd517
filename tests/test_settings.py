"""Settings: what each written value means, that every setting can be set from everywhere, and the page about them."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalogue import Entry, catalogue, sections, written
from proxy.errors import SettingsError
from proxy.settings import EVERYONE, PRIVATE, Address, Override, Settings
from proxy.settings_reference import explained, further, markdown
from proxy.settings_wire import PortRange
from proxy.values import override, read

ROOT = Path(__file__).parents[1]


def entry(key: str) -> Entry:
    return catalogue()[key]


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("timeouts.idle", "75", 75.0),
        ("timeouts.idle", "1.5", 1.5),
        ("timeouts.idle", "500ms", 0.5),
        ("timeouts.idle", "2m", 120.0),
        ("timeouts.idle", " 1 H ", 3600.0),
        ("timeouts.idle", 60, 60.0),
        ("timeouts.drain", 0, 0.0),
        ("limits.head", "8192", 8192),
        ("limits.head", "8k", 8192),
        ("limits.head", "8KiB", 8192),
        ("limits.head", "1 MB", 1024 * 1024),
        ("limits.head", "2GiB", 2 * 1024**3),
        ("limits.fields", "7", 7),
        ("limits.fields", 7, 7),
        ("via", "true", True),
        ("via", "On", True),
        ("via", "0", False),
        ("via", True, True),
        ("http", "8080", (Address("0.0.0.0", 8080),)),
        ("http", 8080, (Address("0.0.0.0", 8080),)),
        ("http", ["127.0.0.1:8080", "[::1]:0"], (Address("127.0.0.1", 8080), Address("::1", 0))),
        ("http", "8080,8081,8080", (Address("0.0.0.0", 8080), Address("0.0.0.0", 8081))),
        ("http", "off", ()),
        ("admin", "9901", Address("127.0.0.1", 9901)),
        ("admin", 9901, Address("127.0.0.1", 9901)),
        ("admin", "off", None),
        ("trust", "all", EVERYONE),
        ("trust", "none", ()),
        ("trust", [], ()),
        ("access_log", "-", "-"),
        ("ingress", ["pyproject.toml", "dev"], (Path("pyproject.toml"), Path("dev"))),
        ("wire.ports", "50000 - 50999", PortRange(50000, 50999)),
        ("wire.ports", "1024-65535", PortRange(1024, 65535)),
        ("tracing.propagators", "b3,tracecontext,b3", ("b3", "tracecontext")),
        ("tracing.propagators", "none", ()),
        ("tracing.skip_paths", ["/healthz", "/readyz"], ("/healthz", "/readyz")),
        ("tracing.skip_paths", [], ()),
        ("tracing.resource", "a=1, b=x%2Cy", (("a", "1"), ("b", "x,y"))),
        ("tracing.resource", {"a": 1, "b": "x,y"}, (("a", "1"), ("b", "x,y"))),
        ("tracing.compression", "gzip", "gzip"),
        ("tracing.sampler_argument", "0.25", 0.25),
    ],
)
def test_values(key: str, raw: object, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = read(entry(key), raw)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "raw", "says"),
    [
        ("timeouts.idle", "soon", "write seconds such as 60"),
        ("timeouts.idle", "-1", "is not a time"),
        ("timeouts.idle", "1e3", "is not a time"),
        ("timeouts.idle", "0", "the least is 0.1 s"),
        ("timeouts.idle", float("inf"), "not a finite number"),
        ("timeouts.idle", float("nan"), "not a finite number"),
        ("timeouts.idle", True, "not true or false"),
        ("timeouts.idle", [60], "takes one value, not a list"),
        ("tracing.sampler_argument", "5s", "is not a number"),
        ("tracing.sampler_argument", "1.5", "the most is 1"),
        ("limits.head", "8 potatoes", "is not a number of bytes"),
        ("limits.head", "0x2000", "is not a number of bytes"),
        ("limits.head", "10", "the least is 256 bytes"),
        ("limits.head", 8192.0, "takes a whole number"),
        ("limits.head", "9" * 18 + "g", "is too large"),
        ("limits.fields", 2**63, "is too large"),
        ("limits.fields", "1_0", "is not a whole number"),
        ("limits.fields", "٣", "is not a whole number"),
        ("limits.fields", "auto", "is not a whole number"),
        ("workers", "0", "the least is 1"),
        ("workers", "many", "write N|auto"),
        ("via", "maybe", "neither true nor false"),
        ("via", 1, "neither true nor false"),
        ("http", "80x", "80x"),
        ("http", "127.0.0.1:99999", "99999"),
        ("http", "", "is empty"),
        ("http", {"port": 1}, "not a table"),
        ("http", True, "not true or false"),
        ("trust", "10.0.0.0/40", "10.0.0.0/40"),
        ("ingress", "no/such/file.yaml", "does not exist"),
        ("access_log", 3, "put it in quotes"),
        ("access_log", "a\nb", "control character"),
        ("tracing.protocol", "grcp", "did you mean 'grpc'?"),
        ("tracing.sampler", "always", "is not one of always_on"),
        ("tracing.propagators", "b3,xray", "'xray' is not one of"),
        ("tracing.propagators", "b3,none", "'none' stands alone"),
        ("wire.ports", "57344", "'57344' is not LOW-HIGH; for example 57344-60999"),
        ("wire.ports", 57344, "takes text"),
        ("wire.ports", "60999-57344", "low end first"),
        ("wire.ports", "80-90", "within 1024-65535"),
        ("wire.ports", "60000-70000", "within 1024-65535"),
        ("wire.kernel", "sometimes", "is not one of wire, always, never"),
        ("tracing.resource", "novalue", "'novalue' is not KEY=VALUE"),
        ("tracing.resource", {"a": [1]}, "neither text nor a number"),
    ],
)
def test_refused_values(key: str, raw: object, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(entry(key), raw)
    assert says in str(caught.value)


def test_auto_is_a_worker_per_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2, 5})
    assert read(entry("workers"), "auto") == 3


def test_a_secret_is_never_part_of_a_message() -> None:
    with pytest.raises(SettingsError) as caught:
        read(entry("tracing.headers"), "a=b,hunter2")
    assert "hunter2" not in str(caught.value)
    assert "part 2" in str(caught.value)
    settings = Settings()
    told = dataclasses.replace(settings.tracing, headers=(("authorization", "hunter2"),))
    assert entry("tracing.headers").written(settings.replace(tracing=told)) == "***"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("shop=127.0.0.1:3000", Override("", "shop", "", "http", (Address("127.0.0.1", 3000),))),
        ("default/shop:80=a:1,b:2", Override("default", "shop", "80", "http", (Address("a", 1), Address("b", 2)))),
        ("shop:web=https://a:1,https://b:2", Override("", "shop", "web", "https", (Address("a", 1), Address("b", 2)))),
        ("shop=http://[::1]:3000", Override("", "shop", "", "http", (Address("::1", 3000),))),
    ],
)
def test_overrides(text: str, value: Override) -> None:
    assert override(text) == value
    assert override(str(value)) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shop", "is not [NAMESPACE/]SERVICE[:PORT]=HOST:PORT"),
        ("shop=", "is not [NAMESPACE/]SERVICE[:PORT]=HOST:PORT"),
        ("=a:1", "'' in '=a:1' is not the name of a service"),
        ("/shop=a:1", "is not [NAMESPACE/]SERVICE[:PORT]=HOST:PORT"),
        ("shop:=a:1", "is not [NAMESPACE/]SERVICE[:PORT]=HOST:PORT"),
        ("Shop=a:1", "'Shop'"),
        ("a/b/shop=a:1", "'a/b'"),
        ("shop:0=a:1", "'0' in"),
        ("shop:70000=a:1", "ports are 1 to 65535"),
        ("shop=a", "'shop=a'"),
        ("shop=a:0", "port 0"),
        ("shop=a:1,,b:2", "'shop=a:1,,b:2'"),
        ("shop=https://a:1,b:2", "mixes https and http"),
        ("shop=ftp://a:1", "a scheme that is not http or https"),
    ],
)
def test_refused_overrides(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        override(text)
    assert says in str(caught.value)


LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@given(
    namespace=st.just("") | LABEL,
    service=LABEL,
    port=st.just("") | LABEL.filter(lambda text: not text.isdecimal()) | st.integers(1, 65535).map(str),
    scheme=st.sampled_from(("http", "https")),
    ports=st.lists(st.integers(1, 65535), min_size=1, max_size=4),
)
def test_every_override_reads_back(namespace: str, service: str, port: str, scheme: str, ports: list[int]) -> None:
    endpoints = tuple(Address("127.0.0.1", number) for number in ports)
    text = f"{namespace + '/' if namespace else ''}{service}{':' + port if port else ''}=" + ",".join(
        f"{scheme}://{endpoint}" for endpoint in endpoints
    )
    assert override(text) == Override(namespace, service, port, scheme, endpoints)  # type: ignore[arg-type] # sampled


@given(st.text(max_size=60))
def test_no_text_breaks_a_reader(text: str) -> None:
    for one in catalogue().values():
        with contextlib.suppress(SettingsError):  # and nothing else
            read(one, text)


@given(st.sampled_from(sorted(catalogue())))
def test_every_default_reads_back_as_it_is_written(key: str) -> None:
    one = entry(key)
    default = one.value_in(Settings())
    text = written(default, one.meaning)
    if text:
        assert read(one, text) == default


def test_the_catalogue_has_every_field() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)} - set(sections())
    for section in sections():
        fields |= {f"{section}.{field.name}" for field in dataclasses.fields(getattr(Settings(), section))}
    assert set(catalogue()) == fields
    assert sections() == ("limits", "timeouts", "tracing", "wire", "cluster")


def test_no_two_settings_share_a_name() -> None:
    entries = list(catalogue().values())
    assert len({one.variable for one in entries}) == len(entries)
    flags = [one.meaning.flag for one in entries if one.meaning.flag]
    assert len(set(flags)) == len(flags)
    variables = [name for one in entries for name in one.meaning.otel]
    assert len(set(variables)) == len(variables)


def test_private_is_every_private_range() -> None:
    assert written(PRIVATE, entry("trust").meaning) == "private"
    assert read(entry("trust"), "private") == PRIVATE


def test_the_page_is_current() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert page == markdown(), "docs/settings.md is not what the code says; write it anew with './dev docs'"


def test_the_page_has_every_setting_once() -> None:
    rows = [line for line in markdown().splitlines() if line.startswith("| `")]
    for one in catalogue().values():
        assert sum(f"`{one.variable}`" in row for row in rows) == 1
    cells = [row.replace("\\|", "").count("|") for row in rows if "SPANWAY_" in row]
    assert set(cells) == {6}


def test_help_names_every_setting_without_a_flag_within_the_width() -> None:
    text = further(80, ("", *sections()))
    assert max(map(len, text.splitlines())) <= 80
    for one in catalogue().values():
        assert (f"  {one.variable} " in text) is not bool(one.meaning.flag)


def test_a_setting_explained_in_one_line() -> None:
    assert explained(entry("timeouts.idle"), Settings()) == "idle keep-alive connection downstream [default 75s]"
    assert explained(entry("via"), Settings(), "SPANWAY_VIA") == "send Via [SPANWAY_VIA]"
