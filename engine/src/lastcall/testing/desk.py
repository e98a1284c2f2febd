"""Calls the functions of the sample application in tests, the way the gateway does, without HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lastcall.errors import CODES, Refusal
from lastcall.postgres.call import Answer, Caller, Identity, Key
from lastcall.postgres.pool import Pool
from lastcall.postgres.signature import Signature
from lastcall.testing.fixtures import Database
from lastcall.testing.sample import app as sample

MEMBER = Identity("member", b'{"sub":"u1","role":"member","iss":"lastcall"}')
NOTE = {"topic": "t", "writer": 1, "number": 1}
"""Arguments of `write_note`."""


class Desk:
    """A caller with the sample application's functions, by name; arguments are values of Python."""

    def __init__(self, pool: Pool, caller: Caller, signatures: list[Signature]) -> None:
        self.pool = pool
        self.caller = caller
        self.functions = {signature.name: signature for signature in signatures}

    async def reload(self) -> None:
        """Read the signatures again."""
        self.functions = {signature.name: signature for signature in await self.caller.signatures(["sample_api"])}

    async def ask(self, function: str, identity: Identity = MEMBER, key: Key | None = None, **arguments: Any) -> Answer:
        """The answer of one call."""
        raw = {name: json.dumps(value).encode() for name, value in arguments.items()}
        return await self.caller.call(identity, self.functions[function], raw, key)

    async def value(self, function: str, **arguments: Any) -> Any:
        """What one call answers, decoded."""
        return json.loads((await self.ask(function, **arguments)).value)

    async def refused(self, function: str, **arguments: Any) -> Refusal:
        """How one call is refused."""
        with pytest.raises(Refusal) as caught:
            await self.ask(function, **arguments)
        return caught.value


@asynccontextmanager
async def opened(database: Database, url: str | None = None) -> AsyncIterator[Desk]:
    """A desk on a database with the sample application; `url` instead of the authenticator's."""
    pool = Pool(url or database.authenticator_url, database.config)
    await pool.open()
    try:
        caller = Caller(pool, database.config, {**CODES, **sample.codes})
        yield Desk(pool, caller, await caller.signatures(["sample_api"]))
    finally:
        await pool.close()


def key(name: str = "k1", *, body: bytes = b"b", function: str = "sample.write_note", subject: str = "u1") -> Key:
    """The key of `sample.write_note`, of which the parts that matter can be changed."""
    return Key("lastcall", subject, function, name, hashlib.sha256(body).digest())


def define(database: Database, text: str) -> None:
    """A function of the test's own, which a member may call."""
    database.execute(f"create function sample_api.{text}")
    name = text.partition("(")[0]
    database.execute(f"grant execute on function sample_api.{name} to member, anon, service")
