"""Which API server, and who we are to it: a kubeconfig file, or the pod's service account.

`kubernetes_asyncio` reads both, with all their ways to log in (tokens, certificates, exec plugins); what is wrong with
them is said here, since its own texts may hold what they could not use, tokens included.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from proxy.control.problem import quoted
from proxy.errors import SettingsError

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration
    from kubernetes_asyncio.client.rest import RESTClientObject

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where a pod finds token, ca.crt, namespace
_HOST: Final = "KUBERNETES_SERVICE_HOST"
_NEXT: Final = "name a kubeconfig with --kubeconfig FILE, or run it in a pod with a service account"


class Access:
    """A way into a cluster: made by `find`, opened (also again, after a 401) by `open`."""

    def __init__(self, kubeconfig: Path | None, account: Path, environ: Mapping[str, str]) -> None:
        self._kubeconfig: Final = kubeconfig
        self._account: Final = account
        self._environ: Final = environ
        self._configuration: Configuration | None = None
        self.context: str = ""  # of the kubeconfig
        self.namespace: str = ""  # the context's, or the pod's own

    def __repr__(self) -> str:
        return f"Access({self.origin})"

    @property
    def origin(self) -> str:
        """Where the access comes from, for messages."""
        if self._kubeconfig is None:
            return f"service account {self._account}"
        return f"{self._kubeconfig}, context {self.context}" if self.context else str(self._kubeconfig)

    @property
    def server(self) -> str:
        """The API server's URL; "" before `open`."""
        return "" if self._configuration is None else str(self._configuration.host)

    async def open(self) -> RESTClientObject:
        """Read everything and make an HTTP client with its TLS. Raises `SettingsError`.

        Tokens and certificates are read anew each time.
        """
        from kubernetes_asyncio.client.configuration import Configuration
        from kubernetes_asyncio.client.rest import RESTClientObject
        from kubernetes_asyncio.config import kube_config

        configuration: Any = Configuration()
        # Go's clients, and so everybody else in a cluster, do not hold its certificates to RFC 5280's letter either.
        configuration.disable_strict_ssl_verification = True
        configuration.connection_pool_maxsize = 0  # no limit: each watch holds a connection, and watches are counted
        try:
            if self._kubeconfig is None:
                self._read_account(configuration)  # no file is written: a pod may have no place for one
                client = RESTClientObject(configuration)
            else:
                # Keys from the kubeconfig lie in files only while OpenSSL reads them.
                with tempfile.TemporaryDirectory(prefix="spanway-") as folder:
                    await self._read_kubeconfig(self._kubeconfig, configuration, folder)
                    client = RESTClientObject(configuration)
        except OSError as problem:  # ssl.SSLError is one
            reason = problem.strerror or "a certificate or key in it cannot be used"
            raise SettingsError(f"{self.origin}: {reason}; check the certificates it names") from None
        finally:
            # The library's memory of these files must not outlive them.
            kube_config._cleanup_temp_files()  # noqa: SLF001 - it offers no other way
        self._configuration = configuration
        return client

    async def headers(self) -> dict[str, str]:
        """The fields that log us in, "" before `open`; the service account's token as its file has it now."""
        if self._configuration is None:
            return {}
        from kubernetes_asyncio.config.config_exception import ConfigException

        try:
            found = await self._configuration.auth_settings()
        except (OSError, ValueError, ConfigException) as problem:
            raise SettingsError(f"{self.origin}: its token cannot be read ({type(problem).__name__})") from None
        token = found.get("BearerToken", {}).get("value")
        return {"Authorization": str(token).strip()} if token else {}

    def _read_account(self, configuration: Configuration) -> None:
        from kubernetes_asyncio.config.config_exception import ConfigException
        from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader

        token, certificate = self._account / "token", self._account / "ca.crt"
        try:
            InClusterConfigLoader(str(token), str(certificate), environ=dict(self._environ)).load_and_set(configuration)
        except (ConfigException, UnicodeDecodeError):
            empty = [str(path) for path in (token, certificate) if not path.is_file() or not path.stat().st_size]
            what = f"{' and '.join(empty)} missing or empty" if empty else "its token is no text"
            hint = "mount a service account token (automountServiceAccountToken), or name --kubeconfig FILE"
            raise SettingsError(f"{self.origin}: {what}; {hint}") from None
        if not self.namespace and (self._account / "namespace").is_file():
            self.namespace = (self._account / "namespace").read_text(encoding="utf-8").strip()

    async def _read_kubeconfig(self, path: Path, configuration: Configuration, folder: str) -> None:
        from kubernetes_asyncio.config.config_exception import ConfigException
        from kubernetes_asyncio.config.kube_config import KubeConfigLoader

        document = _parse(path)
        context = _checked(path, document)
        self.context = document["current-context"]
        self.namespace = context.get("namespace") or ""
        try:
            loader = KubeConfigLoader(
                document,
                active_context=self.context,
                config_base_path=str(path.parent),
                temp_file_path=folder,
            )
            await loader.load_and_set(configuration)
        except ConfigException as problem:
            # Of a document that is passed as such it names keys and files, never values.
            raise SettingsError(f"{self.origin}: {problem}; mend it, or name another with --kubeconfig") from None
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            hint = "'kubectl config view' shows it"
            raise SettingsError(f"{self.origin}: cannot be used ({type(problem).__name__}); {hint}") from None


def find(kubeconfig: str, environ: Mapping[str, str] | None = None, account: Path = ACCOUNT) -> Access:
    """The access that was asked for: ``kubeconfig`` if it is named, else the pod's, else what kubectl would take.

    Raises `SettingsError` where there is none.
    """
    environ = os.environ if environ is None else environ
    if kubeconfig:
        return Access(Path(kubeconfig).expanduser().absolute(), account, environ)
    if environ.get(_HOST):
        return Access(None, account, environ)
    named = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if len(named) > 1:
        raise SettingsError("KUBECONFIG names several files; name one with --kubeconfig FILE")
    path = Path(named[0]) if named else Path(environ.get("HOME", "/")) / ".kube/config"
    if not named and not path.is_file():
        raise SettingsError(f"there is no cluster: {_HOST} is not set, and {path} does not exist; {_NEXT}")
    return Access(path.expanduser().absolute(), account, environ)


def _parse(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"kubeconfig {path} does not exist; {_NEXT}") from None
    except OSError as problem:
        raise SettingsError(f"kubeconfig {path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"kubeconfig {path} is not UTF-8 text") from None
    except yaml.YAMLError as problem:
        # Not its own text, which quotes the lines around: a token may stand there.
        mark = getattr(problem, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        raise SettingsError(f"kubeconfig {path}{where} is not YAML; 'kubectl config view' shows what is read") from None
    if not isinstance(document, dict):
        raise SettingsError(f"kubeconfig {path} is no mapping of clusters, users and contexts")
    return document


def _checked(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """The current context of a kubeconfig whose parts are all there. Raises `SettingsError`."""
    current = document.get("current-context")
    if not isinstance(current, str) or not current:
        raise SettingsError(f"kubeconfig {path} has no current-context; 'kubectl config use-context NAME' sets it")
    context = _named(path, document, "contexts", "context", current)
    cluster = context.get("cluster")
    where = f"kubeconfig {path}: context {quoted(current)}"
    if not isinstance(cluster, str):
        raise SettingsError(f"{where} names no cluster")
    found = _named(path, document, "clusters", "cluster", cluster)
    server = found.get("server")
    if not isinstance(server, str) or not server.startswith(("http://", "https://")):
        raise SettingsError(f"kubeconfig {path}: cluster {quoted(cluster)} has no server URL (https://HOST:PORT)")
    if context.get("user"):
        _named(path, document, "users", "user", context["user"])
    return context


def _named(path: Path, document: dict[str, Any], section: str, key: str, name: object) -> dict[str, Any]:
    entries = document.get(section)
    names = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            if entry["name"] == name:
                found = entry.get(key)
                return found if isinstance(found, dict) else {}
            names.append(entry["name"])
    known = f"it has {', '.join(names[:10])}" if names else "it has none"
    raise SettingsError(f"kubeconfig {path} has no {key} {quoted(str(name))}; {known}")
