from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.control import files
from proxy.control.documents import DocumentError
from proxy.control.files import files_of, signature, text_of


def names(*paths: Path) -> list[str]:
    found, problems = files_of(paths)
    assert problems == []
    return [path.name for path in found]


def test_a_directory_is_its_manifests_by_name_and_nothing_below(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "d.txt", "e.yaml~", ".f.yaml", "g.yaml.swp", "README.md"):
        (tmp_path / name).write_text("")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "h.yaml").write_text("")
    (tmp_path / "dir.yaml").mkdir()
    assert names(tmp_path) == ["a.yml", "b.yaml", "c.json"]


def test_a_file_is_itself_whatever_its_name_and_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text("")
    (tmp_path / "y.yaml").write_text("")
    assert names(tmp_path / "x.conf", tmp_path, tmp_path / "y.yaml") == ["x.conf", "y.yaml"]


def test_an_empty_directory_is_a_warning(tmp_path: Path) -> None:
    found, [problem] = files_of([tmp_path])
    assert found == []
    assert (problem.severity, problem.file) == ("warning", str(tmp_path))
    assert "*.yaml, *.yml, *.json; directories below it are not searched" in problem.hint


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    found, [problem] = files_of([tmp_path / "nowhere", tmp_path / "a" / "b"][:1])
    assert found == []
    assert problem.severity == "error"
    assert problem.message == "cannot be read: no such file or directory"


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.yaml").write_text("")
    found, [problem] = files_of([tmp_path])
    assert found == []
    assert problem.message == "the directory holds more than 2 manifests"


def test_a_mounted_configmap_is_one_set_of_files_and_a_swap_shows(tmp_path: Path) -> None:
    """The layout that the kubelet makes (pkg/volume/util/atomic_writer.go)."""
    for version in ("..2026_01", "..2026_02"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text("same")
    os.symlink("..2026_01", tmp_path / "..data")
    os.symlink("..data/a.yaml", tmp_path / "a.yaml")
    assert names(tmp_path) == ["a.yaml"]
    before = signature(tmp_path / "a.yaml")
    os.symlink("..2026_02", tmp_path / "..data_tmp")
    os.rename(tmp_path / "..data_tmp", tmp_path / "..data")
    assert signature(tmp_path / "a.yaml") != before


def test_a_signature_tells_states_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    assert signature(path) is None
    path.write_text("a")
    first = signature(path)
    assert first == signature(path)
    path.write_text("ab")
    second = signature(path)
    assert second != first
    os.utime(path, ns=(0, 0))
    assert signature(path) != second
    other = tmp_path / "b.yaml"
    other.write_text("ab")
    os.utime(other, ns=(0, 0))
    third = signature(path)
    os.replace(other, path)
    assert signature(path) != third, "another file in its place, with the same size and time"


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [(b"a\n\xff", 2, "is not UTF-8 text"), (b"\xff\xfea\x00", 1, "is not UTF-8 text")],
)
def test_what_is_no_text(tmp_path: Path, data: bytes, line: int, message: str) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DocumentError) as caught:
        text_of(tmp_path / "a")
    assert (caught.value.line, caught.value.message) == (line, message)


def test_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9")
    assert text_of(path) == "a: \u00e9"
    monkeypatch.setattr(files, "LARGEST_FILE", 8)
    assert text_of(path)
    path.write_bytes(b"123456789")
    with pytest.raises(DocumentError, match="larger than 8 bytes"):
        text_of(path)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(DocumentError, match="not a regular file"):
        text_of(tmp_path / "a")


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(DocumentError, match="too many levels of symbolic links"):
        text_of(tmp_path / "a")
