from __future__ import annotations

from pathlib import Path

import pytest

from proxy.control.cluster.apply import APPLY, Applied, Applying, read
from proxy.control.cluster.apply_trace import joined, views
from proxy.control.cluster.client import Client
from proxy.errors import SettingsError
from proxy.trace.tree import grow, trace_document
from proxy.trace.view import LinkView, SpanView
from tests.harness.kube_api import FakeApiServer

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {ports: [{port: 80}]}\n"


def test_manifests_and_lists_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        f"{SERVICE}---\napiVersion: v1\nkind: List\nitems: [{{apiVersion: v1, kind: X, metadata: {{name: b}}}}]\n"
    )
    (tmp_path / "b.yaml").write_text(SERVICE.replace("name: a", "name: c"))
    assert [item["metadata"]["name"] for item in read([tmp_path])] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "a.yaml:1: not YAML"), ("a: 1\n", "no apiVersion, kind or metadata.name"), ("- 1\n", "no apiVersion")],
)
def test_what_cannot_be_applied_is_said_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read([tmp_path])
    with pytest.raises(SettingsError, match="no such file"):
        read([tmp_path / "missing.yaml"])


async def test_an_object_is_applied_with_the_context(fake: FakeApiServer, client: Client) -> None:
    await client.send(
        "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    )
    applying = Applying(client, "shop")
    item = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}
    applied = await applying.apply(item, "00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert (applied.kind, applied.namespace, applied.name, str(applied)) == ("Service", "shop", "a", "Service shop/a")
    assert applied.resource_version
    again = await applying.apply(item)
    assert isinstance(again, Applied)
    [asked, _] = fake.requests("patch", "services")
    assert asked.headers["content-type"] == APPLY
    assert "annotations" not in item["metadata"], "the caller's object stays as it is"
    with pytest.raises(SettingsError, match="v9 Thing"):
        await applying.apply({"apiVersion": "v9", "kind": "Thing", "metadata": {"name": "a"}})


def span(
    trace: str, number: str, parent: str = "", name: str = "x", links: tuple[tuple[str, str], ...] = ()
) -> SpanView:
    found = [LinkView(one, other, {}) for one, other in links]
    return SpanView(trace, number, parent, name, "INTERNAL", "s", 1, 2, "UNSET", "", {}, [], found, "spanway", "", {})


def test_three_traces_are_one_tree() -> None:
    spans = [
        span("a", "a1", name="apply"),
        span("a", "a2", "a1", "PATCH"),
        span("g", "g1", name="table generation", links=(("a", "a1"), ("z", "z1"))),
        span("g", "g2", "g1", "first request", (("r", "r1"),)),
        span("r", "r1", "elsewhere", "GET /", (("g", "g1"),)),
        span("r", "r2", "r1", "GET"),
        span("h", "h1", name="table generation", links=(("z", "z1"),)),
    ]
    found = {one.span_id: one for one in joined(spans, "a")}
    assert {number: one.parent_id for number, one in found.items()} == {
        "a1": "",
        "a2": "a1",
        "g1": "a1",
        "g2": "g1",
        "r1": "g2",
        "r2": "r1",
        "h1": "",
    }
    assert {one.trace_id for one in found.values()} == {"a"}
    assert [link.trace_id for link in found["g1"].links] == ["z"], "what is drawn needs no note"
    assert len(grow(list(found.values())).nodes) == 7


def test_spans_of_a_page_are_what_they_were() -> None:
    spans = [span("a", "a1", links=(("z", "z1"),)), span("a", "a2", "a1")]
    assert views(trace_document(grow(spans))) == spans
