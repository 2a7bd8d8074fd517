"""`spanway apply --trace`: from the file to the first request, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.harness import poll
from tests.harness.proxy import ROOT
from tests.kubernetes.clusters import FakeCluster, ingress_class, site
from tests.kubernetes.conftest import Backends, StartController


def command(cluster: FakeCluster, file: Path, *arguments: str) -> list[str]:
    kubeconfig = str(cluster.kubeconfig(""))
    return [sys.executable, "-m", "proxy", "apply", "-f", str(file), "--kubeconfig", kubeconfig, *arguments]


def test_the_whole_way_is_one_waterfall(
    fake_cluster: FakeCluster, backends: Backends, start_controller: StartController, tmp_path: Path
) -> None:
    fake_cluster.apply(ingress_class())
    controller = start_controller(fake_cluster, workers=2)
    file = tmp_path / "shop.json"
    items = site("shop", backends.address, [backends.ports[0]])
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    admin = "http://{}:{}".format(*controller.listeners["admin"])
    arguments = command(fake_cluster, file, "--trace", "--controller", admin, "--wait", "20")
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


def test_what_is_of_nobody_s_class_is_said(
    fake_cluster: FakeCluster, backends: Backends, start_controller: StartController, tmp_path: Path
) -> None:
    controller = start_controller(fake_cluster)
    file = tmp_path / "nothing.yaml"
    file.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n")
    admin = "http://{}:{}".format(*controller.listeners["admin"])
    done = subprocess.run(
        command(fake_cluster, file, "--trace", "--controller", admin, "--wait", "0.5"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no request came within 0.5 s" in done.stderr
    done = subprocess.run(command(fake_cluster, file), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        command(fake_cluster, file, "--trace", "--controller", "http://127.0.0.1:1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "the controller at http://127.0.0.1:1 cannot be asked" in done.stderr
