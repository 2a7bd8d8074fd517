"""A plain client of a Kubernetes API server, the real one's or the stand-in's: one connection, JSON in and out."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from tests.harness.kube_store import BY_KIND, Object, Resource

APPLY = "application/apply-patch+yaml"  # JSON is YAML
MERGE = "application/merge-patch+json"


class Refusal(Exception):
    """An answer of 400 or more: its code, and the `Status` that the server gave."""

    def __init__(self, code: int, status: Any) -> None:
        super().__init__(f"{code}: {status.get('message', status) if isinstance(status, dict) else status}")
        self.code = code
        self.status = status


class KubeClient:
    """Speaks as the user of a ``kubeconfig`` file; its methods may be called from any thread."""

    def __init__(self, kubeconfig: Path, manager: str = "test") -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        parts = urlsplit(cluster["server"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile() as pair:  # ssl takes files only
                for name in ("client-certificate-data", "client-key-data"):
                    pair.write(base64.b64decode(user[name]))
                pair.flush()
                context.load_cert_chain(pair.name)
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        assert parts.hostname is not None
        self._connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context, timeout=30)
        self._lock = threading.Lock()
        self._manager = manager

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; another request opens it anew."""
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request, repeated once if the kept connection has gone; raises `Refusal`, OSError."""
        text = None if body is None else json.dumps(body)
        fields = {**self._headers, "Content-Type": kind, "Accept": "application/json", **(headers or {})}
        with self._lock:
            for last in (False, True):
                try:
                    self._connection.request(method, path, text, fields)
                    response = self._connection.getresponse()
                    status, answer = response.status, response.read()
                    break
                except (http.client.HTTPException, OSError) as error:
                    self._connection.close()
                    if last or isinstance(error, ConnectionRefusedError):
                        raise
            else:
                raise AssertionError("unreachable")
        found = json.loads(answer) if answer[:1] == b"{" else answer.decode()
        if status >= 400:
            raise Refusal(status, found)
        return found

    def apply(self, *objects: Object) -> list[Object]:
        """Server-side apply of each; returns them as they are stored then."""
        query = urlencode({"fieldManager": self._manager, "force": "true"})
        return [self.ask("PATCH", f"{path_of(item)}?{query}", _bare(item), kind=APPLY) for item in objects]

    def create(self, *objects: Object) -> list[Object]:
        """Create each."""
        query = urlencode({"fieldManager": self._manager})
        return [self.ask("POST", f"{path_of(item, whole=True)}?{query}", _bare(item)) for item in objects]

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """One object; raises `Refusal` 404."""
        found: Object = self.ask("GET", path(_resource(kind), namespace, name))
        return found

    def list(self, kind: str, namespace: str = "") -> list[Object]:
        """All of a namespace, or of all."""
        found: list[Object] = self.ask("GET", path(_resource(kind), namespace))["items"]
        return found

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Remove one."""
        self.ask("DELETE", path(_resource(kind), namespace, name))

    def delete_all(self, kind: str, namespace: str = "") -> None:
        """Remove all of a namespace, or of a kind without namespaces."""
        self.ask("DELETE", path(_resource(kind), namespace))


def path(resource: Resource, namespace: str = "", name: str = "") -> str:
    """Where a resource's objects, or one of them, are."""
    parts = ["apis", resource.group] if resource.group else ["api"]
    parts.append(resource.version)
    if resource.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(resource.plural)
    return "/" + "/".join([*parts, name] if name else parts)


def path_of(item: Object, *, whole: bool = False) -> str:
    """Where an object is, or with ``whole`` the list that it is in."""
    metadata = item["metadata"]
    resource = BY_KIND[item["apiVersion"], item["kind"]]
    return path(resource, metadata.get("namespace", "default"), "" if whole else metadata["name"])


def _resource(kind: str) -> Resource:
    return next(each for (_, name), each in BY_KIND.items() if name == kind)


def _bare(item: Object) -> Object:
    """Without what only a server may set."""
    own = {"uid", "resourceVersion", "generation", "managedFields", "creationTimestamp"}
    return {**item, "metadata": {name: value for name, value in item["metadata"].items() if name not in own}}
