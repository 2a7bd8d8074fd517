"""The demo's customers: a steady, believable mix of requests to the proxy."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.settings import Address

HOST: Final = "shop.localhost"
AT_ONCE: Final = 32  # requests under way; more are skipped and counted, as a browser's user gives up
TIMEOUT_S: Final = 15.0


class Step(NamedTuple):
    """One request of the mix."""

    method: str
    path: str
    body: dict[str, object] | None = None
    host: str = HOST


# Each user fills a cart before the checkout, so that a checkout has something to reserve.
MIX: Final = (
    Step("GET", "/"),
    Step("GET", "/products/teapot"),
    Step("POST", "/api/cart/ada/items", {"item": "teapot", "quantity": 1}),
    Step("POST", "/api/cart/ada/items", {"item": "kettle", "quantity": 2}),
    Step("GET", "/api/stock/lantern"),
    Step("POST", "/checkout", {"user": "ada"}),
    Step("GET", "/products/unicorn"),  # 404 from the shop
    Step("GET", "/search?q=tea"),
    Step("POST", "/api/cart/grace/items", {"item": "tent", "quantity": 1}),
    Step("GET", "/api/cart/grace"),
    Step("POST", "/checkout", {"user": "grace"}),
    Step("GET", "/products/lantern"),
    Step("GET", "/", host="no-such-shop.localhost"),  # 404 from the proxy: no rule
    Step("POST", "/api/cart/alan/items", {"item": "lantern", "quantity": 4}),
    Step("POST", "/api/cart/alan/items", {"item": "teapot", "quantity": 1}),
    Step("GET", "/search?q=light"),
    Step("POST", "/checkout", {"user": "alan"}),
    Step("HEAD", "/"),
    Step("POST", "/checkout", {"user": "nobody"}),  # 409: an empty cart
)
# Between two requests, as a factor of the mean: people come in bursts.
PACE: Final = (0.4, 1.3, 0.7, 1.9, 0.5, 1.2)


class Traffic:
    """Sends the mix to ``target`` at ``rate`` requests a second until cancelled, and counts what came back.

    While ``open_for`` says no, nothing is sent, and what then fails is not counted: the proxy is shutting down.
    """

    def __init__(
        self,
        target: Address,
        rate: float,
        open_for: Callable[[], bool] = lambda: True,
        mix: Sequence[Step] = MIX,
        at_once: int = AT_ONCE,
    ) -> None:
        self._target: Final = target
        self._at_once: Final = at_once
        self._mix: Final = mix
        self._open_for: Final = open_for
        self._rate: Final = rate
        self._open: Final[set[asyncio.Task[None]]] = set()
        self.statuses: Final[Counter[int]] = Counter()
        self.failures: Final[Counter[str]] = Counter()  # by exception: no answer at all
        self.skipped = 0
        self.slowest: tuple[float, Step] | None = None  # seconds

    def __repr__(self) -> str:
        return (
            f"Traffic({self._target}, {self.answered} answered, {self.failures.total()} failed, {len(self._open)} open)"
        )

    @property
    def answered(self) -> int:
        """Requests that got an answer, whatever its status."""
        return self.statuses.total()

    async def run(self) -> None:
        """Send until cancelled; a request under way then is given a moment to end."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "spanway-demo"}) as session:
            try:
                for step, pace in zip(itertools.cycle(self._mix), itertools.cycle(PACE), strict=False):
                    if not self._open_for():
                        pass
                    elif len(self._open) < self._at_once:
                        task = asyncio.create_task(self.send(session, step))
                        self._open.add(task)
                        task.add_done_callback(self._open.discard)
                    else:
                        self.skipped += 1
                    await asyncio.sleep(pace / self._rate)
            finally:
                if self._open:
                    _, late = await asyncio.wait(set(self._open), timeout=2.0)
                    for task in late:
                        task.cancel()

    async def send(self, session: aiohttp.ClientSession, step: Step) -> None:
        """One request; never raises for what the proxy does."""
        data = None if step.body is None else json.dumps(step.body)
        headers = {"Host": step.host} | ({} if data is None else {"Content-Type": "application/json"})
        start = time.monotonic()
        try:
            async with session.request(
                step.method, f"http://{self._target}{step.path}", data=data, headers=headers, allow_redirects=False
            ) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            if self._open_for():
                self.failures[type(error).__name__] += 1
            return
        self.statuses[answer.status] += 1
        seconds = time.monotonic() - start
        if self.slowest is None or seconds > self.slowest[0]:
            self.slowest = (seconds, step)
