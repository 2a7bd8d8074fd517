"""docs/tracing.md has every metric as it is."""

import re
from pathlib import Path

import pytest

from proxy.admin import reference
from proxy.admin.metrics import families

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/tracing.md"


def test_the_page_is_current():
    page = PAGE.read_text("utf-8")
    assert reference.renew(page) == page, "run: ./dev docs"


def test_a_page_without_its_markers_is_an_error():
    with pytest.raises(ValueError, match="metrics"):
        reference.renew("# Tracing\n")


def test_rows_have_name_type_unit_labels_and_meaning():
    rows = reference.table().splitlines()
    route = "`ingress_namespace`, `ingress`, `host`, `http_route`"
    own = "Time of a request spent inside the proxy itself, waiting for nobody, by the wall clock."
    assert f"| `spanway_self_duration_seconds` | histogram | seconds | {route} | {own} |" in rows
    assert "| `spanway_spans_dropped_total` | counter |  | `reason` | Spans lost before a collector had them. |" in rows
    assert "| `spanway_build_info` | info |  | `version`, `python_version` | What runs. |" in rows


def test_the_example_has_every_family_with_its_labels():
    """What the example left out the page would leave out too."""
    made = {family.name: family for family in families(reference.example())}
    assert [name for name, family in made.items() if not family.samples] == []
    written = re.findall(r'"((?:spanway|http_server)_\w+)"', (ROOT / reference.SOURCE).read_text("utf-8"))
    assert len(written) > 30
    assert set(written) <= made.keys()


def test_it_is_printed_or_written(tmp_path, capsys):
    reference.main([])
    assert capsys.readouterr().out == f"{reference.table()}\n"
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- metrics: old -->\nold\n<!-- end metrics -->\nafter\n")
    reference.main([str(page)])
    text = page.read_text()
    assert reference.table() in text
    assert text.startswith("before\n<!-- metrics: from proxy/admin/metrics.py -->")
    assert text.endswith("<!-- end metrics -->\nafter\n")
