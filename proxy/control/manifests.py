"""Manifests into typed objects.

Of two objects with one kind and name the later counts, as if both had been applied in turn. Kinds that make no routes
are counted and passed over.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from proxy.control import names
from proxy.control.documents import DocumentError, Lines, documents
from proxy.control.files import Signature, files_of, signature, text_of
from proxy.control.objects import KINDS, Ingress, IngressSpec, Object, Place, key_of
from proxy.control.problem import Problem, Subject, quoted
from proxy.control.shape import explain, unknown_fields
from proxy.control.store import Objects
from proxy.control.validate import check

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

DEFAULT_NAMESPACE: Final = "default"

_INGRESS_SPEC: Final = msgspec.inspect.type_info(IngressSpec)

# Where the objects of a removed or wrong version go: kind -> the next step.
_NEXT: Final = {
    "Ingress": (
        "write apiVersion: networking.k8s.io/v1, a pathType for every path, and backend.service.name and "
        "backend.service.port.number for serviceName and servicePort"
    ),
    "IngressClass": "write apiVersion: networking.k8s.io/v1",
    "EndpointSlice": "write apiVersion: discovery.k8s.io/v1; in it, topology became zone and nodeName",
}


class Manifest(NamedTuple):
    """What one file holds."""

    objects: tuple[tuple[Object, Place], ...]
    problems: tuple[Problem, ...]
    others: Counter[str]  # objects of kinds that make no routes
    broken: tuple[tuple[Ingress, Place], ...] = ()  # that are in error


Cache = dict[Path, tuple[Signature, Manifest]]


class Reading(NamedTuple):
    """What all paths hold together."""

    objects: Objects
    problems: list[Problem]
    files: int
    others: Counter[str]


def load(paths: Sequence[Path], cache: MutableMapping[Path, tuple[Signature, Manifest]] | None = None) -> Reading:
    """Read every path. Files that ``cache`` knows and that have not changed are not read again.

    Never raises for what it finds: what cannot be read is a problem.
    """
    objects, problems, others = Objects(), list[Problem](), Counter[str]()
    files, missing = files_of(paths)
    problems += missing
    kept = {} if cache is None else cache
    for path in kept.keys() - set(files):
        del kept[path]
    for path in files:
        manifest = _cached(path, kept)
        problems += manifest.problems
        others += manifest.others
        objects.broken += manifest.broken
        for item, place in manifest.objects:
            kind, key = type(item).__name__, key_of(item)
            if objects.knows(kind, key):
                subject = Subject(kind, *key, place)
                message = f"is also defined at {objects.place(kind, key)!r}; this one, the later, is used"
                subject.warning("", message, "remove one of them")
                problems += subject.problems
            objects.put(item, place)
    objects.whole = all(problem.severity != "error" for problem in problems)
    return Reading(objects, problems, len(files), others)


def _cached(path: Path, cache: MutableMapping[Path, tuple[Signature, Manifest]]) -> Manifest:
    # The signature goes first: a change while we read then shows as one the next time.
    now = signature(path)
    known = cache.get(path)
    if now is not None and known is not None and known[0] == now:
        return known[1]
    manifest = read(path)
    if now is not None:
        cache[path] = now, manifest
    return manifest


def read(path: Path) -> Manifest:
    """Read one file."""
    try:
        text = text_of(path)
    except DocumentError as exc:
        return Manifest((), (Problem("error", exc.message, exc.hint, file=str(path), line=exc.line),), Counter())
    return parse(text, str(path))


def parse(text: str, file: str) -> Manifest:
    """The objects in a text; ``file`` is what problems call it."""
    reader = _Reader(file)
    try:
        for document in documents(text):
            reader.take(document.value, document.lines)
    except DocumentError as exc:
        reader.problems.append(Problem("error", exc.message, exc.hint, file=file, line=exc.line))
    return Manifest(tuple(reader.objects), tuple(reader.problems), reader.others, tuple(reader.broken))


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.objects: list[tuple[Object, Place]] = []
        self.problems: list[Problem] = []
        self.others: Counter[str] = Counter()
        self.broken: list[tuple[Ingress, Place]] = []

    def take(self, value: Any, lines: Lines, inherited: tuple[str, str] = ("", "")) -> None:
        """One document or list item; ``inherited`` are its apiVersion and kind if it does not say."""
        place = Place(self.file, lines)
        if not isinstance(value, dict):
            self._refuse(place, "must be an object with apiVersion, kind and metadata")
            return
        version: Any = value.get("apiVersion", inherited[0])
        kind: Any = value.get("kind", inherited[1])
        if not isinstance(version, str) or not isinstance(kind, str) or not version or not kind:
            self._refuse(place, "must say its apiVersion and kind")
        elif kind == "List" or (kind.endswith("List") and kind[:-4] in KINDS):
            self._take_list(value, lines, version, kind)
        elif kind in KINDS or (version, kind) == ("v1", "Endpoints"):
            subject = _subject(value, kind, place)
            self._take_object(value, version, subject, place)
            self.problems += subject.problems
        else:
            self.others[kind] += 1

    def _refuse(self, place: Place, message: str) -> None:
        self.problems.append(Problem("error", message, file=self.file, line=place.line()))

    def _take_list(self, value: dict[str, Any], lines: Lines, version: str, kind: str) -> None:
        items = value.get("items", [])
        if not isinstance(items, list):
            self._refuse(Place(self.file, lines), "items must be a list")
            return
        below = lines.below.get("items", lines)
        inherited = ("", "") if kind == "List" else (version, kind[:-4])
        for number, item in enumerate(items):
            self.take(item, below.below.get(number, below), inherited)

    def _take_object(self, value: dict[str, Any], version: str, subject: Subject, place: Place) -> None:
        kind = subject.kind
        if kind == "Endpoints":
            hint = "write an EndpointSlice: Endpoints are deprecated since Kubernetes 1.33"
            subject.warning("", "Endpoints are not read", hint)
            return
        wanted, struct = KINDS[kind]
        if version != wanted:
            group = version.rpartition("/")[0]
            if "." in group and not group.endswith(".k8s.io"):
                self.others[f"{kind} ({version})"] += 1  # another project's kind of the same name, such as Knative's
                return
            gone = "beta" in version or "alpha" in version
            message = f"{quoted(version)} {'is not served any more' if gone else f'has no {kind}'}"
            subject.error("apiVersion", message, _NEXT.get(kind, f"write apiVersion: {wanted}"))
            return
        try:
            item: Object = msgspec.convert(value, struct)
        except msgspec.ValidationError as exc:
            message, field, hint = explain(exc, value)
            subject.error(field, message, hint)
            return
        _check_metadata(subject)
        if isinstance(item, Ingress):
            for field, hint in unknown_fields(value.get("spec", {}), _INGRESS_SPEC, "spec"):
                subject.warning(field, "is no field of networking.k8s.io/v1 and is ignored", hint)
        check(item, subject)
        metadata = msgspec.structs.replace(item.metadata, namespace=subject.namespace)
        item = msgspec.structs.replace(item, metadata=metadata)
        if not subject.broken:
            self.objects.append((item, place))
        elif isinstance(item, Ingress):
            self.broken.append((item, place))


def _check_metadata(subject: Subject) -> None:
    name, namespace = subject.name, subject.namespace
    if not name:
        subject.error("metadata.name", "is missing", "generateName makes names in a cluster only")
    elif wrong := names.subdomain(name):
        subject.error("metadata.name", f"{quoted(name)} {wrong}")
    if namespace and (wrong := names.label(namespace)):
        subject.error("metadata.namespace", f"{quoted(namespace)} {wrong}")


def _subject(value: dict[str, Any], kind: str, place: Place) -> Subject:
    """An object of whatever shape, as problems name it."""
    metadata = value.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    namespace = "" if kind == "IngressClass" else found.get("namespace") or DEFAULT_NAMESPACE
    name = found.get("name", "")
    return Subject(kind, namespace if isinstance(namespace, str) else "", name if isinstance(name, str) else "", place)
