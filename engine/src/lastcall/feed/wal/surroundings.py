"""What the log does not say: what readers see by now, how much log is held back, and DDL on what is watched.

Promises:

* Once a `status_interval_s`: transactions that a snapshot shows leave `unseen`, and the retained bytes are metered.
* Once a `catalog_check_interval_s`, and at once when a table no longer fits its watches: the catalog is read. Every
  kind of channel that is not made as it was when it was last marked gets a `reset` in the stream; what is broken raises
  an alarm each time until it is mended, which is another change.
* A failure of these questions never touches the stream; they are asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from lastcall.config import Config
from lastcall.feed.catalog import Catalog, asked_for, fingerprints, problems
from lastcall.feed.unseen import Unseen
from lastcall.feed.wal.session import Session
from lastcall.feed.wal.walsender import reason
from lastcall.feed.watch import Watch
from lastcall.meter import Meter

_log = structlog.get_logger("lastcall.feed")


class Surroundings:
    """catalog: as it was read last; None before `read_catalog`. on_catalog: told when it has changed."""

    def __init__(
        self,
        url: str,
        config: Config,
        watches: Sequence[Watch],
        meter: Meter,
        on_catalog: Callable[[Catalog], None],
    ) -> None:
        self.catalog: Catalog | None = None
        self._session = Session(url, config)
        self._config = config
        self._watches = tuple(watches)
        self._meter = meter
        self._on_catalog = on_catalog
        self._due = asyncio.Event()
        self._unsettled = False

    async def read_catalog(self, session: Session) -> Catalog:
        """The catalog as it is now; it is not taken over yet. Raises psycopg.Error."""
        answer = await session.ask("select lastcall.feed_catalog(%s, %s)", self._config.slot, asked_for(self._watches))
        return Catalog.parse(answer)

    def fingerprints(self, catalog: Catalog) -> str:
        """What each kind of channel is made from, as JSON."""
        return msgspec.json.encode(fingerprints(self._watches, catalog)).decode()

    async def mark(self, session: Session) -> None:
        """Put a reset into the stream for each kind of channel that has changed since it was last marked (and once more
        when the transactions that were open at the change of the publication have ended). Raises psycopg.Error."""
        assert self.catalog is not None
        answer = await session.ask(
            "select lastcall.mark_watches(%s, %s)", self._config.slot, self.fingerprints(self.catalog)
        )
        self._unsettled = not answer["settled"]

    def look_soon(self) -> None:
        """A table does not fit its watches as the catalog is known."""
        self._due.set()

    async def run(self, streaming: Callable[[], bool], unseen: Unseen) -> None:
        """Ask until cancelled. streaming: whether there is a slot to ask about."""
        try:
            await self._ask_on(streaming, unseen)
        finally:
            self._session.close()

    async def _ask_on(self, streaming: Callable[[], bool], unseen: Unseen) -> None:
        looked_at = time.monotonic()
        unanswered = ""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), self._config.status_interval_s)
            if not streaming():
                self._due.clear()
                await asyncio.sleep(self._config.status_interval_s)
                self._due.set()
                continue
            try:
                if self._due.is_set() or time.monotonic() - looked_at >= self._config.catalog_check_interval_s:
                    looked_at = time.monotonic()
                    self._due.clear()
                    await self._check_catalog()
                elif self._unsettled:
                    await self.mark(self._session)
                await self._look(unseen)
                unanswered = ""
            except Exception as error:
                if reason(error) != unanswered:
                    unanswered = reason(error)
                    _log.warning("the database did not answer", reason=unanswered)
                await asyncio.sleep(self._config.status_interval_s)

    async def _look(self, unseen: Unseen) -> None:
        pulse = await self._session.ask("select lastcall.feed_pulse(%s)", self._config.slot)
        unseen.seen(pulse["snapshot"])
        self._meter.slot_retained_bytes = int(pulse["retained_bytes"] or 0)

    async def _check_catalog(self) -> None:
        catalog = await self.read_catalog(self._session)
        for problem in problems(self._watches, catalog, published=True):
            self._meter.alarm("watch_broken")
            _log.error("a watch is broken", problem=str(problem))
        if catalog != self.catalog:
            self.catalog = catalog
            self._on_catalog(catalog)
            await self.mark(self._session)
