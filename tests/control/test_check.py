from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from proxy.control.build import Choices
from proxy.control.check import Survey, check, exit_status, render, survey
from proxy.control.problem import Problem, quoted
from proxy.route.spec import TableSpec
from proxy.settings import Address, Override
from tests.control.texts import API, ingress


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    Path("m/api.yaml").write_text(API + "---\n{apiVersion: apps/v1, kind: Deployment}\n")
    Path("m/web.yaml").write_text(ingress("Prefix / -> api:80"))
    return Path("m")


def test_nothing_wrong(folder: Path) -> None:
    assert check([folder]) == []
    assert exit_status(check([folder])) == 0
    assert render(survey([folder])) == (
        "0 errors, 0 warnings, 2 files, 1 route, 0 certificates\npassed over, since they make no routes: 1 Deployment\n"
    )


def test_everything_wrong_is_told_by_file_and_line(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        ingress("Prefix /a -> missing:80", "Prefix b -> api:80", name="a", annotations="spanway.io/colour: blue")
        + "---\n"
        + ingress("Prefix /c -> missing:80", name="c", annotations="spanway.io/colour: blue")
        + "---\n- 1\n"
    )
    problems = check([folder, Path("nowhere")], (Override("", "x", "", "http", (Address("h", 1),)),))
    assert [(problem.file, problem.line, problem.severity) for problem in problems] == [
        ("m/a.yaml", 3, "warning"),
        ("m/a.yaml", 10, "error"),
        ("m/a.yaml", 14, "warning"),
        ("m/a.yaml", 20, "warning"),
        ("m/a.yaml", 22, "error"),
        ("nowhere", 0, "error"),
    ]
    assert exit_status(problems) == 1


def test_an_ingress_in_error_is_judged_to_the_end(folder: Path) -> None:
    (folder / "web.yaml").write_text(
        ingress("Prefx / -> api:80", annotations="nginx.ingress.kubernetes.io/proxy-body-size: lots").replace(
            "spec:", "spec:\n  ingressClassName: mine"
        )
    )
    found = [problem.message for problem in check([folder])]
    assert found == ["'lots' cannot be used", "'Prefx' is no path type"]
    other = survey([folder], (), Choices(ingress_class="other"))
    assert [problem.message for problem in other.problems] == found[1:]  # its values are the other controller's
    assert len(survey([folder], (), Choices(ingress_class="mine")).problems) == 2


@pytest.mark.parametrize("broken", [ingress("Prefx / -> web:80", name="a"), "a: ["])
def test_while_an_ingress_may_be_missing_no_override_is_called_useless(folder: Path, broken: str) -> None:
    (folder / "a.yaml").write_text(broken)
    overrides = (Override("shop", "web", "", "http", (Address("h", 1),)),)
    assert [problem.severity for problem in check([folder], overrides)] == ["error"]
    (folder / "a.yaml").unlink()
    assert [problem.message for problem in check([folder], overrides)] == [
        "--upstream shop/web: no Ingress names this Service"
    ]


def test_the_text(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        ingress("Prefix b -> api:80", name="a") + "---\n" + ingress("Prefix /c -> missing:80", name="c")
    )
    found = survey([folder, Path("nowhere")], (Override("", "x", "", "http", (Address("h", 1),)),))
    assert render(found) == (
        "m/a.yaml\n"
        "     9  error    Ingress shop/a: spec.rules[0].http.paths[0].path: 'b' must begin with /\n"
        "                 write /b\n"
        "    19  warning  Ingress shop/c: spec.rules[0].http.paths[0].backend.service.name: Service shop/missing does"
        " not exist; requests get 503\n"
        "                 add its manifest, or give --upstream shop/missing=HOST:PORT\n"
        "\n"
        "nowhere\n"
        "        error    cannot be read: no such file or directory\n"
        "                 check the path, and whether it may be read\n"
        "\n"
        "2 errors, 1 warning, 3 files, 2 routes, 0 certificates\n"
        "passed over, since they make no routes: 1 Deployment\n"
    )


def test_what_the_command_line_has_wrong_is_told_too(folder: Path) -> None:
    found = survey([folder], (Override("", "x", "", "http", (Address("h", 1),)),))
    assert render(found).splitlines()[:3] == [
        "(command line)",
        "        warning  --upstream x: no Ingress names this Service",
        "                 check its name",
    ]


def test_choices_are_made(folder: Path) -> None:
    assert survey([folder], (), Choices(ingress_class="mine")).table == TableSpec(1)


def test_a_problem_as_one_line() -> None:
    full = Problem("error", "is wrong", "mend it", "Ingress", "shop", "web", "m.yaml", 3, "spec.rules[0]")
    assert str(full) == "m.yaml:3: error: Ingress shop/web: spec.rules[0]: is wrong (mend it)"
    assert str(Problem("warning", "is odd", kind="IngressClass", name="c")) == "warning: IngressClass c: is odd"
    assert str(Problem("error", "cannot be read", file="m")) == "m: error: cannot be read"
    assert str(Problem("error", "x", field="spec", file="m", line=1)) == "m:1: error: spec: x"
    assert render(Survey([full], TableSpec(1), 1, Counter())).splitlines()[:2] == [
        "m.yaml",
        "     3  error    Ingress shop/web: spec.rules[0]: is wrong",
    ]


def test_quoted_values_are_cut_and_harmless() -> None:
    assert quoted("a\x1b[31m\n") == r"'a\x1b[31m\n'"
    assert len(quoted("x" * 1000)) == 82
    assert quoted("x" * 1000).endswith("...'")
