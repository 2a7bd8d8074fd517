"""A plain HTTP client for the real tests: many requests over a few keep-alive connections."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

T = TypeVar("T")
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; ``fields`` has lower-case names, and of a repeated field its values joined by commas."""

    status: int
    fields: Mapping[str, str]
    body: bytes


class Connection:
    """One keep-alive connection, a context manager; it reopens when the server has said that it closes."""

    def __init__(self, address: Address, timeout: float = 30.0) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=timeout)

    def ask(
        self, method: str, target: str, fields: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request and read the whole response."""
        self._connection.request(method, target, body=body, headers=dict(fields or {}))
        with self._connection.getresponse() as response:
            content = response.read()
            names = {name.lower() for name in response.headers}
            merged = {name: ", ".join(response.headers.get_all(name, [])) for name in names}
            return Answer(response.status, merged, content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def once(
    address: Address, method: str, target: str, fields: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """One request on a connection of its own."""
    with Connection(address) as connection:
        return connection.ask(method, target, fields, body)


def many(address: Address, count: int, connections: int, ask: Callable[[Connection, int], T]) -> list[T]:
    """``ask(connection, number)`` for 0 to ``count`` - 1, spread over ``connections``; the results in that order."""

    def work(numbers: range) -> list[T]:
        with Connection(address) as connection:
            return [ask(connection, number) for number in numbers]

    shares = [range(start, count, connections) for start in range(connections)]
    with ThreadPoolExecutor(connections) as pool:
        results = list(pool.map(work, shares))
    return [results[number % connections][number // connections] for number in range(count)]
