from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.control import feed as feeding
from proxy.control.annotations import Options
from proxy.control.build import Choices
from proxy.control.feed import Feed, choices_of
from proxy.settings import Address, Settings
from tests.control.sinks import Sink
from tests.control.texts import API, ingress, put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "api.yaml").write_text(API)
    (tmp_path / "web.yaml").write_text(ingress("Prefix / -> api:80"))
    return tmp_path


def test_choices() -> None:
    settings = Settings(ingress_class="mine", retry_tries=7, upstream_ca="ca.pem")
    assert choices_of(settings) == Choices("mine", Options(tries=7), True, "", 7, https=False)
    assert choices_of(Settings(https=(Address("127.0.0.1", 443),))) == Choices()


async def test_the_first_table(folder: Path) -> None:
    sink, said = Sink(), list[str]()
    feed = Feed(Settings(ingress=(folder,)), sink, said.append)
    assert await feed.first()
    assert [table.generation for table in sink.tables] == [1]
    assert said == []
    assert repr(feed) == f"Feed(Generations({folder}: 1 so far, 0 problems))"


async def test_without_a_first_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "MOST_TOLD", 2)
    put(folder / "more.yaml", ingress("Prefix / -> api:80", name="more"))
    put(folder / "z.yaml", "- 1\n---\n- 2\n")
    sink, said = Sink(), list[str]()
    assert not await Feed(Settings(ingress=(folder,)), sink, said.append).first()
    assert sink.tables == []
    assert said == [
        f"{folder / 'z.yaml'}:1: error: must be an object with apiVersion, kind and metadata",
        f"{folder / 'z.yaml'}:3: error: must be an object with apiVersion, kind and metadata",
        "and 1 more; 'spanway check' lists them all",
        "no table can be built from these manifests; mend the errors above and start again",
    ]


async def test_changes_are_served_and_said(folder: Path) -> None:
    sink, said = Sink(), list[str]()
    feed = Feed(Settings(ingress=(folder,)), sink, said.append, 0.01)
    assert await feed.first()
    sink.changed.clear()
    watching = asyncio.create_task(feed.watch())
    put(folder / "web.yaml", ingress("Prefix /new -> api:80", "Prefix /x -> missing:80"))
    await sink.next()
    assert [table.generation for table in sink.tables] == [1, 2]
    assert [len(problems) for problems in sink.problems] == [0, 1]
    put(folder / "web.yaml", "a: [")
    await sink.next()
    assert len(sink.tables) == 2
    assert [problem.severity for problem in sink.problems[-1]] == ["error"]
    put(folder / "web.yaml", ingress("Prefix /new -> api:80", "Prefix /x -> missing:80"))
    await sink.next()
    assert len(sink.tables) == 2
    put(folder / "web.yaml", ingress("Prefix /new -> api:80"))
    await sink.next()
    await asyncio.sleep(0)
    watching.cancel()
    assert "Service shop/missing does not exist" in said[0]
    assert said[1] == "generation 2 is served: 2 routes"
    assert said[2].startswith(f"{folder / 'web.yaml'}:1: error: not YAML: ")
    assert said[3] == "the files have errors: generation 2 stays"
    assert "Service shop/missing does not exist" in said[4]
    assert said[5:] == ["the files are good again: generation 2 stays", "generation 3 is served: 1 route"]


async def test_it_speaks_on_standard_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder / "web.yaml", ingress("Prefix / -> missing:80"))
    assert await Feed(Settings(ingress=(folder,)), Sink()).first()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"spanway: {folder / 'web.yaml'}:9: warning: Ingress shop/web: spec.rules[0]")
