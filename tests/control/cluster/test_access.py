from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.control.cluster import access
from proxy.control.cluster.access import find
from proxy.errors import SettingsError
from tests.harness.certificates import Certificate

TOKEN = "s3cr3t-t0ken"
AUTHORITY = Certificate("127.0.0.1").pem


def clusters(**certificate: str) -> list[dict[str, Any]]:
    return [{"name": "here", "cluster": {"server": "https://h", **certificate}}]


def config(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "here", "user": "me", "namespace": "shop"}}],
        "clusters": [
            {
                "name": "here",
                "cluster": {
                    "server": "https://127.0.0.1:6443",
                    "certificate-authority-data": base64.b64encode(AUTHORITY).decode(),
                },
            }
        ],
        "users": [{"name": "me", "user": {"token": TOKEN}}],
        **changes,
    }


def written(folder: Path, document: Any) -> str:
    path = folder / "kubeconfig"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return str(path)


async def refused(kubeconfig: str) -> str:
    with pytest.raises(SettingsError) as caught:
        await find(kubeconfig, {}).open()
    said = str(caught.value)
    assert TOKEN not in f"{said}{caught.value.__cause__!r}{caught.value.__context__!r}"
    return said


async def test_a_kubeconfig_says_server_namespace_and_token(tmp_path: Path) -> None:
    one = find(written(tmp_path, config()), {})
    assert await one.headers() == {}
    client = await one.open()
    await client.close()
    assert (one.server, one.namespace, one.context) == ("https://127.0.0.1:6443", "shop", "test")
    assert await one.headers() == {"Authorization": f"Bearer {TOKEN}"}
    assert TOKEN not in repr(one)
    assert repr(one) == f"Access({tmp_path}/kubeconfig, context test)"


async def test_keys_lie_in_files_only_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    pair = Certificate("me")
    user = {
        "client-certificate-data": base64.b64encode(pair.pem).decode(),
        "client-key-data": base64.b64encode(pair.key).decode(),
    }
    kubeconfig = written(tmp_path, config(users=[{"name": "me", "user": user}]))
    for _ in range(2):  # the library remembers its files, which must be no trouble the second time
        client = await find(kubeconfig, {}).open()
        await client.close()
        assert list((tmp_path / "temporary").iterdir()) == []


async def test_paths_in_a_kubeconfig_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(AUTHORITY)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    cluster = {"server": "https://127.0.0.1:6443", "certificate-authority": "ca.crt"}
    document = config(
        clusters=[{"name": "here", "cluster": cluster}], users=[{"name": "me", "user": {"tokenFile": "token"}}]
    )
    one = find(written(tmp_path, document), {})
    await (await one.open()).close()
    assert await one.headers() == {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("users: [{token: 's3cr3t-t0ken]", r":1 is not YAML; 'kubectl config view' shows what is read"),
        ("- a list", "is no mapping of clusters, users and contexts"),
        (config(**{"current-context": ""}), "has no current-context; 'kubectl config use-context NAME' sets it"),
        (config(**{"current-context": "prod"}), "has no context 'prod'; it has test"),
        (config(contexts=None), "has no context 'test'; it has none"),
        (config(contexts=[{"name": "test", "context": {}}]), "context 'test' names no cluster"),
        (config(clusters=[]), "has no cluster 'here'; it has none"),
        (config(users=[{"name": "you", "user": {"token": TOKEN}}]), "has no user 'me'; it has you"),
        (config(clusters=[{"name": "here", "cluster": {"server": "127.0.0.1"}}]), "cluster 'here' has no server URL"),
        (
            config(clusters=clusters(**{"certificate-authority": "none.crt"})),
            "context test: File does not exists: ",
        ),
        (
            config(
                clusters=[
                    {"name": "here", "cluster": {"server": "https://h", "certificate-authority-data": "aGVsbG8="}}
                ]
            ),
            "check the certificates it names",
        ),
        (config(users=[{"name": "me", "user": {"token": TOKEN, "auth-provider": {"name": "oidc"}}}]), "context test: "),
    ],
)
async def test_what_is_wrong_with_a_kubeconfig_is_said_with_file_and_context(
    document: Any, message: str, tmp_path: Path
) -> None:
    said = await refused(written(tmp_path, document))
    assert str(tmp_path / "kubeconfig") in said
    assert message in said


async def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    assert "does not exist; name a kubeconfig with --kubeconfig FILE" in await refused(str(tmp_path / "none"))
    assert "cannot be read: Is a directory" in await refused(str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in await refused(str(tmp_path / "binary"))


def test_where_no_cluster_is_the_next_step_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no cluster: KUBERNETES_SERVICE_HOST .* not exist"):
        find("", {"HOME": str(tmp_path)})
    with pytest.raises(SettingsError, match="KUBECONFIG names several files"):
        find("", {"KUBECONFIG": "/a:/b"})
    assert "/a, " not in repr(find("", {"KUBECONFIG": "/a"}))
    assert repr(find("", {"KUBECONFIG": "/a"})) == "Access(/a)"


class Pod:
    """What a pod finds in its file system and environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "serviceaccount"
        self.folder.mkdir()
        self.write(token=TOKEN, **{"ca.crt": AUTHORITY.decode(), "namespace": "spanway\n"})
        self.environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def access(self, kubeconfig: str = "") -> access.Access:
        return find(kubeconfig, self.environ, self.folder)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


async def test_in_a_pod_the_service_account_is_used_and_no_file_is_written(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")  # its file system is read-only
    one = pod.access()
    await (await one.open()).close()
    assert (one.server, one.namespace) == ("https://[fd00::1]:443", "spanway")
    assert await one.headers() == {"Authorization": f"Bearer {TOKEN}"}
    assert repr(one) == f"Access(service account {pod.folder})"


async def test_a_kubeconfig_goes_before_the_service_account(pod: Pod, tmp_path: Path) -> None:
    one = pod.access(written(tmp_path, config()))
    await (await one.open()).close()
    assert one.server == "https://127.0.0.1:6443"


async def test_a_token_that_rotates_is_read_again(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes_asyncio.config import incluster_config

    monkeypatch.setattr(incluster_config, "TOKEN_REFRESH_PERIOD", incluster_config.TOKEN_REFRESH_PERIOD * 0)
    one = pod.access()
    await (await one.open()).close()
    pod.write(token="the next one\n")
    assert await one.headers() == {"Authorization": "Bearer the next one"}
    pod.write(token="")
    with pytest.raises(SettingsError, match="its token cannot be read"):
        await one.headers()


@pytest.mark.parametrize(("file", "text"), [("token", ""), ("ca.crt", ""), ("token", None), ("ca.crt", None)])
async def test_a_service_account_that_is_not_whole(file: str, text: str | None, pod: Pod) -> None:
    if text is None:
        (pod.folder / file).unlink()
    else:
        (pod.folder / file).write_text(text)
    with pytest.raises(SettingsError) as caught:
        await pod.access().open()
    assert f"{pod.folder}/{file} missing or empty; mount a service account token" in str(caught.value)


async def test_a_document_that_is_json(tmp_path: Path) -> None:
    one = find(written(tmp_path, json.dumps(config())), {})
    await (await one.open()).close()
    assert one.context == "test"
