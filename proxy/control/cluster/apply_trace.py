"""The command `spanway apply` itself: its own spans, what it prints, and one waterfall out of several traces."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from msgspec.structs import replace
from opentelemetry import context
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import set_span_in_context
from rich.console import Console

from proxy import __version__
from proxy.admin.waterfall import Waterfall
from proxy.control.cluster import access
from proxy.control.cluster.apply import Applied, Applying, Controllers, read, seen
from proxy.control.cluster.client import Client
from proxy.control.cluster.faults import ApiFault
from proxy.control.cluster.spans import trace_config
from proxy.errors import SettingsError
from proxy.saying import say
from proxy.settings import Tracing
from proxy.trace import resource
from proxy.trace.batch import Envelope
from proxy.trace.provider import provider
from proxy.trace.tree import grow
from proxy.trace.view import LinkView, SpanView, decode

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from proxy.trace.export import Exporter

_FOLLOWED: Final = ("Ingress", "IngressClass", "Service", "EndpointSlice")  # Secrets only where an Ingress names them


def apply(
    paths: Sequence[str], kubeconfig: str, namespace: str, controllers: Sequence[str], patience: float, *, trace: bool
) -> int:
    """Apply manifests; with ``trace`` follow them to the first request. 0, or 1 where something did not come about.

    ``controllers`` are URLs of admin listeners. Raises `SettingsError`.
    """
    if wrong := [url for url in controllers if not url.startswith(("http://", "https://"))]:
        raise SettingsError(f"--controller {wrong[0]}: write http://HOST:PORT")
    controllers = [url.rstrip("/") for url in controllers]
    objects = read([Path(path) for path in paths])
    if not objects:
        raise SettingsError("there is nothing to apply in these manifests")
    return asyncio.run(_apply(objects, kubeconfig, namespace, controllers, patience, trace=trace))


async def _apply(
    objects: Sequence[dict[str, Any]],
    kubeconfig: str,
    namespace: str,
    controllers: Sequence[str],
    patience: float,
    *,
    trace: bool,
) -> int:
    memory = _Memory()
    tracing = memory.provider()
    client = Client(access.find(kubeconfig), trace_config(tracing))
    await client.open()
    try:
        root = tracing.get_tracer("spanway", __version__).start_span("apply")
        ids = root.get_span_context()
        traceparent = f"00-{ids.trace_id:032x}-{ids.span_id:016x}-01" if trace else ""
        context.attach(set_span_in_context(root))
        applying = Applying(client, namespace or client.access.namespace)
        applied: list[Applied] = []
        for item in objects:
            try:
                applied.append(await applying.apply(item, traceparent))
            except ApiFault as fault:
                raise SettingsError(f"{item['kind']} {item['metadata']['name']}: {fault}") from None
            sys.stdout.write(f"{applied[-1]} applied, resourceVersion {applied[-1].resource_version}\n")
        root.end()
    finally:
        await client.close()
    if not trace:
        return 0
    return await _follow(f"{ids.trace_id:032x}", applied, controllers, patience, memory)


async def _follow(
    trace_id: str, applied: Sequence[Applied], addresses: Sequence[str], patience: float, memory: _Memory
) -> int:
    wanted = [one for one in applied if one.kind in _FOLLOWED]
    async with aiohttp.ClientSession() as session:
        controllers = Controllers(session, addresses)
        found = await controllers.follow(trace_id, wanted, patience)
        missing = [str(one) for one in wanted if not all(one[:3] in seen(each) for each in found)]
        late = [address for address, each in zip(addresses, found, strict=True) if not each.served]
        idle = {thing[:3] for each in found for thing in each.idle}
        refused = [str(one) for one in wanted if one.kind == "Ingress" and one[:3] in idle]
        if missing:
            say(f"not taken in within {patience:g} s: {', '.join(missing)}; /routes says why if it was refused")
        elif refused:
            say(f"no request is routed by: {', '.join(refused)}; is it of the controller's class? /routes says more")
        elif not any(each.objects for each in found):
            say("no Ingress of the controller's class names anything of this; there is no request to wait for")
        elif late:
            say(f"not served by every worker within {patience:g} s: {', '.join(late)}")
        else:
            for one in wanted:
                if one[:3] in idle:
                    say(f"{one} is taken in, but no Ingress of the controller's class names it")
            numbers = ", ".join(str(each.generation) for each in found)
            say(f"served by every worker: generation {numbers}; waiting for the first request")
            found = await controllers.first(trace_id, patience)
            if not any(each.first for each in found):
                say(f"no request came within {patience:g} s")
        spans = memory.spans() + [span for one in await controllers.traces(found) for span in views(one)]
    Console(highlight=False, soft_wrap=False).print(Waterfall(grow(joined(spans, trace_id))))
    return int(bool(missing or refused or late) or not any(each.first for each in found))


def joined(spans: Sequence[SpanView], trace_id: str) -> list[SpanView]:
    """Spans of several traces as one: what links to another hangs below it."""
    by_id = {span.span_id: span for span in spans}
    root = next((span for span in spans if span.trace_id == trace_id and not span.parent_id), None)
    first = {link.span_id: span.span_id for span in spans if span.name == "first request" for link in span.links}
    found = []
    for span in spans:
        above = span.parent_id
        if span.span_id in first:
            above = first[span.span_id]
        elif span.name == "table generation" and root is not None and _links(span, trace_id):
            above = root.span_id
        elif above not in by_id and span.trace_id != trace_id:
            above = ""
        links = [link for link in span.links if link.span_id not in by_id]
        found.append(replace(span, trace_id=trace_id, parent_id=above, links=links))
    return found


def _links(span: SpanView, trace_id: str) -> bool:
    return any(link.trace_id == trace_id for link in span.links)


def views(document: dict[str, Any]) -> list[SpanView]:
    """The spans of a page of /traces/ID."""
    resources: dict[str, dict[str, Any]] = document["resources"]
    return [
        SpanView(
            trace_id=document["trace_id"],
            span_id=one["span_id"],
            parent_id=one["parent_id"],
            name=one["name"],
            kind=one["kind"],
            service=one["service"],
            start_ns=int(one["start_ns"]),
            end_ns=int(one["end_ns"]),
            status=one["status"],
            status_message=one["status_message"],
            attributes=one["attributes"],
            events=[],
            links=[LinkView(link["trace_id"], link["span_id"], link["attributes"]) for link in one["links"]],
            scope=one["scope"],
            trace_state=one["trace_state"],
            resource=resources.get(one["service"], {}),
        )
        for one in document["spans"]
    ]


class _Memory:
    """The command's own spans, kept: it stands where a proxy has its exporter."""

    def __init__(self) -> None:
        self._resource = Resource({"service.name": "spanway apply"})
        self._blobs: list[bytes] = []

    def offer(self, blob: bytes, _spans: int) -> None:
        """Take in encoded spans (`trace.export.Exporter.offer`)."""
        self._blobs.append(blob)

    def provider(self) -> TracerProvider:
        """What makes them."""
        return provider(Tracing(sampler="always_on"), self._resource, cast("Exporter", self))

    def spans(self) -> list[SpanView]:
        """Those that have ended."""
        return decode([Envelope(resource.encode(self._resource), resource.encode_scope(__version__)).wrap(self._blobs)])
