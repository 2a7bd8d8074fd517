"""The command ``spanway``: what can be asked of it, and who answers.

Quick to start: what a command needs is imported when that command runs. Whatever is wrong with a flag, a variable, a
file or a manifest is one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from proxy import __version__
from proxy import build as form
from proxy.catalogue import CONTROLLER, DEV, LACKS, SOURCES, WIRE, Entry, catalogue, groups, sections
from proxy.configure import Loaded, load
from proxy.errors import SettingsError
from proxy.parser import Parser
from proxy.saying import say
from proxy.settings import Settings
from proxy.settings_reference import explained
from proxy.usages import EXAMPLES, FAULTS, USAGES
from proxy.values import suggestion

_ADMIN: Final = f"http://{Settings().admin}"


def build() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="spanway",
        description="An ingress proxy that traces every request through every layer it crosses.",
        epilog="'spanway COMMAND --help' says more. Every setting: docs/settings.md.",
    )
    parser.add_argument("--version", action="version", version=f"spanway {__version__} ({form()})")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
        made: Parser = commands.add_parser(
            name,
            usage=f"spanway {name} {USAGES[name]}",
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=EXAMPLES[name],
        )
        made.lacks = LACKS.get(name, {})
        made.set_defaults(run=run, parser=made)
        return made

    serving = command("serve", serve, "serve the Ingresses of manifests, and trace every request")
    _add_settings(serving, Settings(), groups("serve"))
    serving.lists_settings = tuple(name for name in ("", *sections()) if name != "cluster")

    controlling = command("controller", controller, "an ingress controller: serve a cluster's Ingresses")
    _add_settings(controlling, CONTROLLER, groups("controller"))
    controlling.lists_settings = "", *sections()

    developing = command("dev", dev, "a local proxy without manifests, with a waterfall per request")
    developing.add_argument(
        "rules", nargs="+", metavar="[HOST[/PATH]=]URL", help="requests for HOST whose path starts with PATH go to URL"
    )
    _add_settings(developing, DEV, groups("dev"))

    showing = command("demo", demo, "three traced services behind the proxy, with traffic and waterfalls")
    showing.flag(
        "--for", dest="seconds", type=_seconds, metavar="SECONDS", help="stop after this time (default: Ctrl-C)"
    )
    showing.flag(
        "--layers", action="store_true", help="the services in network namespaces behind a real Open vSwitch (root)"
    )
    showing.flag("--fault", choices=FAULTS, metavar="FAULT", help=f"with --layers: {', '.join(FAULTS)} [default none]")
    _add_settings(showing, DEV, groups("demo"), always_on=True)

    wiring = command("wire", wire, "see the packets of traced requests: where between proxy and backend they waited")
    wiring.flag(
        "--interfaces",
        default="auto",
        metavar="auto|NAME,..",
        help="interfaces that the packets pass, from the proxy to the backend; auto: found for each backend's address "
        "[default auto]",
    )
    wiring.flag("--places", metavar="FILE", help="YAML file that names interfaces and what lies between them")
    wiring.flag("--socket", dest="wire.socket", metavar="PATH", help=f"where the proxy hands over ({WIRE.wire.socket})")
    wiring.flag(
        "--ports",
        default="auto",
        metavar="auto|A-B|all",
        help=f"local ports of the proxy's connections; auto: {WIRE.wire.ports}, which is the sampled requests' "
        "(wire.ports), and what else the proxy tells of [default auto]",
    )
    wiring.flag(
        "--ipfix",
        default="off",
        metavar="[HOST:]PORT|off",
        help="listen for Open vSwitch's samples of packets (IPFIX, UDP; usual: 4739): proof of their way [default off]",
    )
    wiring.flag(
        "--otlp",
        dest="tracing.endpoint",
        metavar="URL|none",
        help="OTLP endpoint that the spans go to: the proxy's collector, or its admin listener; 'none': count only "
        "[SPANWAY_TRACING_ENDPOINT; OTEL_EXPORTER_OTLP_ENDPOINT]",
    )
    _add_settings(wiring, WIRE, {"tracing": ("otlp-protocol",), "listeners": ("admin",)})

    applying = command("apply", apply, "apply manifests to a cluster, and follow them to the first request")
    applying.flag("-f", "--filename", nargs="+", action="extend", required=True, metavar="PATH", help="manifests")
    applying.flag("--trace", action="store_true", help="wait until they are served, and print the whole way as a trace")
    applying.flag(
        "--controller", action="append", metavar="URL", help=f"admin address of a controller (default {_ADMIN})"
    )
    applying.flag("--force-conflicts", action="store_true", help="take over fields that another manager has set")
    applying.flag("--kubeconfig", default="", metavar="FILE", help="as for 'spanway controller'")
    applying.flag("-n", "--namespace", default="", metavar="NAME", help="of objects that name none")
    applying.flag(
        "--wait",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="for the workers, then for a request (default 30)",
    )

    splitting = command("layers", layers, "which layer owns the tail of each route, by the wire's spans")
    splitting.flag("--from", dest="file", metavar="FILE", help="spans as a Collector's file exporter writes them")
    splitting.flag("--last", type=_duration, metavar="TIME", help="the traces that a proxy has of this time: 10m, 90s")
    splitting.flag("--admin", default=_ADMIN, metavar="URL", help=f"of the proxy, for --last (default {_ADMIN})")
    splitting.flag("--json", action="store_true", help="write the report as JSON")

    checking = command("check", check, "validate manifests; exit status 1 if they have errors")
    checking.add_argument("paths", nargs="+", metavar="PATH", help="file or directory of Kubernetes manifests")
    checking.flag("--ingress-class", default="", metavar="NAME", help="only Ingresses of this class; empty: all")

    explaining = command("explain", explain, "which route a request would take, and why no other")
    explaining.add_argument("url", metavar="URL", help="what the client asks for, with scheme and host")
    explaining.flag("-X", "--method", default="GET", metavar="METHOD", help="the request's method (default GET)")
    explaining.flag(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a request field; repeatable"
    )
    _add_settings(explaining, Settings(), {"what is served": SOURCES})
    return parser


def _add_settings(
    parser: Parser, defaults: Settings, flags_by_title: dict[str, tuple[str, ...]], *, always_on: bool = False
) -> None:
    """A flag for each setting named; ``always_on``: the command cannot do without its listeners."""
    entries = {entry.meaning.flag: entry for entry in catalogue().values() if entry.meaning.flag}
    parser.flag(
        "--config", metavar="FILE", help="TOML file of settings; flags and variables go before it (SPANWAY_CONFIG)"
    )
    for title, flags in flags_by_title.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            entry = entries[flag]
            text = explained(entry, defaults, entry.variable).replace("%", "%%")
            if always_on and title == "listeners":
                text = text.replace(", or 'off'", "").replace("; repeatable", "")
            parser.flag(f"--{flag}", into=group, dest=entry.key, help=text, **_form(entry))


def _form(entry: Entry) -> dict[str, Any]:
    """How argparse takes a setting's flag: everything stays text, `configure` reads it."""
    if entry.kind is bool:
        return {"action": argparse.BooleanOptionalAction, "default": None}
    if entry.repeatable and entry.meaning.flag in SOURCES:
        return {"metavar": entry.placeholder, "nargs": "+", "action": "extend"}
    if entry.repeatable:
        return {"metavar": entry.placeholder, "action": "append"}
    return {"metavar": entry.placeholder}


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return seconds


def _duration(text: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(s|m|h)?", text.strip().lower())
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"'{text}' is no time; write 90s, 10m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


# The commands ---------------------------------------------------------------------------------------------------------


def serve(options: argparse.Namespace) -> int:
    """``spanway serve``: until SIGTERM."""
    settings = _settings(options, Settings())
    if not settings.ingress:
        raise SettingsError(
            "nothing to serve; name manifests with --ingress PATH, or try 'spanway dev http://HOST:PORT'"
        )
    from proxy import app

    return app.run(settings)


def controller(options: argparse.Namespace) -> int:
    """``spanway controller``: until SIGTERM."""
    settings = _settings(options, CONTROLLER)
    from proxy import app

    return app.run(settings, cluster=True)


def dev(options: argparse.Namespace) -> int:
    """``spanway dev``: until Ctrl-C."""
    settings = _settings(options, DEV)
    from proxy import app
    from proxy.admin.live import waterfalls
    from proxy.control.dev import rules

    return app.run(settings, table=rules(options.rules), companions=(waterfalls,))


def demo(options: argparse.Namespace) -> int:
    """``spanway demo``: until Ctrl-C, or for ``--for`` seconds."""
    settings = _settings(options, DEV)
    if settings.admin is None:
        raise SettingsError(
            "the demo needs its admin listener, which receives its services' spans; "
            "leave out '--admin off' (or SPANWAY_ADMIN=off), or choose another port"
        )
    from proxy import app
    from proxy.demo.run import demo as tell

    if not options.layers:
        if options.fault:
            raise SettingsError("--fault needs --layers: it is a fault of the network below the services")
        return tell(settings, options.seconds, app.run)
    from proxy.demo.layers import Layers

    with Layers(options.fault or FAULTS[0]) as layers:
        return tell(settings, options.seconds, app.run, layers=layers)


def wire(options: argparse.Namespace) -> int:
    """``spanway wire``: until SIGTERM."""
    settings = _settings(options, WIRE)
    from proxy.layers import start

    return start.run(settings, options.interfaces, options.places or "", options.ports, ipfix=options.ipfix)


def apply(options: argparse.Namespace) -> int:
    """``spanway apply``: 0 where everything was applied and, with ``--trace``, has served a request."""
    from proxy.control.cluster import apply_trace

    where = options.kubeconfig, options.namespace, options.controller or (_ADMIN,), options.wait
    return apply_trace.apply(options.filename, *where, trace=options.trace, force=options.force_conflicts)


def layers(options: argparse.Namespace) -> int:
    """``spanway layers``: 0 where any attempt was joined, else 1."""
    if (options.file is None) == (options.last is None):
        raise SettingsError("give either --from FILE or --last TIME; 'spanway layers --help' shows how it is used")
    from proxy.layers import report_print

    return report_print.run(options.file, options.last, options.admin, as_json=options.json)


def check(options: argparse.Namespace) -> int:
    """``spanway check``: 0 where the manifests have no errors, else 1."""
    from proxy.control import commands

    return commands.check(options.paths, options.ingress_class)


def explain(options: argparse.Namespace) -> int:
    """``spanway explain``: 0 where a route would be taken, else 1."""
    settings = _settings(options, Settings())
    from proxy.control import commands

    return commands.explain(settings, options.url, options.method, options.header)


def _settings(options: argparse.Namespace, base: Settings) -> Settings:
    loaded: Loaded = load(vars(options), os.environ, base)
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    return loaded.settings


def _refuse_unknown(parser: Parser, unknown: Iterable[str]) -> None:
    for text in unknown:
        name = text.partition("=")[0]
        if why := parser.lacks.get(name.removeprefix("--").removeprefix("no-")):
            parser.error(f"'{parser.prog}' has no flag '{name}': {why}")
        what = "flag" if name.startswith("-") else "argument"
        parser.error(f"there is no {what} '{name}'{suggestion(name, parser.flags)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (default: the process's own) and return its exit status."""
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except SettingsError as problem:
        say(f"error: {problem}")
        return 2
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell reports it
    except BrokenPipeError:
        # Whoever read standard output has seen enough; the interpreter must not complain of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE
    return status


def _url_first(arguments: Sequence[str]) -> list[str]:
    """The URL of `explain` before its flags, of which some take all values that follow."""
    command, rest = list(arguments[:1]), list(arguments[1:])
    if command == ["explain"]:
        rest.sort(key=lambda text: not text.startswith(("http://", "https://")))  # stable
    return command + rest


def _run(arguments: Sequence[str] | None) -> int:
    parser = build()
    try:
        options, unknown = parser.parse_known_args(_url_first(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as done:  # --help and --version, which argparse answers itself
        return int(done.code or 0)
    _refuse_unknown(getattr(options, "parser", parser), unknown)
    if "run" not in options:
        parser.print_help(sys.stderr)
        return 2
    status: int = options.run(options)
    return status
