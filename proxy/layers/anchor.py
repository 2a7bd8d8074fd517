"""Where the streams of a connection begin: the initial sequence numbers of both its directions.

Seen in the SYN and its answer; or, for a connection older than the tap, voted: each attempt proposes the number that
makes its own first packet fit the offsets it was handed over with, and three equal proposals are believed. A connection
of the same addresses and ports later on has other numbers: an epoch of its own.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from proxy.layers.packet import ACK

VOTES: Final = 3
"""Equal proposals that are needed, and how many times as many as all others together. Of single ones up to 1 in 370 was
wrong: a tap had missed the first packet of a request."""

_MODULO: Final = 0xFFFF_FFFF
_EPOCHS: Final = 4  # the latest; an exchange ends long before its ports have come round that often
_CANDIDATES: Final = 8
_MOST_VOTES: Final = 64  # of a candidate: what was believed for long can still be outvoted

Pair = tuple[int, int]
"""Initial sequence numbers of what the lower endpoint sends, and the higher (`packet.Flow`)."""


class Anchor(NamedTuple):
    """Initial sequence numbers by direction (0 from the lower endpoint), and how they are known."""

    starts: Pair
    source: Literal["syn", "vote"]


class _Epoch:
    __slots__ = ("answer", "refuted", "since_ns", "syn", "syn_from", "votes")

    def __init__(self, since_ns: int, syn_from: int = 0, syn: int = -1, answer: int = -1) -> None:
        self.since_ns = since_ns
        self.syn_from = syn_from  # direction of the SYN
        self.syn = syn  # its number; -1: none seen
        self.answer = answer
        self.refuted = False  # a SYN was seen, but attempts agree that another has been missed since
        self.votes: dict[Pair, int] = {}

    def seen(self) -> Pair | None:
        if self.syn < 0 or self.answer < 0 or self.refuted:
            return None
        return (self.answer, self.syn) if self.syn_from else (self.syn, self.answer)

    def voted(self) -> Pair | None:
        if not self.votes:
            return None
        best = max(self.votes, key=self.votes.__getitem__)
        count = self.votes[best]
        return best if count >= VOTES and count >= VOTES * (sum(self.votes.values()) - count) else None


class Anchors:
    """Of one pair of endpoints: its latest connections, by the time they began."""

    __slots__ = ("_epochs",)

    def __init__(self) -> None:
        self._epochs = [_Epoch(0)]  # what was there before any SYN

    def __repr__(self) -> str:
        return f"Anchors({len(self._epochs)} epochs)"

    def syn(self, ts_ns: int, direction: int, seq: int, ack: int, flags: int) -> None:
        """A packet with SYN, at any tap: seen again, by another tap or sent again, it changes nothing."""
        answer = bool(flags & ACK)
        syn_from = 1 - direction if answer else direction
        number = (ack - 1) & _MODULO if answer else seq
        for epoch in reversed(self._epochs):
            if epoch.syn == number and epoch.syn_from == syn_from:
                epoch.since_ns = min(epoch.since_ns, ts_ns)
                break
        else:
            epoch = _Epoch(ts_ns, syn_from, number)
            self._epochs.append(epoch)
            self._epochs.sort(key=lambda one: one.since_ns)
            del self._epochs[:-_EPOCHS]
        if answer:
            epoch.answer = seq  # the last one counts: a listener that had forgotten the first draws another

    def at(self, ts_ns: int) -> Anchor | None:
        """The anchor of the connection that was open at a time; None if it is not known."""
        epoch = self._at(ts_ns)
        if epoch is None:
            return None
        seen = epoch.seen()
        if seen is not None:
            return Anchor(seen, "syn")
        voted = epoch.voted()
        return None if voted is None else Anchor(voted, "vote")

    def vote(self, ts_ns: int, starts: Pair) -> None:
        """An attempt written at ``ts_ns`` proposes numbers. Those of a SYN hold until votes alone would outdo them."""
        epoch = self._at(ts_ns)
        if epoch is None:
            return
        votes = epoch.votes
        if starts not in votes and len(votes) >= _CANDIDATES:
            del votes[min(votes, key=votes.__getitem__)]
        votes[starts] = votes.get(starts, 0) + 1
        if votes[starts] >= _MOST_VOTES:
            epoch.votes = {pair: count // 2 for pair, count in votes.items() if count > 1}
        voted = epoch.voted()
        epoch.refuted = voted is not None and epoch.syn >= 0 and voted != epoch.seen() and epoch.answer >= 0

    def _at(self, ts_ns: int) -> _Epoch | None:
        for epoch in reversed(self._epochs):
            if epoch.since_ns <= ts_ns:
                return epoch
        return None
