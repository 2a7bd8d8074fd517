"""The Dockerfile: its build runs here, and what it makes runs as it would in a pod."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import manifests
from tests.harness.upstream import Recorder
from tests.kubernetes.image import ROOT, USER, Image, context, stages
from tests.real.client import once
from tests.real.process import free_ports

STAGES = stages((ROOT / "Dockerfile").read_text())
LAST = list(STAGES)[-1]


def test_the_last_stage_has_no_compiler_and_runs_as_nobody() -> None:
    assert LAST == "spanway"  # what is built without --target
    for name in (LAST, "demo"):
        stage = STAGES[name]
        assert not stage.all("RUN")  # nothing is installed in it
        environment = "/opt/spanway" if name == LAST else "/opt/spanway-demo"
        assert stage.all("COPY") == [f"--from=build {environment} {environment}"]
        assert stage.all("USER") == [f"{USER}:{USER}"]  # a number: Kubernetes verifies runAsNonRoot by it
        assert all(int(port) >= 1024 for port in stage.all("EXPOSE")[0].split())
        assert stage.all("ENTRYPOINT")[0].startswith("[")  # no shell between the kubelet and the process
        assert stage.base == STAGES["build"].base  # the virtual environment's Python is at the same place
    assert any("gcc" in step for step in STAGES["build"].all("RUN"))


def test_everything_that_builds_is_pinned() -> None:
    """Also what pip puts into the environment that it builds in, which --constraint says nothing about."""
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {re.split(r"[>=<~ ]", each)[0].lower() for each in project["build-system"]["requires"]}
    assert wanted <= pinned
    (step,) = [step for step in STAGES["build"].all("RUN") if "pip wheel" in step]
    for name in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"):
        assert f"{name}=/build/requirements.lock" in step
    assert "--constraint requirements.lock" in step
    assert "ARG BASE=" in (ROOT / "Dockerfile").read_text(), "which a digest goes into"
    assert len({stage.base for stage in STAGES.values()}) == 1


def test_the_context_is_what_is_built_from() -> None:
    files = {str(path) for path in context((ROOT / ".dockerignore").read_text())}
    assert {"pyproject.toml", "requirements.lock", "README.md", "LICENSE", "proxy/app.py", "proxy/py.typed"} <= files
    strangers = {path for path in files if not path.startswith("proxy/") and "/" in path}
    assert not strangers
    assert not {path for path in files if "__pycache__" in path or path.startswith((".git", ".venv", "tests"))}


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Built once: the wheel, and two environments with it."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        reason = "running as another user in namespaces needs root, and unshare and setpriv of util-linux"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="spanway-image-"))
    try:
        made = Image(folder)
        made.build()
        yield made
    finally:
        shutil.rmtree(folder)


SLOW = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(900)]


def answered(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except OSError:
        return 0


class TestImage:
    """In the order in which an image comes to life."""

    pytestmark = SLOW

    def test_it_says_its_version(self, image: Image, tmp_path: Path) -> None:
        with image.run("spanway", ["--version"], tmp_path / "log") as container:
            assert container.process.wait() == 0
            assert container.process.output().startswith("spanway ")

    def test_it_serves_and_drains_as_process_one(self, image: Image, tmp_path: Path) -> None:
        site = image.folder / "site"
        site.mkdir()
        http, admin = free_ports(2)
        upstream = Recorder()
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(upstream.stop)
            (site / "site.yaml").write_text(manifests.documents(*manifests.site("web", [upstream.port])))
            arguments = ["serve", "--ingress", str(site), "--http", f"127.0.0.1:{http}"]
            arguments += ["--admin", f"127.0.0.1:{admin}", "--workers", "2"]
            with image.run("spanway", arguments, tmp_path / "log") as container:
                container.process.expect("spanway: ready")
                assert answered(f"http://127.0.0.1:{admin}/readyz") == 200
                answer = once(("127.0.0.1", http), "GET", "/", {"Host": "web.test"})
                assert (answer.status, answer.body) == (200, b"ok")
                assert {process.uids().real for process in container.first.children()} == {USER}
                container.orphan()
                container.until_reaped()
                container.first.terminate()
                assert container.process.wait(20.0) == 0
                log = [json.loads(line) for line in container.process.output().splitlines() if line.startswith("{")]
                assert len(log) == 1  # the access log, complete

    def test_the_demo_has_its_services(self, image: Image, tmp_path: Path) -> None:
        (port,) = free_ports(1)
        arguments = ["stock", "--host=127.0.0.1", f"--port={port}"]
        with image.run("demo", arguments, tmp_path / "log") as container:
            container.process.until(lambda: answered(f"http://127.0.0.1:{port}/healthz") == 200, "to be healthy")
            container.first.terminate()
            assert container.process.wait(20.0) == 0

    def test_the_environment_has_no_more_than_it_needs(self, image: Image) -> None:
        installed = {path.name.partition("-")[0].lower() for path in image.folder.glob("opt/spanway/**/*.dist-info")}
        assert "spanway" in installed
        assert list(image.folder.glob("opt/spanway/**/proxy/**/*.so"))  # compiled, or the build fails
        assert not installed & {"pip", "pytest", "cython", "requests", "setuptools"}
