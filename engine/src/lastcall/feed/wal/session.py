"""An ordinary session of the feed's login, for what the replication connection cannot be asked while it streams."""

from __future__ import annotations

import asyncio
import math
from typing import Any, LiteralString

import psycopg

from lastcall.config import Config
from lastcall.feed.wal.walsender import connection_arguments


class Session:
    """Opened when it is needed, closed by any failure, so that the next question opens it anew.

    It belongs to one task: a socket that is closed while another task waits on it would leave its number registered in
    the event loop, where the next socket of that number meets it.
    """

    def __init__(self, url: str, config: Config) -> None:
        self._url = url
        self._config = config
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def ask(self, statement: LiteralString, *parameters: object) -> Any:
        """The first column of the first row, in a transaction of its own.

        Raises psycopg.Error, and TimeoutError after `statement_timeout_s`.
        """
        try:
            async with asyncio.timeout(self._config.statement_timeout_s):
                connection = self._connection
                if connection is None:
                    connection = self._connection = await self._open()
                row = await (await connection.execute(statement, parameters)).fetchone()
        except BaseException:
            self.close()
            raise
        return row[0] if row else None

    def close(self) -> None:
        """Close it, not waiting for the server, which may not answer. A later question would open it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()

    async def _open(self) -> psycopg.AsyncConnection[Any]:
        settings = {
            # What the feed writes is rare and must be in the log when it reads how far the log goes.
            "synchronous_commit": "local",
            "default_transaction_read_only": "off",
            "statement_timeout": f"{math.ceil(self._config.statement_timeout_s * 1000)}ms",
        }
        return await psycopg.AsyncConnection.connect(**connection_arguments(self._url, self._config, settings))
