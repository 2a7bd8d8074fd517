from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from proxy.errors import SettingsError
from proxy.settings import Tracing
from proxy.trace import access_log
from proxy.trace.access_log import AccessLog
from proxy.trace.record import RequestRecord
from proxy.trace.redact import Redactor
from tests.harness.proxy import ROOT
from tests.trace.records import attempt, record, records


def make(path: Path) -> AccessLog:
    return AccessLog(str(path), Redactor(Tracing().redact))


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_per_request(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = make(path)
    log.offer(record(), "")
    assert path.read_text() == ""  # held until the sweep
    log.flush()
    (line,) = written(path)
    assert line == {
        "time": record().end_ns / 1e9,
        "client": "192.0.2.44",
        "method": "GET",
        "scheme": "http",
        "host": "shop.example.org",
        "path": "/api/cart/items/42",
        "query": "",
        "protocol": "HTTP/1.1",
        "status": 200,
        "error": "",
        "detail": "",
        "bytes_in": 0,
        "bytes_out": 430,
        "duration_us": 250,
        "self_us": 31,
        "wait_us": 205,
        "attempts": 1,
        "upstream": "10.0.1.9:8080",
        "upstream_status": 200,
        "route": "shop/storefront:/api/cart",
        "generation": 7,
        "user_agent": "curl/8.9.1",
        "trace_id": b"0123456789abcdef".hex(),
        "span_id": b"server01".hex(),
        "upstream_span_id": b"attempt1".hex(),
        "sampled": True,
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"error_type": "no_route", "route": None, "attempts": ()}, {"error": "no_route", "route": "", "upstream": ""}),
        ({"outcome": "client_gone", "status": 0}, {"error": "client_gone", "status": 0}),
        (
            {"attempts": [attempt(), attempt(host="10.0.1.10", status=503)]},
            {"attempts": 2, "upstream": "10.0.1.10:8080", "upstream_status": 503},
        ),
        ({"attempts": [attempt(first_byte_ns=0)]}, {"wait_us": 0}),
        ({"attempts": [attempt(first_byte_ns=5, sent_ns=9)]}, {"wait_us": 0}),
        ({"start_ns": 9_000_000, "end_ns": 5_000_000, "self_ns": -4_000_000}, {"duration_us": 0, "self_us": 0}),
        ({"query": b"a=1&sig=secret"}, {"query": "a=1&sig=REDACTED"}),
        ({"version": 0}, {"protocol": "HTTP/1.0"}),
    ],
)  # fmt: skip
def test_fields(tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    log = make(tmp_path / "log")
    log.offer(record(**changes), "")
    log.flush()
    (line,) = written(tmp_path / "log")
    assert {name: line[name] for name in expected} == expected


@given(records())
def test_one_line_of_json_for_any_record(tmp_path_factory: pytest.TempPathFactory, each: RequestRecord) -> None:
    path = tmp_path_factory.mktemp("log") / "access.log"
    log = make(path)
    log.offer(each, "")
    log.flush()
    data = path.read_bytes()
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    line = json.loads(data)
    assert len(line["path"]) <= 1024
    assert b"s3cret" not in data


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "access.log"
    with pytest.raises(SettingsError, match="No such file or directory; name another file with --access-log") as caught:
        make(path)
    assert str(path) in str(caught.value)


def test_reopen_follows_logrotate(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = make(path)
    log.offer(record(status=201), "")
    path.rename(tmp_path / "access.log.1")
    before = len(os.listdir("/proc/self/fd"))
    log.reopen()
    log.offer(record(status=202), "")
    log.flush()
    assert [line["status"] for line in written(tmp_path / "access.log.1")] == [201]
    assert [line["status"] for line in written(path)] == [202]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_failed_reopen_keeps_the_old_file(tmp_path: Path) -> None:
    """It runs in a signal handler's callback: nobody would hear an exception."""
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "access.log"
    log = make(path)
    moved = tmp_path / "moved"
    folder.rename(moved)
    with pytest.raises(SettingsError):
        log.reopen()
    log.offer(record(status=203), "")
    log.flush()
    assert [line["status"] for line in written(moved / "access.log")] == [203]


def test_appends_and_is_private_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("{}\n")
    log = make(path)
    log.offer(record(), "")
    log.flush()
    assert len(written(path)) == 2
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0


def test_what_cannot_be_written_is_counted() -> None:
    log = make(Path("/dev/full"))
    for _ in range(3):
        log.offer(record(), "")
    log.flush()
    log.flush()
    assert log.lost == 3
    log.offer(record(), "")
    log.flush()
    assert log.lost == 4


def test_what_is_held_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_MOST_HELD", 10_000)
    log = make(tmp_path / "log")
    for _ in range(100):
        log.offer(record(), "")
    assert log.lost > 50
    log.flush()
    assert len(written(tmp_path / "log")) == 100 - log.lost
    log.offer(record(), "")
    log.flush()
    assert len(written(tmp_path / "log")) == 101 - log.lost


def test_a_reader_that_does_not_read_does_not_block(tmp_path: Path) -> None:
    """Requests go on: what a pipe does not take waits for it, whole lines, and beyond a bound it is counted as lost."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = make(path)
    for _ in range(3000):  # some 600 bytes each: far more than a pipe holds, and more than is kept
        log.offer(record(), "")
    flushing = threading.Thread(target=log.flush, daemon=True)
    flushing.start()
    flushing.join(5)
    blocked = flushing.is_alive()
    data = b""
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while piece := stream.read(65536):
            data += piece
            flushing.join()
            log.flush()
    assert not blocked, "the event loop would stand still"
    lines = [json.loads(line) for line in data.splitlines()]
    assert len(lines) + log.lost == 3000
    assert log.lost


def test_standard_output_keeps_its_own_mode(tmp_path: Path) -> None:
    """Others write there too: a pipe that became non-blocking would lose their lines, and the shell's."""
    script = (
        "import os; from proxy.settings import Tracing; from proxy.trace.access_log import AccessLog;"
        "from proxy.trace.redact import Redactor; from tests.trace.records import record;"
        "log = AccessLog('-', Redactor(Tracing().redact)); log.offer(record(), 'why'); log.flush();"
        "assert os.get_blocking(1); print('done', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    line, last = done.stdout.splitlines()
    assert json.loads(line)["detail"] == "why"
    assert last == "done"
