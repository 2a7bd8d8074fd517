"""A real kube-apiserver on loopback, with certificates, accounts and RBAC of its own, and `kubectl` to talk to it."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.harness.authority import Authority
from tests.harness.kube_client import KubeClient
from tests.real.process import Process, free_ports

ADMIN: Final = "admin"
MASTERS: Final = "system:masters"  # may do everything; and the API server continues the traces they send
START: Final = 60.0  # seconds until it is ready: 2 on an idle core
KUBECTL: Final = 60.0  # seconds for one command


class KubectlFailed(Exception):
    """A kubectl that ended with an error, with what it said."""


class KubeApiServer:
    """One API server with its store in the etcd at ``etcd``.

    Its port and its accounts stay the same from one start to the next. With ``otlp`` (an http:// URL of an OTLP gRPC
    receiver) every request is traced. ``arguments`` are further flags.
    """

    def __init__(self, program: Path, kubectl: Path, folder: Path, etcd: str, *arguments: str, otlp: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self._folder = folder
        self._kubectl = kubectl
        self._authority = Authority(folder / "certificates")
        self._admin = self._authority.issue(ADMIN, organization=MASTERS)
        server = self._authority.issue("kube-apiserver", "127.0.0.1", "localhost", "kubernetes.default.svc")
        accounts = folder / "accounts.key"  # signs service accounts' tokens
        accounts.write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        self._command = (
            program,
            f"--etcd-servers={etcd}",
            "--etcd-compaction-interval=0",  # only when the test says so
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={server.certificate}",
            f"--tls-private-key-file={server.key}",
            f"--client-ca-file={self._authority.file}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",  # nobody looks for the Service 'kubernetes'
            "--profiling=false",
            *((f"--tracing-config-file={self._tracing(otlp)}",) if otlp else ()),
            *arguments,
        )
        self.kubeconfig: Final = self.kubeconfig_of("")
        self.process: Process
        self.start()
        self.client: Final = KubeClient(self.kubeconfig)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Life.

    def start(self) -> None:
        """Run it (again) and wait until it is ready."""
        self.process = Process("kube-apiserver", self._command, self._folder / "kube-apiserver.log")
        try:
            client = KubeClient(self.kubeconfig)
            self.process.until(lambda: _ready(client), "to be ready", START)
            client.close()
        except BaseException:
            self.process.stop()
            raise

    def stop(self) -> None:
        """SIGTERM, and SIGKILL should it not end soon: it waits for watches."""
        self.process.stop(grace=3.0)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.signal(signal.SIGKILL)
        self.process.stop()

    # Users.

    def kubeconfig_of(self, token: str, *, port: int = 0) -> Path:
        """A kubeconfig file for the holder of a token, or with none for the administrator; ``port`` of a gate."""
        user: dict[str, Any] = {"token": token}
        if not token:
            user = {
                "client-certificate-data": _base64(self._admin.certificate),
                "client-key-data": _base64(self._admin.key),
            }
        cluster = {
            "server": f"https://127.0.0.1:{port or self.port}",
            "certificate-authority-data": _base64(self._authority.file),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
        }
        path = self._folder / f"kubeconfig-{len(list(self._folder.glob('kubeconfig-*')))}"
        path.write_text(json.dumps(config))
        return path

    def token(self, namespace: str, account: str) -> str:
        """A token of a service account, good for an hour (TokenRequest)."""
        return self.kubectl("create", "token", account, f"--namespace={namespace}", "--duration=1h").strip()

    # The client.

    def kubectl(self, *arguments: str, given: str = "", kubeconfig: Path | None = None) -> str:
        """Run one command with ``given`` on its standard input; what it printed. Raises `KubectlFailed`."""
        command: Sequence[str] = (str(self._kubectl), f"--kubeconfig={kubeconfig or self.kubeconfig}", *arguments)
        environ = {"HOME": str(self._folder), "PATH": "/usr/bin:/bin"}  # its cache of the API goes to HOME
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=KUBECTL, env=environ, check=False
        )
        if done.returncode:
            raise KubectlFailed(f"{' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def _tracing(self, otlp: str) -> Path:
        path = self._folder / "tracing.yaml"
        configuration = {
            "apiVersion": "apiserver.config.k8s.io/v1beta1",
            "kind": "TracingConfiguration",
            "endpoint": otlp.removeprefix("http://"),
            "samplingRatePerMillion": 1_000_000,
        }
        path.write_text(json.dumps(configuration))
        return path


def _ready(client: KubeClient) -> bool:
    try:
        return client.ask("GET", "/readyz") == "ok"
    except Exception:  # not there, not ready, or in the middle of a handshake
        return False


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
