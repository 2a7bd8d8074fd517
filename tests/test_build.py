"""The package as it is built and installed: compiled where there is a compiler, whole and pure where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import proxy

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "proxy"
TYPED = {path.relative_to(ROOT).with_suffix("").as_posix() for path in SOURCES.rglob("*.pxd")}
# What the compiled form has of its own, which its twins stand on.
ALONE = {path for path in TYPED if not (ROOT / path).with_suffix(".py").exists()}
MODULES = {path.relative_to(ROOT).as_posix() for path in SOURCES.rglob("*.py")}
SAID = "spanway: not compiled"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(proxy.PURE, reason="builds both forms whichever is tested: once is enough"),
]

# A compiler that is quick, since what it makes is only looked at; it cannot compile the modules named in $BROKEN.
COMPILER = """#!/bin/sh
for word; do
    case $BROKEN,$word in ?*,*/"$BROKEN".c) echo "no, not $word" >&2; exit 1 ;; esac
done
exec cc "$@" -O0
"""
# Every module of ours that is compiled, with what else a worker has, and where it came from.
LIST = """
import sys, proxy.app, proxy.serving, proxy.accept.downstream, proxy.layers.service
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] == "proxy":
        print(name, module.__file__)
"""


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SPANWAY_")} | more


def wheel(checkout: Path, **variables: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """`pip wheel` in a checkout: what it said, and the files in the wheel, none if it failed."""
    target = checkout / "wheels"
    shutil.rmtree(target, ignore_errors=True)
    # Without isolation: setuptools and Cython are those of this environment, and nothing is downloaded.
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(target), "."]
    done = subprocess.run(
        command,
        cwd=checkout,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    made = sorted(target.glob("*.whl"))
    assert len(made) == (done.returncode == 0), done.stdout
    if not made:
        return done, set()
    with zipfile.ZipFile(made[0]) as archive:
        return done, set(archive.namelist())


def setup(
    checkout: Path, *, first: str = "pass", command: Sequence[str] = ("build_ext", "--inplace"), **variables: str
) -> subprocess.CompletedProcess[str]:
    """`python setup.py COMMAND`, after a line of Python."""
    start = f"import runpy, sys; sys.argv = ['setup.py', '-q', {', '.join(map(repr, command))}]"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{start}; {first}; runpy.run_path('setup.py', run_name='__main__')"],
        cwd=checkout,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


def compiled(files: set[str]) -> set[str]:
    """Modules with an extension module among ``files``."""
    return {name[: name.index(".")] for name in files if name.endswith(".so")}


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    script = tmp_path_factory.mktemp("compiler") / "quick-cc"
    script.write_text(COMPILER)
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def built(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A clean checkout in which the wheel was built once, and the wheel's files."""
    if shutil.which("cc") is None and os.environ.get("CI") != "true":
        pytest.skip("there is no C compiler here")
    checkout = tmp_path_factory.mktemp("built") / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, checkout)
    shutil.copytree(ROOT / "proxy", checkout / "proxy", ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    done, files = wheel(checkout, CC=compiler)
    assert done.returncode == 0, done.stdout
    assert SAID not in done.stdout
    return checkout, files


@pytest.fixture
def checkout(built: tuple[Path, set[str]], tmp_path: Path) -> Path:
    """Another, with Cython's C files at hand, but with nothing made of them."""
    copy = tmp_path / "checkout"
    shutil.copytree(built[0], copy, ignore=shutil.ignore_patterns("wheels", "lib.*", "temp.*", "bdist.*"))
    return copy


@pytest.fixture
def changed(built: tuple[Path, set[str]], tmp_path: Path) -> Path:
    """Another, all built but for one module, which has changed since."""
    copy = tmp_path / "changed"
    shutil.copytree(built[0], copy, ignore=shutil.ignore_patterns("wheels", "bdist.*"))
    with (copy / "proxy" / "worker.py").open("a") as module:
        module.write("# changed\n")
    return copy


@pytest.fixture(scope="module")
def installed(built: tuple[Path, set[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is unpacked."""
    place = tmp_path_factory.mktemp("installed")
    (made,) = (built[0] / "wheels").glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(place)
    return place


def run(place: Path, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env=environment(PYTHONPATH=str(place), **variables),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


# With a compiler


def test_the_wheel_has_every_module_in_both_forms_and_no_sources_of_the_compiler(built: tuple[Path, set[str]]) -> None:
    files = built[1]
    assert compiled(files) == TYPED
    assert files >= MODULES
    assert {name for name in files if name.endswith((".c", ".pyx", ".pxd"))} == set()
    assert "proxy/py.typed" in files
    assert any(name.endswith(".yaml") for name in files)
    assert not [name for name in files if name.startswith(("tests/", "benchmarks/", "build/"))]


def test_what_was_installed_says_that_it_is_compiled_and_is(installed: Path) -> None:
    assert run(installed, "-m", "proxy", "--version") == f"spanway {proxy.__version__} (compiled)\n"
    loaded = dict(line.split() for line in run(installed, "-c", LIST).splitlines())
    assert {name.replace(".", "/") for name, file in loaded.items() if file.endswith(".so")} == TYPED
    assert all(Path(file).is_relative_to(installed) for file in loaded.values())


def test_spanway_pure_uses_nothing_that_was_compiled(installed: Path) -> None:
    said = run(installed, "-m", "proxy", "--version", SPANWAY_PURE="1")
    assert said == f"spanway {proxy.__version__} (pure Python, by SPANWAY_PURE)\n"
    loaded = dict(line.split() for line in run(installed, "-c", LIST, SPANWAY_PURE="1").splitlines())
    assert {name.replace(".", "/") for name in loaded} >= TYPED - ALONE
    assert {Path(file).suffix for file in loaded.values()} == {".py"}
    assert all(Path(file).is_relative_to(installed) for file in loaded.values())
    assert run(installed, "-m", "proxy", "--version", SPANWAY_PURE="0").endswith("(compiled)\n")


def test_an_sdist_has_the_sources_that_are_compiled_and_nothing_that_was_made_of_them(checkout: Path) -> None:
    done = setup(checkout, command=["sdist"])
    assert done.returncode == 0, done.stderr
    (made,) = (checkout / "dist").iterdir()
    with tarfile.open(made) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        path.relative_to(ROOT).as_posix() for kind in ("pxd", "pyx", "py") for path in SOURCES.rglob(f"*.{kind}")
    }
    assert files >= sources | {"setup.py", "pyproject.toml", "README.md", "LICENSE", "proxy/py.typed"}
    assert {name for name in files if name.endswith((".c", ".so")) or name.startswith(("build", "tests"))} == set()


# Without one


def pure(checkout: Path, files: set[str]) -> None:
    """The wheel is whole, nothing in it is compiled, and it says so."""
    assert compiled(files) == set()
    assert files >= MODULES
    place = checkout / "installed"
    (made,) = (checkout / "wheels").glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(place)
    said = run(place, "-m", "proxy", "--version")
    assert said == f"spanway {proxy.__version__} (pure Python, not compiled)\n"


@pytest.mark.parametrize("missing", ["/bin/false", "/no/such/compiler"], ids=["fails", "missing"])
def test_without_a_compiler_the_package_is_pure_and_says_so_once(checkout: Path, missing: str) -> None:
    done, files = wheel(checkout, CC=missing)
    assert done.returncode == 0, done.stdout
    (said,) = (line for line in done.stdout.splitlines() if SAID in line)
    assert len(said) < 300, "one line that one can read"
    pure(checkout, files)


def test_one_module_that_does_not_compile_leaves_none_compiled(changed: Path, compiler: str) -> None:
    done, files = wheel(changed, CC=compiler, BROKEN="worker")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(SAID) == 1
    pure(changed, files)


def test_spanway_pure_builds_nothing(checkout: Path) -> None:
    done, files = wheel(checkout, SPANWAY_PURE="1", CC="/bin/false")
    assert done.returncode == 0, done.stdout
    assert SAID not in done.stdout
    pure(checkout, files)
    assert [path.name for path in (checkout / "wheels").iterdir()] == [f"spanway-{proxy.__version__}-py3-none-any.whl"]


def test_spanway_compiled_fails_where_it_cannot(checkout: Path, changed: Path, compiler: str) -> None:
    done, _ = wheel(checkout, SPANWAY_COMPILED="1", CC="/bin/false")
    assert done.returncode != 0
    assert "error: " in done.stdout
    assert SAID not in done.stdout
    done, _ = wheel(changed, SPANWAY_COMPILED="1", CC=compiler, BROKEN="worker")
    assert done.returncode != 0
    assert "no, not " in done.stdout
    assert SAID not in done.stdout


def in_place(checkout: Path) -> set[str]:
    return compiled({path.relative_to(checkout).as_posix() for path in (checkout / "proxy").rglob("*.so")})


def test_in_place_too_a_build_that_fails_leaves_nothing_compiled(changed: Path, compiler: str) -> None:
    done = setup(changed, CC=compiler)
    assert done.returncode == 0, done.stderr
    assert in_place(changed) == TYPED
    # What an earlier build has left would hide the sources that have changed since.
    with (changed / "proxy" / "worker.py").open("a") as module:
        module.write("# once more\n")
    done = setup(changed, CC=compiler, BROKEN="worker")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(SAID) == 1
    assert in_place(changed) == set()


def test_without_cython_nothing_is_compiled(checkout: Path) -> None:
    hidden = "sys.modules['Cython'] = None"
    done = setup(checkout, first=hidden, CC="/bin/false")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(SAID) == 1
    assert in_place(checkout) == set()
    assert setup(checkout, first=hidden, SPANWAY_COMPILED="1").returncode != 0
