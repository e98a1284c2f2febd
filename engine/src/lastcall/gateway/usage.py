"""How much each user asks for, by day: counted in memory, added to `lastcall.usage` once a minute.

Promises:

* Counting is a dictionary's increment; it never waits for the database.
* Memory is bounded: beyond `KEYS_MAX` subjects and kinds, further ones are counted under the empty subject.
* What could not be written is kept and written with the next minute's; a node that is killed loses a minute at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from lastcall.errors import Refusal
from lastcall.postgres.call import Caller
from lastcall.postgres.pipeline import Statement

FLUSH_INTERVAL_S: Final = 60.0
KEYS_MAX: Final = 20_000
ROWS_PER_WRITE_MAX: Final = 1_000

_ADD: Final = Statement(b"select lastcall.add_usage($1::jsonb)")

_log = structlog.get_logger("lastcall.gateway")


class _Row(msgspec.Struct):
    day: str
    subject: str
    kind: str
    count: int


class Usage:
    """Requests per subject, kind and day. One service life: start, stop (which writes what is left)."""

    def __init__(self, caller: Caller, clock: Callable[[], float] = time.time) -> None:
        self._caller = caller
        self._clock = clock
        self._counts: dict[tuple[str, str, str], int] = {}
        self._day = ("", 0.0)
        self._task: asyncio.Task[None] | None = None

    def add(self, subject: str | None, kind: str, count: int = 1) -> None:
        """Count requests of `subject` (None: nobody's)."""
        key = (self._today(), subject or "", kind)
        if key not in self._counts and len(self._counts) >= KEYS_MAX:
            key = (key[0], "", kind)
        self._counts[key] = self._counts.get(key, 0) + count

    async def start(self) -> None:
        """Begin to write once a minute."""
        self._task = asyncio.create_task(self._run(), name="usage")

    async def stop(self) -> None:
        """Write what is left. A second stop is harmless."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.flush()

    async def flush(self) -> None:
        """Add what was counted to the table; keep it where that fails."""
        counts, self._counts = self._counts, {}
        rows = [_Row(*key, count) for key, count in counts.items()]
        while rows:
            part = rows[:ROWS_PER_WRITE_MAX]
            try:
                await self._caller.ask(_ADD, (msgspec.json.encode(part),))
            except Refusal as refusal:
                _log.warning("usage not written", code=refusal.code.number, rows=len(rows))
                self._keep(rows)
                return
            del rows[: len(part)]

    def _keep(self, rows: list[_Row]) -> None:
        for row in rows:
            key = (row.day, row.subject, row.kind)
            self._counts[key] = self._counts.get(key, 0) + row.count

    def _today(self) -> str:
        day, ends = self._day
        now = self._clock()
        if now >= ends:
            day = datetime.fromtimestamp(now, UTC).date().isoformat()
            self._day = (day, (now // 86_400 + 1) * 86_400)
        return day

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.flush()
