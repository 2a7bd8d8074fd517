"""The command line: what reaches the commands, how errors are said, and how little is imported before one runs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import proxy
from proxy import cli
from proxy.catalogue import CLUSTER, GROUPS, LACKS, catalogue
from proxy.errors import SettingsError
from proxy.settings import Address, Override, ServicePort, Settings
from proxy.settings_cluster import Cluster, ObjectName

ROOT = Path(__file__).parents[1]
MANIFESTS = str(ROOT / "proxy/demo/manifests")


class Called:
    """Stands in for a module that runs a command, and remembers how it was called."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}
        self.raises: BaseException | None = None

    def __call__(self, *arguments: Any, **options: Any) -> int:
        self.arguments, self.options = arguments, options
        if self.raises:
            raise self.raises
        return 3

    @property
    def settings(self) -> Settings:
        settings = self.arguments[0]
        assert isinstance(settings, Settings)
        return settings


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, function: str) -> Called:
    called = Called()
    made = types.ModuleType(module)
    setattr(made, function, called)
    monkeypatch.setitem(sys.modules, module, made)
    package, _, name = module.rpartition(".")
    monkeypatch.setattr(importlib.import_module(package), name, made, raising=False)
    return called


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Called:
    return stand_in(monkeypatch, "proxy.app", "run")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of an error."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith("spanway: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_serve_is_handed_every_flag(app: Called) -> None:
    flags = f"--ingress {MANIFESTS} {ROOT / 'dev'} --upstream demo/shop:80=127.0.0.1:1,127.0.0.1:2 cart=https://a:3 "
    flags += "--http 8080 --http [::1]:0 --https 8443 --admin off --workers 2 --trust 10.0.0.0/8,::1/128 "
    flags += "--otlp http://collector:4318 --access-log off --via --no-forwarded --upstream stock=a:4"
    status = cli.main(["serve", *flags.split()])
    assert status == 3
    settings = app.settings
    assert settings.ingress == (Path(MANIFESTS), ROOT / "dev")
    assert settings.upstream == (
        Override("demo", "shop", "80", "http", (Address("127.0.0.1", 1), Address("127.0.0.1", 2))),
        Override("", "cart", "", "https", (Address("a", 3),)),
        Override("", "stock", "", "http", (Address("a", 4),)),
    )
    assert settings.http == (Address("0.0.0.0", 8080), Address("::1", 0))
    assert settings.https == (Address("0.0.0.0", 8443),)
    assert (settings.admin, settings.workers, settings.access_log) == (None, 2, "off")
    assert [str(network) for network in settings.trust] == ["10.0.0.0/8", "::1/128"]
    assert settings.tracing.endpoint == "http://collector:4318"
    assert settings.tracing.protocol == "http/protobuf"
    assert (settings.via, settings.forwarded) == (True, False)


def test_serve_reads_the_environment_and_the_file(
    app: Called, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spanway.toml"
    file.write_text(f"ingress = '{MANIFESTS}'\nworkers = 2\nvia = true\n")
    monkeypatch.setenv("SPANWAY_WORKERS", "4")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "sometimes")
    assert cli.main(["serve", "--config", str(file)]) == 3
    assert app.settings.ingress == (Path(MANIFESTS),)
    assert (app.settings.workers, app.settings.via) == (4, True)
    assert app.settings.tracing.service_name == "edge"
    assert capsys.readouterr().err.startswith("spanway: warning: OTEL_TRACES_SAMPLER: 'sometimes' is not one of")


def test_serve_needs_something_to_serve(app: Called, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--ingress PATH" in said(capsys, "serve")
    assert not app.arguments


def test_dev_serves_rules_to_this_machine_alone_and_draws_waterfalls(app: Called) -> None:
    rules = ["shop.localhost=http://127.0.0.1:3000", "shop.localhost/api=http://127.0.0.1:4000"]
    assert cli.main(["dev", *rules, "--workers", "2"]) == 3
    assert [(route.host, route.path) for route in app.options["table"].routes] == [
        ("shop.localhost", "/"),
        ("shop.localhost", "/api"),
    ]
    assert [companion.__name__ for companion in app.options["companions"]] == ["waterfalls"]
    settings = app.settings
    assert (settings.http, settings.workers, settings.access_log) == ((Address("127.0.0.1", 8000),), 2, "off")
    assert settings.tracing.response_header
    assert all(network.is_loopback for network in settings.trust)


def test_dev_refuses_a_rule_in_one_line(app: Called, capsys: pytest.CaptureFixture[str]) -> None:
    assert "write HOST[/PATH]=URL" in said(capsys, "dev", "shop.localhost=3000")
    assert not app.arguments


def test_demo_is_handed_the_time_and_what_serves(app: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = stand_in(monkeypatch, "proxy.demo.run", "demo")
    assert cli.main(["demo", "--for", "2.5", "--admin", "0"]) == 3
    assert demo.arguments[1:] == (2.5, app)
    assert demo.settings.admin == Address("127.0.0.1", 0)
    cli.main(["demo"])
    assert demo.arguments[1] is None


@pytest.mark.parametrize(("command", "flag"), [(command, flag) for command in LACKS for flag in LACKS[command]])
def test_a_flag_that_a_command_lacks_is_refused_with_the_reason(
    command: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = ["http://127.0.0.1:3000"] if command == "dev" else []
    for written in ([f"--{flag}", "x"], [f"--{flag}=x"], [f"--no-{flag}"]):
        text = said(capsys, command, *rules, *written)
        assert f"'spanway {command}' has no flag '{written[0].partition('=')[0]}': {LACKS[command][flag]}" in text
    assert cli.main([command, "--help"]) == 0
    assert f"--{flag} " not in capsys.readouterr().out


def test_the_demo_needs_its_admin_listener(
    app: Called, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = stand_in(monkeypatch, "proxy.demo.run", "demo")
    assert "leave out '--admin off'" in said(capsys, "demo", "--admin", "off")
    cli.main(["demo", "--help"])
    listeners = capsys.readouterr().out.partition("listeners:")[2].partition("requests:")[0]
    assert "--admin" in listeners
    assert "off" not in listeners
    monkeypatch.setenv("SPANWAY_ADMIN", "off")
    assert "SPANWAY_ADMIN=off" in said(capsys, "demo")
    assert not demo.arguments


def test_ctrl_c_is_quick_where_a_developer_watches(app: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = stand_in(monkeypatch, "proxy.demo.run", "demo")
    cli.main(["demo"])
    cli.main(["dev", "http://127.0.0.1:3000"])
    assert (demo.settings.timeouts.drain, app.settings.timeouts.drain) == (1, 1)
    assert Settings().timeouts.drain == 30


@pytest.mark.parametrize("first", [True, False])
def test_explain_takes_several_sources_at_once_and_its_url_anywhere(
    first: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.yaml").touch()
    url = "http://shop.localhost/"
    flags = ["--ingress", str(tmp_path), MANIFESTS, "--upstream", "cart=127.0.0.1:1", "shop=127.0.0.1:2"]
    assert cli.main(["explain", url, *flags] if first else ["explain", *flags, url]) == 0
    assert "endpoints: 127.0.0.1:2\n" in capsys.readouterr().out


def test_check_and_explain_answer_with_their_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", MANIFESTS]) == 0
    assert "3 routes" in capsys.readouterr().out
    (tmp_path / "broken.yaml").write_text("kind: [\n")
    assert cli.main(["check", str(tmp_path)]) == 1
    assert "broken.yaml" in capsys.readouterr().out
    assert cli.main(["explain", "http://shop.localhost/api/cart/ada", "--ingress", MANIFESTS, "-H", "X-User: ada"]) == 0
    assert "Route shop.localhost, Prefix /api/cart" in capsys.readouterr().out
    assert cli.main(["explain", "http://shop.localhost/", "--ingress", MANIFESTS, "-H", "Host: other"]) == 1
    assert "No route" in capsys.readouterr().out
    assert "is no http or https URL" in said(capsys, "explain", "shop.localhost", "--ingress", MANIFESTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serv"], "there is no command 'serv'; did you mean 'serve'? 'spanway --help' shows"),
        (["serve", "--htp", "80"], "there is no flag '--htp'; did you mean '--http'?"),
        (["serve", "--htps=80"], "there is no flag '--htps'; did you mean '--https'?"),
        (["serve", "stray"], "there is no argument 'stray'"),
        (["serve", "--http"], "argument --http: expected one argument; 'spanway serve --help'"),
        (["serve", "--http", "80x"], "--http: "),
        (["serve", "--ingress", "missing.yaml"], "--ingress: 'missing.yaml' does not exist"),
        (["serve", "--upstream", "shop"], "--upstream: 'shop' is not [NAMESPACE/]SERVICE[:PORT]=HOST:PORT"),
        (["dev"], "the following arguments are required: [HOST[/PATH]=]URL"),
        (["demo", "--for", "soon"], "argument --for: 'soon' is not a number of seconds"),
        (["demo", "--for", "-1"], "argument --for"),
        (["demo", "--for", "nan"], "argument --for"),
        (["check"], "the following arguments are required: PATH"),
        (["explain"], "the following arguments are required: URL"),
    ],
)
def test_errors_are_one_line_with_a_next_step(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in said(capsys, *arguments)


def test_an_error_of_a_command_is_one_line_too(app: Called, capsys: pytest.CaptureFixture[str]) -> None:
    app.raises = SettingsError("127.0.0.1:80 is taken;\nstop what listens there")
    assert said(capsys, "serve", "--ingress", MANIFESTS).endswith("127.0.0.1:80 is taken; stop what listens there\n")


def test_the_controller_is_handed_its_flags_and_its_own_defaults(app: Called) -> None:
    flags = "--kubeconfig k --watch-namespace shop --publish-service spanway/edge --default-backend shop/cart:http "
    flags += "--default-certificate shop/wildcard.example.org --election-namespace spanway --upstream cart=127.0.0.1:1"
    assert cli.main(["controller", *flags.split()]) == 3
    assert app.options == {"cluster": True}
    settings = app.settings
    assert settings.ingress_class == "spanway"
    assert settings.cluster == Cluster(
        kubeconfig="k",
        watch_namespace="shop",
        publish_service=ObjectName("spanway", "edge"),
        election_namespace="spanway",
    )
    assert settings.default_backend == ServicePort("shop", "cart", "http")
    assert settings.default_certificate == ObjectName("shop", "wildcard.example.org")
    cli.main(["controller", "--ingress-class", "edge", "--publish-address", "192.0.2.1,edge.example.org"])
    assert app.settings.ingress_class == "edge"
    assert app.settings.cluster.publish_address == ("192.0.2.1", "edge.example.org")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--publish-service edge", "'edge' is not NS/NAME"),
        ("--default-backend shop/cart", "'shop/cart' is not NS/SVC:PORT"),
        ("--default-backend shop/cart:99999", "'99999' in 'shop/cart:99999' is not a port"),
        ("--default-certificate Shop/cert", "'Shop/cert' is not NS/SECRET"),
        ("--watch-namespace Shop", "'Shop' is not the name of a namespace"),
        ("--publish-service a/b --publish-address 192.0.2.1", "keep one of them"),
    ],
)
def test_what_the_controller_cannot_use_is_said(
    flags: str, message: str, app: Called, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in said(capsys, "controller", *flags.split())


def test_control_c_is_no_error(app: Called, capsys: pytest.CaptureFixture[str]) -> None:
    app.raises = KeyboardInterrupt()
    assert cli.main(["serve", "--ingress", MANIFESTS]) == 130
    assert capsys.readouterr().err == ""


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "serve the Ingresses" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "controller", "dev", "demo", "layers", "check", "explain"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: spanway {command} ")
    assert f"examples:\n  spanway {command}" in text or command == "demo"
    assert max(map(len, text.splitlines())) <= 120


def test_serves_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for entry in (entry for entry in catalogue().values() if entry.section != "cluster"):
        assert entry.variable in text
        if entry.meaning.flag:
            assert f"--{entry.meaning.flag}" in text
    assert "default 0.0.0.0:8080" in text


def test_the_controllers_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["controller", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for entry in catalogue().values():
        assert entry.variable in text or entry.key == "ingress"


def test_every_flag_of_a_setting_is_in_one_group() -> None:
    grouped = [flag for flags in {**CLUSTER, **GROUPS}.values() for flag in flags]
    assert sorted(grouped) == sorted(entry.meaning.flag for entry in catalogue().values() if entry.meaning.flag)


def test_version_by_the_module_as_by_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"spanway {proxy.__version__} ({proxy.build()})\n"


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    heavy = {"aiohttp", "asyncio", "cryptography", "grpc", "msgspec", "opentelemetry", "rich", "uvloop", "yaml"}
    script = "import sys, proxy.cli; proxy.cli.build(); print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "proxy", "--help"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
