"""What a Kubernetes API server keeps, as far as the tests need it: objects, versions, a history to watch, rules.

Objects are plain JSON values. One that has been stored is never changed again, so that a reader needs no copy.
"""

from __future__ import annotations

import bisect
import copy
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

Object = dict[str, Any]
Key = tuple[str, str]  # namespace ("" for a cluster-wide kind), name
Verb = Literal["ADDED", "MODIFIED", "DELETED"]


class Refused(Exception):
    """An answer that is no success; carries a `Status` (reason and message as a real API server words them)."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        if details:
            self.status["details"] = details


def expired() -> Refused:
    """410: what was asked for has been compacted."""
    return Refused(410, "Expired", "The resourceVersion for the provided watch is too old.")


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind that is served."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = False  # has a status sub-resource

    @property
    def api_version(self) -> str:
        """As objects say it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def title(self) -> str:
        """As messages say it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


RESOURCES: Final = (
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, status=True),
    Resource("", "v1", "services", "Service", status=True),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource("", "v1", "pods", "Pod", status=True),
    Resource("", "v1", "nodes", "Node", namespaced=False, status=True),
    Resource("", "v1", "events", "Event"),
    Resource("events.k8s.io", "v1", "events", "Event"),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress", status=True),
    Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
)
BY_KIND: Final = {(each.api_version, each.kind): each for each in RESOURCES}
WITHOUT_GENERATION: Final = {"Event", "Lease", "Secret", "ConfigMap", "EndpointSlice", "Service", "ServiceAccount"}


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the history."""

    version: int
    verb: Verb
    resource: Resource
    key: Key
    object: Object
    before: Object | None


@dataclass
class Store:
    """Every object, and what has happened; all methods may be called from any thread."""

    version: int = 1
    oldest: int = 1  # a watch may start from this version or a later one
    history: list[Change] = field(default_factory=list)
    listeners: set[Callable[[], None]] = field(default_factory=set)  # called after each change, under the lock
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._objects: dict[Resource, dict[Key, Object]] = {each: {} for each in RESOURCES}
        for name in ("default", "kube-system"):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    # Reading.

    def get(self, resource: Resource, key: Key) -> Object:
        """One object; raises `Refused` 404."""
        with self.lock:
            found = self._objects[resource].get(key)
        if found is None:
            raise Refused(404, "NotFound", f'{resource.title} "{key[1]}" not found', name=key[1], kind=resource.plural)
        return found

    def keys(self, resource: Resource, namespace: str = "") -> list[Key]:
        """The keys of `list`."""
        with self.lock:
            return [key for key in sorted(self._objects[resource]) if namespace in ("", key[0])]

    def list(self, resource: Resource, namespace: str = "") -> tuple[int, list[Object]]:
        """The version, and the objects of a namespace or of all, in the order of their keys."""
        with self.lock:
            found = sorted(self._objects[resource].items())
            return self.version, [item for key, item in found if namespace in ("", key[0])]

    def position(self, version: int) -> int:
        """Where in the history what happened after ``version`` begins; raises `Refused` 410 when that is compacted."""
        with self.lock:
            if version < self.oldest:
                raise expired()
            return bisect.bisect_right(self.history, version, key=lambda change: change.version)

    # Writing. Each returns the object as it is stored.

    def create(self, resource: Resource, given: Object, manager: str = "") -> Object:
        """Store a new object; raises `Refused` 404 (namespace), 409 (exists) or 422."""
        with self.lock:
            made = copy.deepcopy(given)
            metadata = made.setdefault("metadata", {})
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
            key = self._key(resource, made)
            if key in self._objects[resource]:
                message = f'{resource.title} "{key[1]}" already exists'
                raise Refused(409, "AlreadyExists", message, name=key[1], kind=resource.plural)
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            if resource.kind not in WITHOUT_GENERATION:
                metadata["generation"] = 1
            if resource.status:
                made["status"] = EMPTY_STATUS.get(resource.kind, {})
            return self._store("ADDED", resource, key, made, None, manager)

    def replace(self, resource: Resource, key: Key, given: Object, subresource: str = "", manager: str = "") -> Object:
        """Replace an object, or of it the status; raises `Refused` 404, 409 (another resourceVersion) or 422."""
        with self.lock:
            before = self.get(resource, key)
            theirs = given.get("metadata", {}).get("resourceVersion")
            if theirs not in (None, "", before["metadata"]["resourceVersion"]):
                message = (
                    f'Operation cannot be fulfilled on {resource.title} "{key[1]}": the object has been modified; '
                    "please apply your changes to the latest version and try again"
                )
                raise Refused(409, "Conflict", message, name=key[1], kind=resource.plural)
            made = copy.deepcopy(before if subresource else given)
            if subresource:
                made["status"] = copy.deepcopy(given.get("status", {}))
            elif resource.status:
                made["status"] = before["status"]
            kept = {name: before["metadata"][name] for name in SERVERS_OWN if name in before["metadata"]}
            made["metadata"] = {**made.get("metadata", {}), **kept}
            if _body(made) == _body(before):
                return before  # no change, no version: as etcd's guaranteed update does it
            if "generation" in kept and made.get("spec") != before.get("spec"):
                made["metadata"]["generation"] += 1
            return self._store("MODIFIED", resource, key, made, before, manager, subresource)

    def delete(self, resource: Resource, key: Key) -> Object:
        """Remove an object; raises `Refused` 404. Removing a namespace removes what is in it."""
        with self.lock:
            before = self.get(resource, key)
            if resource.kind == "Namespace":
                for each in RESOURCES:
                    for inner in [inner for inner in self._objects[each] if inner[0] == key[1]]:
                        self.delete(each, inner)
            return self._store("DELETED", resource, key, copy.deepcopy(before), before)

    def put(self, given: Object, manager: str = "test") -> Object:
        """Create or replace, whichever it takes; the kind is the object's own."""
        resource = BY_KIND[given["apiVersion"], given["kind"]]
        with self.lock:
            key = self._key(resource, given)
            if key not in self._objects[resource]:
                return self.create(resource, given, manager)
            without = {name: value for name, value in given.get("metadata", {}).items() if name != "resourceVersion"}
            return self.replace(resource, key, {**given, "metadata": without}, "", manager)

    def compact(self) -> None:
        """Forget the history: a watch from before now is told 410. Those that run go on."""
        with self.lock:
            self.oldest = self.version

    def _key(self, resource: Resource, given: Object) -> Key:
        metadata = given.setdefault("metadata", {})
        if not metadata.get("name"):
            raise Refused(
                422, "Invalid", f"{resource.kind} is invalid: metadata.name: Required value: name is required"
            )
        if not resource.namespaced:
            metadata.pop("namespace", None)
            return "", metadata["name"]
        namespace = metadata.setdefault("namespace", "default")
        if ("", namespace) not in self._objects[RESOURCES[0]]:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found', name=namespace, kind="namespaces")
        _validate(resource, given)
        return namespace, metadata["name"]

    def _store(
        self,
        verb: Verb,
        resource: Resource,
        key: Key,
        made: Object,
        before: Object | None,
        manager: str = "",
        subresource: str = "",
    ) -> Object:
        self.version += 1
        metadata = made["metadata"]
        metadata["resourceVersion"] = str(self.version)
        made["apiVersion"], made["kind"] = resource.api_version, resource.kind
        if verb == "DELETED":
            del self._objects[resource][key]
        else:
            metadata["managedFields"] = _managed(metadata.get("managedFields", ()), resource, manager, subresource)
            self._objects[resource][key] = made
        self.history.append(Change(self.version, verb, resource, key, made, before))
        for listener in list(self.listeners):
            listener()
        return made


SERVERS_OWN: Final = ("uid", "creationTimestamp", "generation", "resourceVersion", "managedFields", "name", "namespace")
EMPTY_STATUS: Final[Mapping[str, Object]] = {
    "Ingress": {"loadBalancer": {}},
    "Service": {"loadBalancer": {}},
    "Namespace": {"phase": "Active"},
}


def now() -> str:
    """The time as objects say it: whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _body(item: Object) -> Object:
    metadata = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    rest = {name: value for name, value in item.items() if name not in {"metadata", "apiVersion", "kind"}}
    return {**rest, "metadata": metadata}


def _managed(entries: Sequence[Object], resource: Resource, manager: str, subresource: str) -> list[Object]:
    """The list with ``manager``'s entry made new; fields are not tracked."""
    name = manager or "unknown"
    entry: Object = {"manager": name, "operation": "Update", "apiVersion": resource.api_version, "time": now()}
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": {}} | ({"subresource": subresource} if subresource else {})
    others = [each for each in entries if (each["manager"], each.get("subresource", "")) != (name, subresource)]
    return [*others, entry]


def _validate(resource: Resource, given: Object) -> None:
    """The one rule of a real API server that keeps surprising tests."""
    if resource.kind == "EndpointSlice":
        for number, endpoint in enumerate(given.get("endpoints") or ()):
            for address in endpoint["addresses"]:
                if address.startswith("127.") or address == "::1":
                    where = f"endpoints[{number}].addresses[0]"
                    problem = f'Invalid value: "{address}": may not be in the loopback range (127.0.0.0/8, ::1/128)'
                    name = given["metadata"]["name"]
                    raise Refused(
                        422, "Invalid", f'EndpointSlice.discovery.k8s.io "{name}" is invalid: {where}: {problem}'
                    )
    elif resource.kind == "Secret" and "stringData" in given:
        raise Refused(400, "BadRequest", "stringData: give data to this stand-in")


@dataclass(frozen=True, slots=True)
class Rule:
    """What RBAC allows: a rule of a Role (with its namespace) or of a ClusterRole ("" for all)."""

    namespace: str
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()

    def allows(self, verb: str, group: str, resource: str, namespace: str, name: str) -> bool:
        """As a real API server's RBAC authorizer decides; ``resource`` may be `ingresses/status`."""
        return (
            self.namespace in ("", namespace)
            and (verb in self.verbs or "*" in self.verbs)
            and (group in self.groups or "*" in self.groups)
            and (resource in self.resources or "*" in self.resources)
            and (not self.names or name in self.names)
        )


def rules_of(store: Store, namespace: str, account: str) -> list[Rule]:
    """What the stored bindings give to a service account."""
    found: list[Rule] = []
    with store.lock:
        for scope, plural in (("", "clusterrolebindings"), ("own", "rolebindings")):
            resource = next(each for each in RESOURCES if each.plural == plural)
            for binding in store.list(resource)[1]:
                subjects = binding.get("subjects") or ()
                if not any(
                    (s["kind"], s.get("namespace"), s["name"]) == ("ServiceAccount", namespace, account)
                    for s in subjects
                ):
                    continue
                own = binding["metadata"]["namespace"] if scope else ""
                reference = binding["roleRef"]
                role_kind = BY_KIND["rbac.authorization.k8s.io/v1", reference["kind"]]
                role = store.get(role_kind, (own if reference["kind"] == "Role" else "", reference["name"]))
                found.extend(_rule(own, rule) for rule in role.get("rules") or ())
    return found


def _rule(namespace: str, rule: Object) -> Rule:
    groups, resources, names = (tuple(rule.get(name, ())) for name in ("apiGroups", "resources", "resourceNames"))
    return Rule(namespace, groups, resources, tuple(rule["verbs"]), names)
