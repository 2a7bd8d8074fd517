"""The Dockerfile without a container engine: its steps are read, and those of the build run, in a folder.

What runs in the image then runs as there: process 1 of a PID namespace, another user without capabilities, and nothing
that it can write to.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import psutil

from tests.real.process import Process

ROOT: Final = Path(__file__).resolve().parents[2]
USER: Final = 10001
STEP: Final = 900.0  # seconds for one step: compiling, and downloading what is not cached
_PLACES: Final = re.compile(r"(?<![\w./])/(?=(?:wheels|opt|build)\b)")


@dataclass
class Stage:
    """One FROM and what follows, with arguments filled in."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)  # instruction, rest of it

    def all(self, instruction: str) -> list[str]:
        """The rests of every such instruction."""
        return [rest for word, rest in self.steps if word == instruction]


def stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by name, in order."""
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    stage: Stage | None = None
    for line in _lines(text):
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "ARG" and stage is None:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            for name, value in arguments.items():
                rest = rest.replace(f"${{{name}}}", value)
            base, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(name, base)
        else:
            assert stage is not None, line
            stage.steps.append((word, rest))
    return found


def _lines(text: str) -> list[str]:
    """Instructions, one a line: without comments, and with continuations joined."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [re.sub(r"\s+", " ", line).strip() for line in re.sub(r"\\\n", " ", kept).splitlines() if line.strip()]


def context(ignore: str) -> list[Path]:
    """The files of the repository that .dockerignore lets through; the last line that matches decides."""
    rules = [line.strip() for line in ignore.splitlines() if line.strip() and not line.startswith("#")]
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not (folder == str(ROOT) and name.startswith("."))]
        for name in files:
            path = (Path(folder) / name).relative_to(ROOT)
            kept = True
            for rule in rules:
                negated = rule.startswith("!")
                if _matches(path, rule.removeprefix("!")):
                    kept = negated
            if kept:
                found.append(path)
    return found


def _matches(path: Path, rule: str) -> bool:
    """Whether a rule is for a file or a folder above it; `**/` stands for any depth."""
    chain = [path, *path.parents][:-1]
    if rule.startswith("**/"):
        return any(fnmatch.fnmatch(each.name, rule[3:]) for each in chain)
    return any(fnmatch.fnmatch(str(each), rule) for each in chain)


class Image:
    """The image, built in ``folder``; where the Dockerfile says /opt it is ``folder``/opt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)  # for the other user
        self.stages = stages((ROOT / "Dockerfile").read_text())
        self._python = _interpreter()
        self.log = folder / "build.log"

    def build(self) -> None:
        """Run the steps of the stage `build`; raises AssertionError with the end of what a failing one said."""
        place = self.folder
        # An image is built from a clean environment, whichever form of Spanway the tests run.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SPANWAY_")}
        for word, rest in self.stages["build"].steps:
            if word == "WORKDIR":
                place = Path(self._here(rest))
                place.mkdir(parents=True)
            elif word == "ENV":
                environ |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            elif word == "COPY":
                assert rest == ". ."
                for path in context((ROOT / ".dockerignore").read_text()):
                    (place / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / path, place / path)
            elif word == "RUN" and "apt-get" not in rest:  # what that one installs is this machine's business
                self._run(rest, place, environ)

    def _run(self, command: str, place: Path, environ: Mapping[str, str]) -> None:
        pip = f"{sys.executable} -m pip --disable-pip-version-check"
        command = self._here(command)
        command = re.sub(r"(?:^|(?<=&& ))pip --python", f"{pip} --python", command)
        command = re.sub(r"(?:^|(?<=&& ))pip (?!--python)", f"{pip} --python {self._python} ", command)
        command = re.sub(r"(?:^|(?<=&& ))python ", f"{self._python} ", command)
        with self.log.open("ab") as log:
            log.write(f"$ {command}\n".encode())
            log.flush()
            done = subprocess.run(
                ["sh", "-euc", command], cwd=place, env=environ, stdout=log, stderr=log, timeout=STEP, check=False
            )
        assert done.returncode == 0, f"{command}:\n{self.log.read_text()[-4000:]}"

    def _here(self, text: str) -> str:
        return _PLACES.sub(f"{self.folder}/", text)

    def environment(self, stage: str) -> dict[str, str]:
        """What a container of the stage would have."""
        found = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
        for rest in self.stages[stage].all("ENV"):
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                found[name] = self._here(value).replace("$PATH", found["PATH"])
        return found

    def run(
        self, stage: str, arguments: Sequence[str], log: Path, environ: Mapping[str, str] | None = None
    ) -> Container:
        """Start a container of the stage, with ``arguments`` after its ENTRYPOINT."""
        (entry,) = (shlex.split(rest.strip("[]").replace(",", " ")) for rest in self.stages[stage].all("ENTRYPOINT"))
        return Container([*entry, *arguments], log, {**self.environment(stage), **(environ or {})})


class Container:
    """A command as process 1 of a PID namespace on a read-only file system, run by another user; ends with the test."""

    def __init__(self, command: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        isolated = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
        read_only = 'mount --make-rprivate / && mount -o remount,bind,ro / && exec setpriv "$@"'
        user = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs")
        without = ("--bounding-set=-all", "--inh-caps=-all")
        argv = (*isolated, "sh", "-c", read_only, "sh", *user, *without, "--", *command)
        self.process = Process("container", argv, log, environ=environ, cwd=Path("/"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop(grace=0.0)

    @property
    def first(self) -> psutil.Process:
        """Its process 1, as this machine sees it."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def zombies(self) -> list[psutil.Process]:
        """Ended processes that nobody has reaped."""
        return [each for each in self.first.children() if each.status() == psutil.STATUS_ZOMBIE]

    def orphan(self) -> None:
        """Leave it a process that lives for a moment, and whose parent has gone."""
        inside = ("nsenter", f"--target={self.first.pid}", "--pid", "--mount")
        script = "sh -c 'sleep 0.2 & echo $!' >/dev/null"
        subprocess.run([*inside, "sh", "-c", script], timeout=10, check=True, stdin=subprocess.DEVNULL)

    def until_reaped(self) -> None:
        """Wait for a moment in which it has no zombie, after the orphan's end."""
        deadline = time.monotonic() + 10
        time.sleep(0.4)
        while self.zombies():
            assert time.monotonic() < deadline, self.zombies()
            time.sleep(0.05)


def _interpreter() -> str:
    """A Python of this version that another user can run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    mine = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
    # By way of a shell: what setpriv itself starts is found with the rights that it had before.
    user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "sh", "-c", '"$0" -c "import venv"')
    for candidate in (mine, f"/usr/local/bin/{version}", f"/usr/bin/{version}"):
        if (
            Path(candidate).exists()
            and not subprocess.run([*user, candidate], capture_output=True, check=False).returncode
        ):
            return candidate
    raise LookupError(f"no {version} that other users can run: this one is in {Path(mine).parent}")
