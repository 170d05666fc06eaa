"""Deliveries that are taken in together: whatever comes while a batch is under way is the next batch."""

import asyncio
from typing import NamedTuple

from billing.effects import Notice
from billing.intake import take_in
from billing.services import Services


class _Arrival(NamedTuple):
    notice: Notice
    new: asyncio.Future[bool]


class Arrivals:
    """The slower the ledger, the larger the batches: a flood costs few round trips, a calm no wait."""

    def __init__(self) -> None:
        self._waiting: list[_Arrival] = []
        self._taking: asyncio.Task[None] | None = None

    async def take_in(self, services: Services, notice: Notice) -> bool:
        """Whether the event is new, once it is kept and forgotten; Unavailable as ``take_in``."""
        loop = asyncio.get_running_loop()
        arrival = _Arrival(notice, loop.create_future())
        self._waiting.append(arrival)
        if self._taking is None:
            self._taking = loop.create_task(self._take_all(services))
        return await arrival.new

    async def _take_all(self, services: Services) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await _settle(services, batch)
        finally:
            self._taking = None


async def _settle(services: Services, batch: list[_Arrival]) -> None:
    try:
        answers = await take_in(services, [each.notice for each in batch])
    except Exception as error:  # noqa: BLE001 whatever it is, each delivery has to be answered with it
        for each in batch:
            if not each.new.done():
                each.new.set_exception(error)
        return
    for each, new in zip(batch, answers, strict=True):
        if not each.new.done():  # its client may have gone away
            each.new.set_result(new)
