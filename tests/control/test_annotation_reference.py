from __future__ import annotations

from pathlib import Path

import pytest

from proxy.control import annotation_reference
from proxy.control.annotation_others import KNOWN, SNIPPETS
from proxy.control.annotation_rows import ROWS
from proxy.route import regex
from proxy.trace.semconv import renew

PAGE = Path(__file__).parents[2] / "docs" / "migrate-from-ingress-nginx.md"
README = Path(__file__).parents[2] / "README.md"


def test_the_page_is_current() -> None:
    page = PAGE.read_text("utf-8")
    said = "run: python -m proxy.control.annotation_reference docs/migrate-from-ingress-nginx.md"
    assert renew(page, annotation_reference.sections()) == page, said


@pytest.mark.parametrize("name", [*(row.name for row in ROWS), *sorted(KNOWN), *SNIPPETS])
def test_the_page_names_every_annotation(name: str) -> None:
    page = PAGE.read_text("utf-8")
    assert f"`{name}`" in page or f"`spanway.io/{name}`" in page


def test_the_page_s_bounds_are_the_code_s() -> None:
    page = PAGE.read_text("utf-8")
    for bound in (f"{regex.LONGEST:,} characters", f"{regex.LARGEST:,} RE2 instructions", f"{regex.BUDGET:,} instr"):
        assert bound in page


def test_the_readme_names_what_has_an_effect() -> None:
    text = README.read_text("utf-8")
    assert [row.name for row in ROWS if row.name != "canary" and f"{row.name}`" not in text] == []
