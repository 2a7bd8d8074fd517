from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.control import watch
from proxy.control.generations import Generations, Update
from proxy.control.watch import Watcher, look
from tests.control.sinks import Sink
from tests.control.texts import API, ingress, put

INTERVAL = 0.01


class Watching:
    """A watcher at work, and what it told."""

    def __init__(self, generations: Generations) -> None:
        self.generations = generations
        self.updates: asyncio.Queue[Update] = asyncio.Queue()

    async def next(self) -> Update:
        return await asyncio.wait_for(self.updates.get(), 20)

    async def quiet(self) -> bool:
        """Nothing is told for a good many looks."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.updates.get(), 30 * INTERVAL)
            return False
        return True


@contextlib.asynccontextmanager
async def watching(*paths: Path) -> AsyncIterator[Watching]:
    generations = Generations(paths, Sink())
    await generations.refresh()
    found = Watching(generations)
    task = asyncio.create_task(Watcher(generations, INTERVAL, INTERVAL).run(found.updates.put))
    try:
        yield found
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "api.yaml").write_text(API)
    (folder / "web.yaml").write_text(ingress("Prefix / -> api:80"))
    return folder


def paths_of(update: Update) -> list[str]:
    return [] if update.table is None else [route.path for route in update.table.routes]


async def test_changes_additions_and_removals(folder: Path) -> None:
    async with watching(folder) as found:
        assert await found.quiet()
        put(folder / "web.yaml", ingress("Prefix /new -> api:80"))
        assert paths_of(await found.next()) == ["/new"]
        put(folder / "more.yaml", ingress("Prefix /more -> api:80", name="more"))
        assert paths_of(await found.next()) == ["/more", "/new"]
        (folder / "web.yaml").unlink()
        update = await found.next()
        assert paths_of(update) == ["/more"]
        assert update.table is not None
        assert update.table.generation == 4
        assert await found.quiet()


async def test_a_broken_file_is_told_once_and_then_mended(folder: Path) -> None:
    async with watching(folder) as found:
        put(folder / "web.yaml", "a: [")
        update = await found.next()
        assert (update.table, update.refused) == (None, True)
        assert await found.quiet()
        put(folder / "web.yaml", ingress("Prefix / -> api:80"))
        update = await found.next()
        assert (update.table, update.problems) == (None, ()), "the old table again, and nothing to say any more"


async def test_what_does_not_matter_is_not_told(folder: Path) -> None:
    async with watching(folder) as found:
        put(folder / "web.yaml", "# said more kindly\n" + ingress("Prefix / -> api:80"))
        (folder / "notes.txt").write_text("nothing")
        (folder / ".web.yaml.swp").write_text("a: [")
        assert await found.quiet()


async def test_a_swapped_configmap(tmp_path: Path) -> None:
    for version, path in (("..1", "/one"), ("..2", "/two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "web.yaml").write_text(f"{API}---\n{ingress(f'Prefix {path} -> api:80')}")
    os.symlink("..1", tmp_path / "..data")
    os.symlink("..data/web.yaml", tmp_path / "web.yaml")
    async with watching(tmp_path) as found, watching(tmp_path / "web.yaml") as single:
        os.symlink("..2", tmp_path / "..data_tmp")
        os.rename(tmp_path / "..data_tmp", tmp_path / "..data")
        assert paths_of(await found.next()) == ["/two"]
        assert paths_of(await single.next()) == ["/two"]


async def test_a_file_put_in_place_of_another(folder: Path) -> None:
    async with watching(folder / "api.yaml", folder / "web.yaml") as found:
        (folder / "new").write_text(ingress("Prefix /new -> api:80"))
        os.replace(folder / "new", folder / "web.yaml")
        assert paths_of(await found.next()) == ["/new"]
        (folder / "web.yaml").unlink()
        assert (await found.next()).refused
        put(folder / "web.yaml", ingress("Prefix /back -> api:80"))
        assert paths_of(await found.next()) == ["/back"]


async def test_what_changed_before_the_first_look_is_read(folder: Path) -> None:
    generations = Generations([folder], Sink())
    await generations.refresh()
    put(folder / "web.yaml", ingress("Prefix /early -> api:80"))
    told: asyncio.Queue[Update] = asyncio.Queue()
    task = asyncio.create_task(Watcher(generations, INTERVAL, INTERVAL).run(told.put))
    assert paths_of(await asyncio.wait_for(told.get(), 20)) == ["/early"]
    task.cancel()


class Slow:
    """Generations that count how often they are asked, over files that change while they are looked at."""

    problems = ()

    def __init__(self, path: Path, writes: int) -> None:
        self.paths = (path,)
        self.writes = writes
        self.asked: list[str] = []

    async def refresh(self) -> Update:
        self.asked.append(self.paths[0].read_text())
        return Update(None, (), False, 1, None)  # type: ignore[arg-type] # nobody looks


async def test_a_file_is_read_once_it_has_stood_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("0")
    slow = Slow(path, 5)
    looked = watch.look

    def changing(paths: tuple[Path, ...]) -> watch.State:
        state = looked(paths)
        if slow.asked and slow.writes:
            path.write_text("x" * slow.writes)
            slow.writes -= 1
        return state

    monkeypatch.setattr(watch, "look", changing)

    async def nothing(_: Update) -> None:
        raise AssertionError("nothing was to be told")

    task = asyncio.create_task(Watcher(slow, 0.001, 0.001).run(nothing))  # type: ignore[arg-type] # as far as it is used
    async with asyncio.timeout(20):
        while len(slow.asked) < 2:
            await asyncio.sleep(0.001)
    task.cancel()
    assert slow.asked == ["0", "x"], "not while it was being written"


async def test_a_file_that_is_always_written_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("0")
    slow = Slow(path, 10**9)
    looked = watch.look

    def changing(paths: tuple[Path, ...]) -> watch.State:
        slow.writes -= 1
        path.write_text(str(slow.writes))
        return looked(paths)

    monkeypatch.setattr(watch, "look", changing)
    monkeypatch.setattr(watch, "LONGEST_SETTLE", 0.02)

    async def nothing(_: Update) -> None:
        raise AssertionError("nothing was to be told")

    task = asyncio.create_task(Watcher(slow, 0.001, 0.001).run(nothing))  # type: ignore[arg-type] # as far as it is used
    async with asyncio.timeout(20):
        while len(slow.asked) < 3:
            await asyncio.sleep(0.001)
    task.cancel()


async def test_looks_are_paced_by_their_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise asyncio.CancelledError

    cost = iter((0.001, 0.4))
    monkeypatch.setattr(watch, "_timed_look", lambda _: (((), ()), next(cost)))
    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def ignore(_: Update) -> None:
        return None

    (tmp_path / "a.yaml").write_text("0")
    watcher = Watcher(Slow(tmp_path / "a.yaml", 0), 0.5)  # type: ignore[arg-type] # as far as it is used
    with pytest.raises(asyncio.CancelledError):
        await watcher.run(ignore)
    assert slept == [0.5, 8.0]


async def test_a_look(folder: Path) -> None:
    files, problems = look([folder])
    assert [path.name for path, _ in files] == ["api.yaml", "web.yaml"]
    assert problems == ()
    assert look([folder]) == (files, problems)
    assert (
        repr(Watcher(Generations([folder], Sink())))
        == f"Watcher(Generations({folder}: 0 so far, 0 problems), every 0.5 s)"
    )
