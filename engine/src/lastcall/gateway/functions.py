"""The catalogue: which functions are exposed, to whom, and what they take.

Promises:

* Exposed is what an application's `{app}_api` schema has and a token's role may EXECUTE; PostgreSQL decides again when
  it is called. A name that is overloaded, or that JSON cannot call, is not exposed, and the log says why, once.
* The catalogue follows the database: it is read again in the background when it is older than `AGE_MAX_S`, and at once,
  but not more than once a second, when somebody asks for what it does not have.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import structlog

from lastcall.app import App
from lastcall.auth import Principal
from lastcall.errors import Refusal
from lastcall.postgres.call import Caller
from lastcall.postgres.signature import Signature

AGE_MAX_S: Final = 30.0
LOOK_AGAIN_S: Final = 1.0
ENGINE_SCHEMA: Final = "lastcall"

_log = structlog.get_logger("lastcall.gateway")


class Catalogue:
    """All functions of the engine and the applications."""

    def __init__(self, caller: Caller, apps: Sequence[App]) -> None:
        self._caller = caller
        self._apps = tuple(apps)
        self._exposed: dict[str, Signature] = {}
        self._every: dict[str, Signature] = {}
        self._told: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read the catalogue now. Raises Refusal."""
        schemas = [ENGINE_SCHEMA, *(schema for app in self._apps for schema in (app.schema, app.api_schema))]
        found = await self._caller.signatures(schemas)
        self._read_at = time.monotonic()
        known = {(s.schema, s.name): s for s in self._every.values()}
        # An unchanged function keeps its object, and with it its prepared statements.
        found = [known[s.schema, s.name] if known.get((s.schema, s.name)) == s else s for s in found]
        times = Counter((s.schema, s.name) for s in found)
        self._every = {f"{s.schema}.{s.name}": s for s in found if times[s.schema, s.name] == 1}
        self._exposed = {}
        hidden: dict[str, str] = {}
        for app in self._apps:
            for signature in found:
                if signature.schema == app.api_schema and signature.returns.type not in {"trigger", "event_trigger"}:
                    name = f"{app.name}.{signature.name}"
                    reason = "it is overloaded" if times[signature.schema, signature.name] > 1 else signature.hindrance
                    if reason is None:
                        self._exposed[name] = signature
                    else:
                        hidden[name] = reason
        for name in hidden.keys() - self._told:
            _log.warning("function not exposed", function=name, reason=hidden[name])
        self._told = frozenset(hidden)

    def exposed_to(self, role: str) -> dict[str, Signature]:
        """Every function that `role` may call, by `app.function`."""
        return {name: signature for name, signature in sorted(self._exposed.items()) if role in signature.roles}

    async def exposed(self, name: str, principal: Principal) -> Signature:
        """The function `app.function` for this principal. Raises Refusal LC107; LC301 where a token might open it."""
        self._refresh()
        signature = self._exposed.get(name)
        if signature is None:
            await self._look_again()
            signature = self._exposed.get(name)
        if signature is not None and principal.role in signature.roles:
            return signature
        if signature is not None and signature.roles and principal.expires_at is None:
            raise Refusal("LC301")
        raise Refusal("LC107")

    async def internal(self, name: str) -> Signature:
        """The function `schema.function` of the engine or an application, exposed or not. Raises Refusal LC107."""
        self._refresh()
        signature = self._every.get(name)
        if signature is None:
            await self._look_again()
            signature = self._every.get(name)
        if signature is None:
            raise Refusal("LC107", f"there is no function {name}, or there are several")
        return signature

    async def _look_again(self) -> None:
        if time.monotonic() - self._read_at >= LOOK_AGAIN_S:
            # Everybody who misses something at the moment waits for one reading.
            self._begin_reading()
        if self._reading is not None:
            await asyncio.shield(self._reading)

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at >= AGE_MAX_S:
            self._begin_reading()

    def _begin_reading(self) -> None:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="catalogue")

    async def _read(self) -> None:
        try:
            await self.load()
        except Refusal as refusal:
            # Not sooner than in a second: the database has other worries.
            self._read_at = time.monotonic() - AGE_MAX_S + LOOK_AGAIN_S
            _log.warning("catalogue not read", code=refusal.code.number)
        finally:
            self._reading = None
