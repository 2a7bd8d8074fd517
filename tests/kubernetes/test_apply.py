"""`spanway apply --trace`: from the file to the first request, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import poll
from tests.harness.kube_store import Object
from tests.harness.proxy import ROOT
from tests.kubernetes.clusters import Cluster, ingress_class, site
from tests.kubernetes.conftest import Backends, StartController

pytestmark = pytest.mark.timeout(180)


def command(cluster: Cluster, file: Path, *arguments: str) -> list[str]:
    kubeconfig = str(cluster.kubeconfig(""))
    return [sys.executable, "-m", "proxy", "apply", "-f", str(file), "--kubeconfig", kubeconfig, *arguments]


def test_the_whole_way_is_one_waterfall(
    cluster: Cluster, backends: Backends, start_controller: StartController, tmp_path: Path
) -> None:
    cluster.apply(ingress_class())
    controller = start_controller(cluster, workers=2)
    file = written(tmp_path / "shop.json", *site("shop", backends.address, [backends.ports[0]]))
    admin = "http://{}:{}".format(*controller.listeners["admin"])
    arguments = command(cluster, file, "--trace", "--controller", admin, "--wait", "20")
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as applying:
        controller.serves("shop.test", backends.body(0))
        poll.until(lambda: controller.get("shop.test").status and applying.poll() is not None, "the end", 40)
        out, err = applying.communicate(timeout=20)
    assert applying.returncode == 0, err
    assert "Ingress default/shop applied, resourceVersion" in out
    assert "served by every worker" in err
    shown = [
        name
        for name in ("apply", "PATCH", "table generation", "receive Ingress", "build", "swap worker")
        if name in out
    ]
    assert shown == ["apply", "PATCH", "table generation", "receive Ingress", "build", "swap worker"], out
    assert "first request" in out
    assert "GET /" in out, "the request itself hangs below"


def run(cluster: Cluster, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(cluster, file, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=60)


def written(file: Path, *items: Object) -> Path:
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    return file


def test_an_ingress_of_another_class_is_not_said_to_be_served(
    cluster: Cluster, backends: Backends, start_controller: StartController, tmp_path: Path
) -> None:
    """Though the Service beside it is one that another Ingress of ours names, and both come in one moment."""
    mine = site("mine", backends.address, [backends.ports[0]])
    cluster.apply(ingress_class(), *mine)
    controller = start_controller(cluster)
    controller.serves("mine.test", backends.body(0))
    admin = "http://{}:{}".format(*controller.listeners["admin"])
    theirs = site("theirs", backends.address, [backends.ports[0]], ingress_class="somebodys")
    file = written(tmp_path / "theirs.json", mine[0], *theirs)
    done = run(cluster, file, "--trace", "--controller", admin, "--wait", "20")
    assert done.returncode == 1
    assert "no request is routed by: Ingress default/theirs; is it of the controller's class?" in done.stderr
    assert "served by every worker" not in done.stderr


def test_what_no_ingress_names_is_said(
    cluster: Cluster, backends: Backends, start_controller: StartController, tmp_path: Path
) -> None:
    cluster.apply(ingress_class())
    controller = start_controller(cluster)
    file = written(tmp_path / "service.json", site("alone", backends.address, [backends.ports[0]])[0])
    admin = "http://{}:{}".format(*controller.listeners["admin"])
    done = run(cluster, file, "--trace", "--controller", admin, "--wait", "20")
    assert done.returncode == 1
    assert "no Ingress of the controller's class names anything of this" in done.stderr
    done = run(cluster, file)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(cluster, file, "--trace", "--controller", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "the controller at http://127.0.0.1:1 cannot be asked" in done.stderr
