"""`spanway apply`: manifests through the Kubernetes API, and the whole way from there to the first request.

With a trace every object is given the context of the apply in its annotation ``tracing.k8s.io/traceparent``; the
controller says, at its admin address, which generations they made, and has those generations' traces. What the API
server itself records of the calls goes to its own collector.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
import msgspec

from proxy.admin.control import Followed
from proxy.control.cluster.faults import ApiFault
from proxy.control.cluster.kinds import ENDPOINT_SLICE, INGRESS, INGRESS_CLASS, SECRET, SERVICE, Resource
from proxy.control.documents import DocumentError, documents
from proxy.control.files import files_of, text_of
from proxy.control.objects import TRACEPARENT_ANNOTATION
from proxy.errors import SettingsError

if TYPE_CHECKING:
    from proxy.control.cluster.client import Client

APPLY: Final = "application/apply-patch+yaml"  # server-side apply
MANAGER: Final = "spanway-apply"  # its field manager
_KNOWN: Final = {each.kind: each for each in (INGRESS, INGRESS_CLASS, SERVICE, ENDPOINT_SLICE, SECRET)}
_POLL: Final = 0.05  # seconds between two questions to the controller
_SPANS: Final = 1.5  # seconds until the last spans have left their batches (Tracing.delay, 1 s)


class Applied(NamedTuple):
    """An object as the API server has it now."""

    kind: str
    namespace: str
    name: str
    resource_version: str

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {name}"


def read(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Every object in the manifests, in order. Raises `SettingsError`."""
    files, problems = files_of(paths)
    if problems:
        raise SettingsError(str(problems[0]))
    found: list[dict[str, Any]] = []
    for path in files:
        try:
            for document in documents(text_of(path)):
                value = document.value
                items = value.get("items") or [] if isinstance(value, dict) and value.get("kind") == "List" else [value]
                found += [_checked(item, path) for item in items if item is not None]
        except DocumentError as problem:
            raise SettingsError(f"{path}:{problem.line}: {problem.message}") from None
    return found


def _checked(item: Any, path: Path) -> dict[str, Any]:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    if not (
        isinstance(metadata, dict)
        and isinstance(item.get("apiVersion"), str)
        and isinstance(item.get("kind"), str)
        and isinstance(metadata.get("name"), str)
    ):
        raise SettingsError(f"{path}: an object has no apiVersion, kind or metadata.name")
    return dict(item)


class Applying:
    """Applies objects; ``namespace`` is that of objects which name none."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace or "default"
        self._kinds: dict[tuple[str, str], Resource] = {}

    def __repr__(self) -> str:
        return f"Applying({self._client!r}, {self._namespace})"

    async def apply(self, item: Mapping[str, Any], traceparent: str = "") -> Applied:
        """Apply one object. Raises `ApiFault`, or `SettingsError` for a kind that the API server does not know."""
        resource = await self._resource(item["apiVersion"], item["kind"])
        metadata = dict(item["metadata"])
        if resource.namespaced:
            metadata.setdefault("namespace", self._namespace)
        if traceparent:
            metadata["annotations"] = {**(metadata.get("annotations") or {}), TRACEPARENT_ANNOTATION: traceparent}
        path = resource.path(metadata.get("namespace", ""), metadata["name"])
        body = {**item, "metadata": metadata}
        answer = await self._client.send("PATCH", f"{path}?fieldManager={MANAGER}&force=true", body, APPLY)
        stored = msgspec.json.decode(answer)["metadata"]
        namespace = metadata.get("namespace", "") if resource.namespaced else ""
        return Applied(resource.kind, namespace, metadata["name"], str(stored.get("resourceVersion", "")))

    async def _resource(self, version: str, kind: str) -> Resource:
        known = _KNOWN.get(kind)
        if known is not None and known.version == version:
            return known
        found = self._kinds.get((version, kind))
        if found is None:
            base = f"/apis/{version}" if "/" in version else f"/api/{version}"
            try:
                listed = msgspec.json.decode(await self._client.get(base))["resources"]
            except ApiFault as fault:
                raise SettingsError(f"{version} {kind}: {fault}") from None
            for one in listed:
                if one["kind"] == kind and "/" not in one["name"]:
                    found = self._kinds[version, kind] = Resource(kind, base, one["name"], bool(one["namespaced"]))
        if found is None:
            raise SettingsError(f"the API server has no kind {kind} in {version}")
        return found


def seen(one: Followed) -> set[tuple[str, ...]]:
    """Kind, namespace and name of what a controller has taken in, whether or not its table has a part of it."""
    return {thing[:3] for thing in (*one.objects, *one.idle)}


class Controllers:
    """The controllers' admin addresses, as `http://HOST:PORT`."""

    def __init__(self, session: aiohttp.ClientSession, addresses: Sequence[str]) -> None:
        self._session = session
        self._addresses = tuple(addresses)

    def __repr__(self) -> str:
        return f"Controllers({', '.join(self._addresses)})"

    async def follow(self, trace_id: str, wanted: Sequence[Applied], patience: float) -> list[Followed]:
        """Wait until every worker of every controller serves these; what they said last, after ``patience`` seconds.

        Raises `SettingsError` if one cannot be asked.
        """
        limit = time.monotonic() + patience
        names = {one[:3] for one in wanted}
        while True:
            found = await asyncio.gather(*(self._ask(address, f"/followed/{trace_id}") for address in self._addresses))
            known = [None if one is None else msgspec.convert(one, Followed) for one in found]
            whole = [one for one in known if one is not None and one.served and names <= seen(one)]
            if len(whole) == len(self._addresses) or time.monotonic() >= limit:
                return [one if one is not None else Followed((), 0) for one in known]
            await asyncio.sleep(_POLL)

    async def first(self, trace_id: str, patience: float) -> list[Followed]:
        """Wait until one of them has served a first request by what the trace has made."""
        limit = time.monotonic() + patience
        while True:
            found = await self.follow(trace_id, (), 0.0)
            if any(one.first for one in found) or time.monotonic() >= limit:
                return found
            await asyncio.sleep(_POLL)

    async def traces(self, found: Sequence[Followed]) -> list[dict[str, Any]]:
        """The traces of generations and of their first requests, as /traces/ID has them."""
        await asyncio.sleep(_SPANS)
        documents: list[dict[str, Any]] = []
        for address, one in zip(self._addresses, found, strict=True):
            for trace_id in dict.fromkeys((*one.traces, *([one.first] if one.first else []))):
                document = await self._ask(address, f"/traces/{trace_id}")
                documents += [document] if document is not None else []
        return documents

    async def _ask(self, address: str, path: str) -> dict[str, Any] | None:
        """A page as JSON, None where there is none."""
        try:
            async with self._session.get(f"{address}{path}", timeout=aiohttp.ClientTimeout(10)) as response:
                if response.status == 404:
                    return None
                response.raise_for_status()
                document: dict[str, Any] = await response.json()
                return document
        except (aiohttp.ClientError, TimeoutError, ValueError) as problem:
            reason = str(problem) or type(problem).__name__
            raise SettingsError(f"the controller at {address} cannot be asked: {reason}; see --controller") from None
