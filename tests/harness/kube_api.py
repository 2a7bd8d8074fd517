"""A stand-in for the Kubernetes API server: list, watch, write, status and RBAC over HTTPS, and every way it can fail.

It runs in a thread of its own. Tests change its `store` directly, or speak HTTP to it like everybody else.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import parse_qs

from aiohttp import web

from tests.harness.accepting import stop_accepting
from tests.harness.certificates import Certificate
from tests.harness.kube_store import RESOURCES, Change, Object, Refused, Resource, Rule, Store, Verb, rules_of

T = TypeVar("T")

ADMIN: Final = "admin"  # the user who may do everything
INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
COMPRESSED: Final = 128 * 1024  # bytes from which a list is compressed for a client that takes gzip, as a real one does
MERGED: Final = {"application/merge-patch+json", "application/strategic-merge-patch+json"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    user: str
    verb: str  # Kubernetes' word: get, list, watch, create, update, patch, delete
    resource: str  # plural, with the sub-resource: ingresses/status
    namespace: str
    name: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    at: float  # time.monotonic()


@dataclass
class Trouble:
    """Answers some requests with an error: the next ``times`` that match."""

    code: int
    times: int = 1
    verb: str = ""
    resource: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def strikes(self, asked: Asked) -> bool:
        """Whether it answers this one."""
        hit = self.times > 0 and self.verb in ("", asked.verb) and self.resource in ("", asked.resource)
        self.times -= hit
        return hit


class FakeApiServer:
    """An API server that listens on a loopback port, which stays the same when it is stopped and started again.

    ``bookmarks`` is the period of bookmarks in seconds (a real one: about 60). A watch that starts from a version that
    is compacted gets 410 as an event of the stream, or with ``gone_as_status`` as the answer itself: both exist.
    """

    def __init__(self, folder: Path, *, bookmarks: float = 0.5, gone_as_status: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.store = Store()
        self.asked: list[Asked] = []
        self.troubles: list[Trouble] = []
        self.pauses: dict[str, float] = {}  # resource -> seconds that the answer to a list is held back
        self.bookmarks = bookmarks
        self.gone_as_status = gone_as_status
        self.silent = threading.Event()  # watches say nothing more, not even bookmarks, and stay open
        self.page_limit = 500  # the most objects of a page whatever limit says
        self.tokens: dict[str, str] = {ADMIN: ADMIN}  # token -> user
        self.rules: dict[str, list[Rule]] = {}  # user -> what it may, beside what the stored bindings give
        self.authority = Certificate("127.0.0.1", "localhost")
        self._tls = self.authority.server_context(folder)
        self._folder = folder
        self._pages: dict[str, tuple[int, list[Object], int]] = {}
        self._watches: dict[web.StreamResponse, asyncio.Transport] = {}
        self._wake: asyncio.Event
        self._runner: web.AppRunner | None = None
        self._listening: socket.socket
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake API server", daemon=True)
        self._thread.start()
        self.store.listeners.add(self._tell)
        self.start()

    # Life.

    def start(self) -> None:
        """Listen (again, on the same port); the store is as it was left."""
        self._call(self._start())

    def stop(self) -> None:
        """Close the port and cut every connection; the store stays."""
        self._call(self._stop())

    def close(self) -> None:
        """The end."""
        self.stop()
        self.store.listeners.discard(self._tell)
        self._call(_cancel_the_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self.port}"

    def compact(self) -> None:
        """Forget the history and every page that was not fetched: those who ask for older things are told 410."""
        with self.store.lock:
            self.store.compact()
            self._pages.clear()

    def cut_watches(self) -> None:
        """End every running watch, as an API server does now and then."""
        self._call(self._cut_watches())

    def watches(self) -> int:
        """How many are running."""
        return len(self._watches)

    def requests(self, verb: str = "", resource: str = "") -> list[Asked]:
        """What has been asked so far."""
        return [each for each in list(self.asked) if verb in ("", each.verb) and resource in ("", each.resource)]

    # Users.

    def token(self, namespace: str, account: str) -> str:
        """A new token for a service account."""
        token = secrets.token_hex(16)
        self.tokens[token] = f"system:serviceaccount:{namespace}:{account}"
        return token

    def kubeconfig(self, token: str = ADMIN, *, server: str = "") -> Path:
        """A kubeconfig file for the holder of ``token``; ``server`` instead of this one's own address."""
        authority = base64.b64encode(self.authority.pem).decode()
        text = json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [
                    {
                        "name": "test",
                        "cluster": {"server": server or self.url, "certificate-authority-data": authority},
                    }
                ],
                "users": [{"name": "test", "user": {"token": token}}],
            }
        )
        path = self._folder / f"kubeconfig-{secrets.token_hex(4)}"
        path.write_text(text)
        return path

    # Inside.

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _start(self) -> None:
        self._wake = asyncio.Event()
        application = web.Application(client_max_size=8 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        await web.SockSite(self._runner, self._listening, ssl_context=self._tls).start()

    async def _stop(self) -> None:
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        assert runner.server is not None
        await stop_accepting([self._listening])
        for site in list(runner.sites):
            await site.stop()
        for connection in list(runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def _cut_watches(self) -> None:
        for transport in list(self._watches.values()):
            transport.abort()

    def _tell(self) -> None:
        self._loop.call_soon_threadsafe(self._changed)

    def _changed(self) -> None:
        event, self._wake = self._wake, asyncio.Event()
        event.set()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except Refused as refused:
            return web.json_response(refused.status, status=refused.code)
        except json.JSONDecodeError as error:
            return web.json_response(Refused(400, "BadRequest", str(error)).status, status=400)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path in ("/readyz", "/livez", "/healthz"):
            return web.Response(text="ok")
        user = self._user(request)
        if request.path == "/version":
            return web.json_response({"major": "1", "minor": "36", "gitVersion": "v1.36.0-fake"})
        resource, namespace, name, subresource = _target(request.path)
        query = {key: values[-1] for key, values in parse_qs(request.query_string, keep_blank_values=True).items()}
        selected = _fields(query.get("fieldSelector", "")).get("metadata.name", "")
        asked = Asked(
            user,
            _verb(request.method, name, query),
            resource.plural + (f"/{subresource}" if subresource else ""),
            namespace,
            name,
            query,
            {field.lower(): value for field, value in request.headers.items()},
            time.monotonic(),
        )
        self.asked.append(asked)
        # As in a real API server's request info: a list or watch of one name is a request for that name.
        self._authorize(asked, resource, name or selected)
        for trouble in self.troubles:
            if trouble.strikes(asked):
                ordered = Refused(trouble.code, "InternalError", "trouble, as the test ordered").status
                return web.json_response(ordered, status=trouble.code, headers=dict(trouble.headers))
        if asked.verb == "watch":
            return await self._watch(request, asked, resource)
        if asked.verb == "list":
            answer = self._list(request, asked, resource)
            await asyncio.sleep(self.pauses.get(asked.resource, 0.0))  # the answer is as old as that
            return answer
        body = await request.json() if request.can_read_body and not asked.verb.startswith("delete") else {}
        status, found = self._act(asked, request, resource, (namespace, name), subresource, body)
        return web.json_response(found, status=status)

    def _user(self, request: web.Request) -> str:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or token not in self.tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return self.tokens[token]

    def _authorize(self, asked: Asked, resource: Resource, name: str) -> None:
        if asked.user == ADMIN:
            return
        rules = list(self.rules.get(asked.user, ()))
        parts = asked.user.split(":")
        if parts[:2] == ["system", "serviceaccount"]:
            rules += rules_of(self.store, *parts[2:])
        if not any(rule.allows(asked.verb, resource.group, asked.resource, asked.namespace, name) for rule in rules):
            where = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
            message = (
                f'{resource.title} is forbidden: User "{asked.user}" cannot {asked.verb} resource '
                f'"{asked.resource}" in API group "{resource.group}"{where}'
            )
            raise Refused(403, "Forbidden", message, kind=resource.plural)

    def _act(
        self,
        asked: Asked,
        request: web.Request,
        resource: Resource,
        key: tuple[str, str],
        subresource: str,
        body: Object,
    ) -> tuple[int, Object]:
        """Reading or writing one object."""
        store = self.store
        manager = asked.query.get("fieldManager") or request.headers.get("User-Agent", "").partition("/")[0]
        if asked.verb == "get":
            return 200, store.get(resource, key)
        if asked.verb == "create":
            metadata = {**body.get("metadata", {})} | ({"namespace": key[0]} if key[0] else {})
            return 201, store.create(resource, {**body, "metadata": metadata}, manager)
        if asked.verb == "update":
            return 200, store.replace(resource, key, body, subresource, manager)
        if asked.verb in ("delete", "deletecollection"):
            one = [key] if asked.verb == "delete" else store.keys(resource, key[0])
            for each in one:
                store.delete(resource, each)
            return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        if asked.verb != "patch":
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        with store.lock:
            kind = request.content_type
            applied = kind == "application/apply-patch+yaml"
            if applied and not asked.query.get("fieldManager"):
                raise Refused(422, "Invalid", "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
            if not applied and kind not in MERGED:
                raise Refused(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {kind}")
            try:
                before = store.get(resource, key)
            except Refused:
                if not applied:
                    raise
                return 201, store.create(resource, body, manager)
            if applied and asked.query.get("force") != "true":
                _refuse_conflict(before, body, manager)
            patched = (_applied if applied else _merge)(copy.deepcopy(before), body)
            return 200, store.replace(resource, key, patched, subresource, manager)

    def _list(self, request: web.Request, asked: Asked, resource: Resource) -> web.Response:
        match = _selector(asked.query, asked.name)
        limit = min(int(asked.query.get("limit") or self.page_limit), self.page_limit) if "limit" in asked.query else 0
        with self.store.lock:
            token = asked.query.get("continue", "")
            if token and token not in self._pages:
                raise Refused(
                    410, "Expired", "The provided continue parameter is too old to display a consistent list."
                )
            if token:
                version, found, start = self._pages[token]
            else:
                version, found = self.store.list(resource, asked.namespace)
                found, start = [item for item in found if match(item)], 0
            page = found[start : start + limit] if limit else found[start:]
            metadata: Object = {"resourceVersion": str(version)}
            left = len(found) - start - len(page)
            if left:
                metadata |= {"continue": secrets.token_hex(8), "remainingItemCount": left}
                self._pages[metadata["continue"]] = version, found, start + len(page)
        # A real list's items do not say what they are.
        items = [{name: value for name, value in item.items() if name not in ("kind", "apiVersion")} for item in page]
        answer = {"kind": resource.kind + "List", "apiVersion": resource.api_version, "metadata": metadata}
        text = json.dumps(answer | {"items": items}, separators=(",", ":"))
        response = web.Response(text=text, content_type="application/json")
        if len(text) > COMPRESSED and "gzip" in request.headers.get("Accept-Encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def _watch(self, request: web.Request, asked: Asked, resource: Resource) -> web.StreamResponse:
        store, query = self.store, asked.query
        match = _selector(query, asked.name)
        given = query.get("resourceVersion", "")
        initial: list[Object] = []
        gone: Refused | None = None
        position = 0
        with store.lock:
            version = int(given or 0)
            if query.get("sendInitialEvents") == "true" or version == 0:
                version, initial = store.list(resource, asked.namespace)
                position = len(store.history)
            else:
                try:
                    position = store.position(version)
                except Refused as refused:
                    gone = refused
        if gone and self.gone_as_status:
            raise gone
        seconds = float(query.get("timeoutSeconds") or 3600)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        assert request.transport is not None
        self._watches[response] = request.transport
        try:
            if gone:
                await response.write(_line("ERROR", gone.status))
                return response
            for item in initial:
                if match(item):
                    await response.write(_line("ADDED", item))
            if query.get("sendInitialEvents") == "true":
                await response.write(_bookmark(resource, version, {INITIAL_EVENTS_END: "true"}))
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(seconds):
                    await self._follow(response, asked, resource, match, position)
            return response
        finally:
            del self._watches[response]

    async def _follow(
        self,
        response: web.StreamResponse,
        asked: Asked,
        resource: Resource,
        match: Callable[[Object], bool],
        position: int,
    ) -> None:
        """Send the history from ``position`` on as it grows, with bookmarks in between."""
        bookmarks = asked.query.get("allowWatchBookmarks") == "true"
        while True:
            wake = self._wake
            with self.store.lock:
                changes, seen = self.store.history[position:], self.store.version
                position += len(changes)
            while self.silent.is_set():
                await asyncio.sleep(0.02)
            for change in changes:
                if change.resource == resource and asked.namespace in ("", change.key[0]):
                    line = _event(change, match)
                    if line:
                        await response.write(line)
            try:
                async with asyncio.timeout(self.bookmarks):
                    await wake.wait()
            except TimeoutError:
                if bookmarks and not self.silent.is_set():
                    await response.write(_bookmark(resource, seen, {}))


async def _cancel_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def _event(change: Change, match: Callable[[Object], bool]) -> bytes:
    """The line of a change for a watch that selects; nothing when the object is, and was, none of its."""
    is_one = change.verb != "DELETED" and match(change.object)
    was_one = change.before is not None and match(change.before)
    if not is_one and not was_one:
        return b""
    verb: Verb = "MODIFIED" if is_one and was_one else "ADDED" if is_one else "DELETED"
    return _line(verb, change.object)


def _line(verb: str, item: Object) -> bytes:
    return json.dumps({"type": verb, "object": item}, separators=(",", ":")).encode() + b"\n"


def _bookmark(resource: Resource, version: int, annotations: Mapping[str, str]) -> bytes:
    metadata: Object = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return _line("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata})


def _target(path: str) -> tuple[Resource, str, str, str]:
    """Resource, namespace, name and sub-resource of a path; raises `Refused` 404."""
    parts = path.strip("/").split("/")
    missing = Refused(404, "NotFound", "the server could not find the requested resource")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise missing
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource, *_ = (*rest, "", "", "")
    for each in RESOURCES:
        if (each.group, each.version, each.plural) == (group, version, plural):
            if subresource and not (subresource == "status" and each.status):
                raise missing
            return each, namespace, name, subresource
    raise missing


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    if method == "GET":
        if query.get("watch") in ("true", "1"):
            return "watch"
        return "get" if name else "list"
    if method == "DELETE" and not name:
        return "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method, method.lower())


def _fields(selector: str) -> dict[str, str]:
    pairs = (part.replace("==", "=").partition("=") for part in selector.split(",") if part)
    return {key: value for key, _, value in pairs}


def _selector(query: Mapping[str, str], name: str) -> Callable[[Object], bool]:
    """Equality on labels and on any field by its path; what the clients under test use."""
    fields = _fields(query.get("fieldSelector", "")) | ({"metadata.name": name} if name else {})
    labels = _fields(query.get("labelSelector", ""))

    def match(item: Object) -> bool:
        own = item["metadata"].get("labels") or {}
        return all(_at(item, path) == value for path, value in fields.items()) and all(
            own.get(label) == value for label, value in labels.items()
        )

    return match


def _at(item: Any, path: str) -> Any:
    for part in path.split("."):
        item = item.get(part, "") if isinstance(item, dict) else ""
    return item


def _refuse_conflict(before: Object, given: Object, manager: str) -> None:
    """Another manager's fields may not be changed unasked; here whoever wrote an object owns its whole spec."""
    fields = before["metadata"].get("managedFields", ())
    others = [each["manager"] for each in fields if each["manager"] != manager and not each.get("subresource")]
    if others and before.get("spec") != given.get("spec"):
        using = f'conflict with "{others[0]}" using {before["apiVersion"]}: .spec'
        raise Refused(409, "Conflict", f"Apply failed with 1 conflict: {using}")


def _applied(target: Object, given: Object) -> Object:
    """Server-side apply by one manager who owns all of spec, data, labels and annotations."""
    for part in ("labels", "annotations"):
        target["metadata"][part] = given["metadata"].get(part) or {}
    return (
        _merge(target, {name: None for name in given if name not in ("metadata", "status")})
        | given
        | {"metadata": target["metadata"]}
    )


def _merge(target: Object, patch: Object) -> Object:
    """JSON merge patch, RFC 7396; for lists with merge keys a real API server does more."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        else:
            target[name] = value
    return target
