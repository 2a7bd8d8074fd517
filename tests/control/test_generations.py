from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.control.build import Choices
from proxy.control.generations import Generations, Update
from proxy.settings import Address, Override
from tests.control.sinks import Sink
from tests.control.texts import API, ingress

WEB = ingress("Prefix / -> api:80")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "api.yaml").write_text(API)
    (tmp_path / "web.yaml").write_text(WEB)
    return tmp_path


def generations_of(paths: list[Path], *more: Any) -> Generations:
    return Generations(paths, Sink(), *more)


def paths_of(update: Update) -> list[str]:
    assert update.table is not None
    return [route.path for route in update.table.routes]


async def test_generations_count_what_changed(folder: Path) -> None:
    generations = generations_of([folder])
    update = await generations.refresh()
    assert update.table is not None
    assert (update.table.generation, update.refused, update.files, update.problems) == (1, False, 2, ())
    assert generations.table is update.table
    update = await generations.refresh()
    assert (update.table, update.refused) == (None, False), "nothing has changed"
    (folder / "web.yaml").write_text(f"# a comment\n{WEB}")
    assert (await generations.refresh()).table is None, "nothing that matters has changed"
    (folder / "web.yaml").write_text(ingress("Prefix /new -> api:80"))
    update = await generations.refresh()
    assert paths_of(update) == ["/new"]
    assert generations.table is not None
    assert generations.table.generation == 2


async def test_a_broken_file_keeps_the_last_good_table_as_a_whole(folder: Path) -> None:
    generations = generations_of([folder])
    first = (await generations.refresh()).table
    (folder / "web.yaml").write_text("a: [")
    (folder / "more.yaml").write_text(ingress("Prefix /more -> api:80", name="more"))
    update = await generations.refresh()
    assert (update.table, update.refused) == (None, True)
    assert generations.table is first
    assert [(Path(problem.file).name, problem.line) for problem in generations.problems] == [("web.yaml", 1)]
    (folder / "web.yaml").write_text(WEB)
    update = await generations.refresh()
    assert paths_of(update) == ["/more", "/"]
    assert update.table is not None
    assert update.table.generation == 2, "a refused state makes no generation"
    assert generations.problems == ()


@pytest.mark.parametrize(
    "broken",
    [
        ingress("Prefix nothing -> api:80", name="broken"),
        ingress("Prefix / -> api:80", name="broken", annotations="spanway.io/proxy-body-size: huge"),
        "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: x}]}",
        "a: 1\na: 2",
    ],
)
async def test_what_refuses_a_table(folder: Path, broken: str) -> None:
    (folder / "broken.yaml").write_text(broken)
    generations = generations_of([folder])
    update = await generations.refresh()
    assert (update.table, generations.table, update.refused) == (None, None, True)
    (folder / "broken.yaml").unlink()
    assert (await generations.refresh()).table is not None


@pytest.mark.parametrize(
    "odd",
    [
        ingress("Prefix /x -> missing:80", name="odd"),
        ingress("Prefix / -> api:80", name="odd"),
        ingress("Prefix /x -> api:80", name="odd", extra="tls: [{secretName: missing}]"),
        ingress("Prefix /x -> api:80", name="odd", annotations="nginx.ingress.kubernetes.io/enable-cors: 'true'"),
        ingress("Prefix /x -> api:80", name="odd", annotations="nginx.ingress.kubernetes.io/auth-url: x"),
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}",
    ],
)
async def test_what_is_served_around(folder: Path, odd: str) -> None:
    (folder / "odd.yaml").write_text(odd)
    update = await generations_of([folder]).refresh()
    assert update.table is not None
    assert [problem.severity for problem in update.problems] == ["warning"]


async def test_a_file_that_goes_takes_its_objects_with_it(folder: Path) -> None:
    generations = generations_of([folder])
    await generations.refresh()
    (folder / "web.yaml").unlink()
    assert paths_of(await generations.refresh()) == []


async def test_a_path_that_goes_keeps_the_table(folder: Path) -> None:
    generations = generations_of([folder / "api.yaml", folder / "web.yaml"])
    await generations.refresh()
    (folder / "web.yaml").unlink()
    update = await generations.refresh()
    assert (update.table, update.refused) == (None, True)
    [problem] = update.problems
    assert (problem.file, problem.message) == (str(folder / "web.yaml"), "cannot be read: no such file or directory")


async def test_new_problems_without_a_new_table_are_told(folder: Path) -> None:
    generations = generations_of([folder])
    await generations.refresh()
    (folder / "more.yaml").write_text("apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}")
    update = await generations.refresh()
    assert (update.table, update.refused, len(update.problems)) == (None, False, 1)


async def test_overrides_choices_and_the_first_number(folder: Path) -> None:
    overrides = (Override("", "api", "", "http", (Address("127.0.0.1", 9000),)),)
    generations = generations_of([folder], overrides, Choices(ingress_class="mine"), 41)
    update = await generations.refresh()
    assert paths_of(update) == []
    assert update.table is not None
    assert update.table.generation == 42
    generations = generations_of([folder], overrides)
    await generations.refresh()
    assert generations.table is not None
    assert generations.table.backends[0].endpoints[0].port == 9000
    assert repr(generations) == f"Generations({folder}: 1 so far, 0 problems)"
    assert generations.paths == (folder,)


async def test_problems_stand_in_the_order_of_files_and_lines(folder: Path) -> None:
    (folder / "z.yaml").write_text("- 1\n---\n- 2\n")
    (folder / "a.yaml").write_text(ingress("Prefix /x -> missing:80", name="a"))
    problems = (await generations_of([folder]).refresh()).problems
    assert [(Path(problem.file).name, problem.line) for problem in problems] == [
        ("a.yaml", 9),
        ("z.yaml", 1),
        ("z.yaml", 3),
    ]
