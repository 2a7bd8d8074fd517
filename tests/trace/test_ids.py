from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

from proxy.trace import ids


def test_sizes() -> None:
    assert len(ids.trace_id()) == ids.TRACE_ID_SIZE == 16
    assert len(ids.span_id()) == ids.SPAN_ID_SIZE == 8


def test_ids_differ_over_many_blocks() -> None:
    traces = [ids.trace_id() for _ in range(2_000)]
    spans = [ids.span_id() for _ in range(2_000)]
    assert len(set(traces)) == len(set(spans)) == 2_000
    # Neither stock is cut from the other's block, and every byte is random.
    assert not {trace[:8] for trace in traces} & set(spans)
    assert all(len({each[place] for each in traces}) > 200 for place in range(16))
    assert all(len({each[place] for each in spans}) > 200 for place in range(8))


def test_a_block_with_a_zero_id_is_not_used(monkeypatch) -> None:
    good = (bytes(range(1, 256)) * 17)[:4096]
    blocks = [bytes(4096), good[:-8] + bytes(8), good[:9] + bytes(8) + good[17:], good]
    ids.reseed()
    with monkeypatch.context() as patch:
        patch.setattr(ids, "os", SimpleNamespace(urandom=lambda size: blocks.pop(0)))
        assert ids.span_id() == good[-8:]
    ids.reseed()
    assert blocks == []


# In a process of its own: forking one that has threads, as pytest has, is an error from Python 3.12 on.
_FORK = """
import os
from proxy.trace import ids
ids.trace_id(), ids.span_id()  # both stocks are open
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, ids.trace_id() + ids.span_id())
    os._exit(0)
theirs = os.read(read, 24)
assert os.wait()[1] == 0 and len(theirs) == 24
assert theirs[:16] not in {ids.trace_id() for _ in range(256)}  # all that the parent's stocks still hold
assert theirs[16:] not in {ids.span_id() for _ in range(512)}
"""


def test_a_forked_child_gives_out_other_ids() -> None:
    subprocess.run([sys.executable, "-c", _FORK], check=True, timeout=30)


def test_reseed_forgets_the_stocks() -> None:
    ids.trace_id(), ids.span_id()
    ids.reseed()
    assert not ids._trace_ids
    assert not ids._span_ids
    assert len(ids.trace_id()) == 16
