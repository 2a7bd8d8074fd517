"""The shape of the house: imports downward only, files one can read at a sitting, a tidy package."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import pytest

import proxy

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = dict(
    line.lower().split("==")
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if "==" in line
)

SHORTEST, LONGEST = 60, 350  # lines of a module of the package
LONGEST_TEST = 700
# Modules that are one idea in fewer lines, and have no neighbour they belong to.
SHORT = {
    "proxy/__main__.py",
    "proxy/accept/selfsigned.py",
    "proxy/admin/units.py",
    "proxy/admit/host.py",
    "proxy/bounds.py",
    "proxy/control/shelf.py",
    "proxy/control/cluster/faulty.py",
    "proxy/demo/bodies.py",
    "proxy/demo/cart.py",
    "proxy/demo/collector.py",
    "proxy/layers/complaints.py",
    "proxy/layers/packet.py",
    "proxy/layers/track.py",
    "proxy/meaning.py",
    "proxy/layers/ovs/fdb.py",
    "proxy/layers/ovs/unixctl.py",
    "proxy/net/clock.py",
    "proxy/http1/compose.py",
    "proxy/http1/scan.py",
    "proxy/net/accepting.py",
    "proxy/net/now.py",
    "proxy/net/stage.py",
    "proxy/net/transport.py",
    "proxy/relay/answers.py",
    "proxy/saying.py",
    "proxy/trace/encoder.py",
    "proxy/trace/ids.py",
    "proxy/trace/jaeger.py",
    "proxy/trace/lines.py",
    "proxy/trace/otlp_json.py",
    "proxy/trace/segments.py",
}

# Folders of tests that mirror no room: parts, peers and whole-proxy tests.
OTHER_TESTS = {"benchmarks", "edge", "fuzz", "harness", "kubernetes", "real"}

# What is built, installed or downloaded here, and not ours.
COMPILED = {".c", ".so"}
IGNORED = {".git", ".venv", "build", "dist", "results", "__pycache__"}


def files(*folders: str, pattern: str = "*.py") -> Iterator[Path]:
    """Files of the repository (of ``folders`` in it), without what git ignores."""
    for folder in folders or (".",):
        for path in sorted((ROOT / folder).rglob(pattern)):
            inside = path.relative_to(ROOT)
            hidden_or_built = any(
                part in IGNORED or part.endswith(("_cache", ".egg-info")) or part == ".hypothesis"
                for part in inside.parts
            )
            if path.is_file() and not hidden_or_built and path.suffix not in COMPILED:
                yield inside


def test_imports_point_downward_only() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def lines_of(path: Path) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def test_modules_are_of_a_readable_size() -> None:
    modules = {str(path): lines_of(path) for path in files("proxy", "benchmarks") if path.name != "__init__.py"}
    assert {path: lines for path, lines in modules.items() if lines > LONGEST} == {}
    short = {path for path, lines in modules.items() if lines < SHORTEST and path.startswith("proxy/")}
    assert short == SHORT


def test_tests_are_of_a_readable_size() -> None:
    assert {str(path): lines_of(path) for path in files("tests") if lines_of(path) > LONGEST_TEST} == {}


def test_http1_is_pure() -> None:
    impure = {"asyncio", "datetime", "logging", "os", "random", "selectors", "socket", "ssl", "threading", "time"}
    for path in files("proxy/http1"):
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not impure & {name.partition(".")[0] for name in names}, f"{path}:{node.lineno}"  # type: ignore[attr-defined] # imports have lines


def test_tests_mirror_the_rooms() -> None:
    rooms = {path.parent.name for path in files("proxy") if path.name == "__init__.py" and len(path.parts) == 3}
    tested = {path.parts[1] for path in files("tests") if len(path.parts) > 2 and path.name.startswith("test_")}
    assert rooms <= tested, f"rooms without tests: {rooms - tested}"
    assert tested <= rooms | OTHER_TESTS, f"tests of no room: {tested - rooms - OTHER_TESTS}"


def test_nothing_of_one_machine_is_in_the_repository() -> None:
    # Written apart, so that this file does not find itself.
    machine = re.compile("|".join(("/wor" + "k/", "/roo" + "t/", "/far" + "m/", "bash_" + "jobs", "/tmp/pl" + "an")))
    hosts = re.compile(r"pypi\." + "org|python" + "hosted|proxy\\.gol" + "ang|registry\\.np" + "mjs|deb\\.deb" + "ian")
    found = []
    for path in files(pattern="*"):
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if machine.search(line) or hosts.search(line):
                found.append(f"{path}:{number}: {line.strip()[:100]}")
    assert not found


def test_one_version() -> None:
    assert PYPROJECT["project"]["version"] == proxy.__version__
    assert f"## [{proxy.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def _requirements() -> list[str]:
    project = PYPROJECT["project"]
    extras = [item for extra in project["optional-dependencies"].values() for item in extra]
    return [item for item in project["dependencies"] + extras if not item.startswith("spanway")]


@pytest.mark.parametrize("requirement", _requirements())
def test_every_dependency_has_a_lower_bound_that_the_lock_meets(requirement: str) -> None:
    name, _, bound = requirement.partition(">=")
    assert bound, f"{requirement} has no lower bound"
    locked = LOCK[name.lower()] if name.lower() in LOCK else LOCK[name.lower().replace("-", "_")]

    def numbers(version: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", version.partition(",")[0].partition("b")[0])]

    assert numbers(locked) >= numbers(bound)


def _owners() -> dict[str, str]:
    """Every installed module with the distribution that brings it."""
    found = {}
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or ():
            if file.suffix in {".py", ".so"}:
                parts = (*file.parent.parts, file.name.partition(".")[0])
                found[".".join(parts).removesuffix(".__init__")] = (
                    distribution.metadata["Name"].lower().replace("_", "-")
                )
    return found


def _imported(path: Path, installed: Container[str]) -> Iterator[tuple[str, int]]:
    """The modules of others that one of our files imports, and the lines."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # What is imported may be a module itself: from opentelemetry import trace.
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in installed else str(node.module) for name in below]
        for name in names:
            if name.partition(".")[0] not in {*sys.stdlib_module_names, "proxy"}:
                yield name, node.lineno  # type: ignore[attr-defined] # imports have lines


def _declared(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[^\w.-]", item)[0].lower() for item in requirements}


def test_every_import_is_declared() -> None:
    """A fresh installation has what is declared, and of what that requires only OpenTelemetry's API is for certain."""
    assert "opentelemetry-api" in _declared(importlib.metadata.requires("opentelemetry-sdk") or ())
    core = _declared(PYPROJECT["project"]["dependencies"]) | {"opentelemetry-api"}
    demo = core | _declared(PYPROJECT["project"]["optional-dependencies"]["demo"])
    owners = _owners()
    undeclared = [
        f"{path}:{line}: {name} of {owners.get(name, 'nobody')}"
        for path in files("proxy")
        for name, line in _imported(path, owners)
        if owners.get(name) not in (demo if path.parent.name == "demo" else core)
    ]
    assert undeclared == []


def test_the_lock_pins_versions_and_names_no_index() -> None:
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+", line), line


def test_the_package_is_typed_and_complete() -> None:
    assert (ROOT / "proxy/py.typed").is_file()
    data = PYPROJECT["tool"]["setuptools"]["package-data"]["proxy"]
    packaged = {path for pattern in data for path in (ROOT / "proxy").glob(pattern)}
    for path in files("proxy", pattern="*"):
        # A wheel has the compiled modules, and every Python file; types and twins are for the compiler.
        assert path.suffix in {".py", ".pxd", ".pyx"} or ROOT / path in packaged, f"{path} is not packaged"
