"""The `dev` script on machines it makes believe: interpreters, pip and apt are small scripts that note their calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Answers as `dev` asks: its version, whether it has venv and ensurepip, then 'python -m venv' and 'python -m pip'.
PYTHON = """#!/bin/sh
case "$*" in
    *"%d%02d"*) echo {number} ;;
    *"%d.%d-venv"*) echo python{dotted}-venv ;;
    *"import ensurepip"*) {ensurepip} ;;
    "-m benchmarks"* | "-m proxy."*) echo "$*" >>runs ;;
    -VV | --version) echo "Python {dotted}.0" ;;
    "-W ignore setup.py"*)
        echo "$*" >>compilations
        [ ! -e compiler-fails ] || {{ echo "error: no such type"; exit 1; }} ;;
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip"*)
        echo "$*" >>calls
        [ ! -e pip-fails ] || {{ echo "no matching distribution"; exit 1; }}
        printf '#!/bin/sh\\n' >.venv/bin/spanway && chmod +x .venv/bin/spanway ;;
    *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


class Machine:
    """A copy of the script's files, and a PATH on which only the basic tools and what a test adds can be found."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.programs = folder / "bin"
        self.checkout.mkdir()
        self.programs.mkdir()
        for name in ("dev", "pyproject.toml", "requirements.lock", "setup.py"):
            shutil.copy2(ROOT / name, self.checkout / name)
        (self.checkout / "proxy").mkdir()
        (self.checkout / "proxy" / "module.pyx").touch()
        for name in ("sh", "cat", "cksum", "cp", "chmod", "dirname", "id", "mkdir", "mktemp", "mv", "printf"):
            self.link(name)
        for name in ("readlink", "rm", "sed", "tail", "grep", "find", "head", "touch"):
            self.link(name)

    def link(self, name: str) -> None:
        found = shutil.which(name)
        if found:
            (self.programs / name).symlink_to(found)

    def program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def python(self, name: str, version: str, ensurepip: bool = True) -> None:
        major, minor = version.split(".")
        number = f"{major}{int(minor):02d}"
        answer = "exit 0" if ensurepip else "[ -e venv-installed ]"
        self.program(name, PYTHON.format(number=number, dotted=version, ensurepip=answer))

    def run(
        self, *arguments: str, folder: Path | None = None, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.checkout / "dev"), *arguments],
            cwd=folder or self.checkout,
            env={"PATH": str(self.programs), "HOME": str(self.checkout), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        """The calls of pip so far."""
        return self._lines("calls")

    @property
    def compilations(self) -> list[str]:
        """The runs of setup.py so far."""
        return self._lines("compilations")

    @property
    def runs(self) -> list[str]:
        """The modules run so far, with their arguments."""
        return self._lines("runs")

    def _lines(self, name: str) -> list[str]:
        file = self.checkout / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_setup_installs_from_the_lock_and_is_done_the_second_time(machine: Machine) -> None:
    machine.python("python3", "3.11")
    first = machine.run("setup")
    assert first.returncode == 0, first.stderr
    assert len(machine.calls) == 1
    assert "--constraint requirements.lock --editable .[demo,compile]" in machine.calls[0]
    assert "--only-binary :all:" in machine.calls[0]
    assert ".venv/bin/spanway" in first.stderr

    second = machine.run("setup")
    assert second.returncode == 0
    assert len(machine.calls) == 1


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements.lock"])
def test_setup_runs_again_when_what_it_installs_changed(machine: Machine, changed: str) -> None:
    machine.python("python3", "3.11")
    machine.run("setup")
    with (machine.checkout / changed).open("a") as file:
        file.write("\n# changed\n")
    assert machine.run("setup").returncode == 0
    assert len(machine.calls) == 2


def test_a_developers_setup_serves_a_user_but_not_the_other_way_round(machine: Machine) -> None:
    machine.python("python3", "3.11")
    machine.run("setup")
    machine.run("check")
    assert len(machine.calls) == 2
    assert ".[demo,dev]" in machine.calls[1]
    machine.run("setup")
    assert len(machine.calls) == 2


def test_what_has_changed_is_compiled_anew(machine: Machine) -> None:
    machine.python("python3", "3.11")
    for _ in range(2):
        assert machine.run("setup").returncode == 0
    assert machine.compilations == ["-W ignore setup.py -q build_ext --inplace"]
    later = (machine.checkout / ".venv" / ".compiled").stat().st_mtime + 10
    os.utime(machine.checkout / "proxy" / "module.pyx", (later, later))
    machine.run("setup")
    assert len(machine.compilations) == 2
    assert len(machine.calls) == 1


def test_what_does_not_compile_ends_the_setup(machine: Machine) -> None:
    machine.python("python3", "3.11")
    (machine.checkout / "compiler-fails").touch()
    failed = machine.run("setup")
    assert failed.returncode == 1
    assert "error: no such type" in failed.stderr
    assert "does not compile" in failed.stderr


def test_nothing_is_compiled_where_nothing_is_wanted(machine: Machine) -> None:
    machine.python("python3", "3.11")
    assert machine.run("setup", environment={"SPANWAY_PURE": "1"}).returncode == 0
    assert machine.compilations == []


def test_a_failed_setup_shows_pips_last_words_and_is_tried_again(machine: Machine) -> None:
    machine.python("python3", "3.11")
    (machine.checkout / "pip-fails").touch()
    failed = machine.run("setup")
    assert failed.returncode == 1
    assert "no matching distribution" in failed.stderr
    assert "Check the network" in failed.stderr
    (machine.checkout / "pip-fails").unlink()
    assert machine.run("setup").returncode == 0
    assert len(machine.calls) == 2


def test_the_newest_suitable_python_is_taken(machine: Machine) -> None:
    machine.python("python3", "3.11")
    machine.python("python3.12", "3.12")
    machine.program("python3.13", "#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    made = machine.run("setup")
    assert made.returncode == 0, made.stderr
    assert "making .venv with Python 3.12.0" in made.stderr


def test_an_old_python_gets_a_next_step(machine: Machine) -> None:
    machine.python("python3", "3.9")
    refused = machine.run("setup")
    assert refused.returncode == 1
    assert "found only python3 (3.9)" in refused.stderr
    assert "3.11 or newer" in refused.stderr
    assert "apt-get install" in refused.stderr
    assert not (machine.checkout / ".venv").exists()


def test_no_python_gets_a_next_step(machine: Machine) -> None:
    refused = machine.run("setup")
    assert refused.returncode == 1
    assert "found none" in refused.stderr


def test_debian_without_venv_installs_it_as_root(machine: Machine) -> None:
    machine.python("python3", "3.11", ensurepip=False)
    machine.program("apt-get", '#!/bin/sh\necho "$*" >>apt-calls\n: >venv-installed\n')
    (machine.programs / "id").unlink()
    machine.program("id", "#!/bin/sh\necho 0\n")
    made = machine.run("setup")
    assert made.returncode == 0, made.stderr
    assert "python3.11-venv" in (machine.checkout / "apt-calls").read_text()


def test_debian_without_venv_tells_a_user_what_to_install(machine: Machine) -> None:
    machine.python("python3", "3.11", ensurepip=False)
    machine.program("apt-get", "#!/bin/sh\n: >apt-was-called\n")
    (machine.programs / "id").unlink()
    machine.program("id", "#!/bin/sh\necho 1000\n")
    refused = machine.run("setup")
    assert refused.returncode == 1
    assert "apt-get install python3.11-venv" in refused.stderr
    assert not (machine.checkout / "apt-was-called").exists()


def test_a_broken_environment_is_made_anew(machine: Machine) -> None:
    machine.python("python3", "3.11")
    machine.run("setup")
    (machine.checkout / ".venv/bin/python").write_text("#!/nonexistent/python\n")
    again = machine.run("setup")
    assert again.returncode == 0, again.stderr
    assert "making it anew" in again.stderr
    assert len(machine.calls) == 2


def test_it_works_from_any_folder(machine: Machine, tmp_path: Path) -> None:
    machine.python("python3", "3.11")
    assert machine.run("setup", folder=tmp_path).returncode == 0
    assert (machine.checkout / ".venv/bin/spanway").exists()


def test_every_command_is_in_the_help(machine: Machine) -> None:
    script = (ROOT / "dev").read_text()
    answered = script.partition("case $command in")[2]
    commands = [
        line.strip().split(")")[0] for line in answered.splitlines() if line.startswith("    ") and line[4].isalpha()
    ]
    shown = machine.run("help").stdout
    named = [name for name in commands if "|" not in name]
    assert "test" in named
    assert "demo" in named
    for name in named:
        assert f"\n  {name} " in shown


def test_bench_passes_its_arguments_on(machine: Machine) -> None:
    machine.python("python3", "3.11")
    assert machine.run("bench").returncode == 0
    assert machine.run("bench", "--quick", "--check").returncode == 0
    assert machine.runs == ["-m benchmarks", "-m benchmarks --quick --check"]


def test_docs_writes_every_generated_part(machine: Machine) -> None:
    machine.python("python3", "3.11")
    (machine.checkout / "docs").mkdir()
    assert machine.run("docs").returncode == 0
    assert machine.runs == [
        "-m proxy.settings_reference",
        "-m proxy.trace.semconv docs/tracing.md",
        "-m proxy.admin.reference docs/tracing.md",
        "-m proxy.control.annotation_reference docs/migrate-from-ingress-nginx.md",
    ]


def test_an_unknown_command_is_refused(machine: Machine) -> None:
    refused = machine.run("tset")
    assert refused.returncode == 1
    assert "'tset' is not a command" in refused.stderr


def test_ci_runs_the_tests_and_nothing_else(tmp_path: Path) -> None:
    ci = tmp_path / ".ci"
    ci.mkdir()
    shutil.copy2(ROOT / ".ci/run", ci / "run")
    (tmp_path / "dev").write_text('#!/bin/sh\necho "dev $*"\nexit 7\n')
    (tmp_path / "dev").chmod(0o755)
    done = subprocess.run(
        ["bash", ".ci/run"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "dev test\n"
    assert done.returncode == 7
