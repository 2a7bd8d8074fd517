"""Finding and building parts, with a stand-in for Go: no network, no compiler."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from tests.real import install, parts
from tests.real.install import InstallFailed
from tests.real.parts import DebianPart, GoPart, PartMissing

PART = GoPart("thing", "example.org/thing", "v1.2.3", "h1:sum", "./cmd/thing", "a stand-in", ("version",))
GO = """#!/bin/sh
echo "$@" >> "{folder}/calls"
case "$1" in
list) exit {choose} ;;
mod) cat "{folder}/module.json"; exit {download} ;;
build)
    while [ "$1" != -o ]; do shift; done
    printf '#!/bin/sh\\nexit {probe}\\n' > "$2"; chmod +x "$2"; echo example.org/thing >&2; exit {build} ;;
esac
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPANWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(parts.PARTS, "thing", PART)
    return tmp_path / "cache" / "spanway" / "parts"


def stand_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    checksum: str = "h1:sum",
    download: int = 0,
    build: int = 0,
    probe: int = 0,
    choose: int = 0,
) -> Path:
    """Put a `go` first on PATH that does as it is told; returns the file of its calls."""
    folder = tmp_path / "go"
    folder.mkdir(exist_ok=True)
    source = folder / "source"
    source.mkdir(exist_ok=True)
    module = {"Dir": str(source), "Sum": checksum} if download == 0 else {"Error": "no such module"}
    (folder / "module.json").write_text(json.dumps(module))
    go = folder / "go"
    go.write_text(GO.format(folder=folder, download=download, build=build, probe=probe, choose=choose))
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "calls"


def test_a_part_is_built_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(tmp_path, monkeypatch)
    assert parts.find("thing") is None
    path = install.install(PART)
    assert path == cache / "thing-v1.2.3" / "thing"
    assert parts.find("thing") == parts.require("thing") == path
    assert install.install(PART) == path
    download, build = calls.read_text().splitlines()
    assert download == "mod download -json example.org/thing@v1.2.3"
    assert build.split()[:2] == ["build", "-C"]
    assert {"-trimpath", "-mod=readonly", "./cmd/thing"} <= set(build.split())


def test_two_installations_at_once_build_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(tmp_path, monkeypatch)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(install.install(PART))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / "thing-v1.2.3" / "thing"] * 4
    assert len(calls.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ({"download": 1}, "no such module"),
        ({"checksum": "h1:other"}, "not the pinned h1:sum"),
        ({"build": 1}, "go build failed"),
        ({"probe": 1}, "does not run"),
    ],
)
def test_a_failure_says_why_and_leaves_nothing_to_be_found(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: dict[str, int], said: str
) -> None:
    stand_in(tmp_path, monkeypatch, **failure)  # type: ignore[arg-type] # the table above has the right types
    with pytest.raises(InstallFailed, match=said):
        install.install(PART)
    assert parts.find("thing") is None
    stand_in(tmp_path, monkeypatch)
    assert install.install(PART).is_file()  # what the failed attempt left is no obstacle


def test_without_go_the_next_step_is_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(install, "GO_DIRECTORY", tmp_path / "nowhere")
    with pytest.raises(InstallFailed, match="install Go"):
        install.install(PART)


def test_a_missing_part_is_one_line_with_the_way_to_get_it(cache: Path) -> None:
    with pytest.raises(PartMissing) as caught:
        parts.require("thing")
    assert "python -m tests.real.parts install thing" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_require_waits_for_an_installation_under_way(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch)
    building, release = threading.Event(), threading.Event()
    build = install._build

    def slow(part: GoPart) -> None:
        building.set()
        assert release.wait(10)
        build(part)

    monkeypatch.setattr(install, "_build", slow)
    installer = threading.Thread(target=install.install, args=(PART,))
    installer.start()
    assert building.wait(10)
    found: list[Path] = []
    waiter = threading.Thread(target=lambda: found.append(parts.require("thing")))
    waiter.start()
    release.set()
    waiter.join()
    installer.join()
    assert found == [cache / "thing-v1.2.3" / "thing"]


KUBERNETES_MOD = """module example.org/thing

require (
\texample.org/other v1.0.0
\tk8s.io/api v0.0.0
)

replace (
\tk8s.io/api => ./staging/src/k8s.io/api
)
"""
KUBERNETES = dataclasses.replace(PART, name="kube-thing", kubernetes=True)


def test_kubernetes_is_built_from_its_published_modules(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = stand_in(tmp_path, monkeypatch)
    source = tmp_path / "go" / "source"
    (source / "go.mod").write_text(KUBERNETES_MOD)
    (source / "go.sum").write_text("sums\n")
    path = install.install(KUBERNETES)
    assert path == cache / "kube-thing-v1.2.3" / "kube-thing"
    module = cache / ".kubernetes-module" / "kube-thing-v1.2.3"
    written = (module / "go.mod").read_text()
    assert "k8s.io/api => k8s.io/api v0.2.3" in written
    assert "require example.org/thing v1.2.3" in written
    assert "module example.org/thing" not in written
    assert (module / "go.sum").read_text() == "sums\n"
    _, choose, build = calls.read_text().splitlines()
    assert choose == f"list -C {module} -mod=mod -deps example.org/thing/cmd/thing"
    assert build.startswith(f"build -C {module} ")
    assert build.endswith(" example.org/thing/cmd/thing")
    assert "-X k8s.io/component-base/version.gitVersion=v1.2.3" in build


def test_kubernetes_without_modules_of_its_own_is_an_error(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, choose=1)
    source = tmp_path / "go" / "source"
    (source / "go.sum").touch()
    (source / "go.mod").write_text("module example.org/thing\n")
    with pytest.raises(ValueError, match="replaces no module"):
        install.install(KUBERNETES)
    (source / "go.mod").write_text(KUBERNETES_MOD)
    with pytest.raises(InstallFailed, match="go list failed"):
        install.install(KUBERNETES)


def test_no_other_version_of_kubernetes_is_taken(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("thing", "kube-thing"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert PART.path() == tmp_path / "thing"
    assert KUBERNETES.path() is None


def test_a_debian_part_is_found_outside_a_users_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "served"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(parts, "SYSTEM_DIRECTORIES", (str(tmp_path),))
    assert DebianPart("served", "served", "a stand-in").path() == program


def test_only_root_installs_packages(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(InstallFailed, match="package manager"):
        install.install(DebianPart("absent", "absent-package", "a stand-in"))
    monkeypatch.setattr(shutil, "which", lambda name, **_: "/usr/bin/apt-get" if name == "apt-get" else None)
    with pytest.raises(InstallFailed, match="sudo apt-get install absent-package"):
        install.install(DebianPart("absent", "absent-package", "a stand-in"))


def test_the_pins_are_what_they_should_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert parts.main(["list"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {"nginx", "wrk", "openssl", "jaeger", "hotrod", "etcd", "kube-apiserver", "kubectl"} <= listed
