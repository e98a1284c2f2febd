"""A snapshot that fits the stream: what the database says at or after a position, and who may hear it.

Promises:

* What is read at position P sees every transaction that was delivered at or before P. A walsender can show a commit
  before other sessions see it, so the feed keeps each delivered transaction in `unseen` until a snapshot shows it. A
  read whose snapshot lacks one of them is repeated at the same P, `state_wait_max_s` at most, then LC205.
* All states of one read, and the answer whether they may be read, are of one snapshot (repeatable read, read only).
* A channel may be heard only where its `authorize` says true; false, NULL and an error of it refuse.
* `unseen` is cleared even when nobody asks, so that the feed may forget.

Source: PostgreSQL, "Transaction ID and Snapshot Information Functions".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from lastcall.app import App, Channel, find_channel
from lastcall.auth import Principal
from lastcall.config import Config
from lastcall.errors import Refusal, StartRefused
from lastcall.meter import Meter
from lastcall.position import Position
from lastcall.postgres.call import Caller, Identity, Reading
from lastcall.postgres.signature import Call, Signature

SWEEP_INTERVAL_S: Final = 1.0
RETRY_WAIT_MIN_S: Final = 0.001
RETRY_WAIT_MAX_S: Final = 0.05

_log = structlog.get_logger("lastcall.state")


class Unseen(Protocol):
    """Delivered transactions that no snapshot has shown yet (feed/unseen.py)."""

    def __len__(self) -> int: ...

    def seen(self, snapshot_text: str) -> None:
        """Forget what this `pg_current_snapshot()` shows."""

    def up_to(self, lsn: int) -> list[int]:
        """The ids of unseen transactions whose commit LSN is at most `lsn`."""


class Source(Protocol):
    """What the reader needs of the feed."""

    @property
    def unseen(self) -> Unseen:
        """What it has delivered and nobody has seen."""


class Reader:
    """Authorisation and state at a position. One service life: start (checks the channels' functions), stop."""

    def __init__(
        self,
        caller: Caller,
        feed: Source,
        apps: Sequence[App],
        config: Config,
        meter: Meter,
    ) -> None:
        self._caller = caller
        self._feed = feed
        self._apps = tuple(apps)
        self._wait_max_s = config.state_wait_max_s
        self._meter = meter
        self._functions: dict[str, Signature] = {}
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Find every function that a channel names. Raises StartRefused naming the one that is missing or unfit."""
        schemas = sorted({name.partition(".")[0] for app in self._apps for name in _named(app)})
        found = await self._caller.signatures(schemas)
        self._functions = {f"{signature.schema}.{signature.name}": signature for signature in found}
        for app in self._apps:
            for channel in app.channels:
                self._check(app, channel)
        self._sweeper = asyncio.create_task(self._sweep(), name="unseen")

    async def stop(self) -> None:
        """End the sweep. A second stop is harmless."""
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
            await asyncio.gather(sweeper, return_exceptions=True)

    async def refused(self, principal: Principal, channels: Sequence[str], position: Position) -> list[str]:
        """Those of `channels` that the principal may not hear, as of `position` or later.

        Raises Refusal LC401 and LC409 for a channel that is malformed or unknown, LC205 when visibility is held up, and
        LC2xx when the database does not answer.
        """
        calls = [self._authorize(channel) for channel in channels]
        if not calls:
            return []
        try:
            values = (await self._read_at(principal, calls, position)).values
        except Refusal as refusal:
            _raise_unless_answered(refusal)
            if len(calls) == 1:
                return list(channels)
            # One function failed and took the others' answers with it: each is asked alone.
            return [channel for channel in channels if await self.refused(principal, [channel], position)]
        return [channel for channel, value in zip(channels, values, strict=True) if value != b"true"]

    async def read(self, principal: Principal, channels: Sequence[str], position: Position) -> dict[str, bytes | None]:
        """Each channel's state as JSON, all of one moment at or after `position`; None: the channel has no state.

        Asks no `authorize`. Raises Refusal as `refused`, and what a state's function raises.
        """
        calls = {channel: call for channel in channels if (call := self._state(channel)) is not None}
        states: dict[str, bytes | None] = dict.fromkeys(channels)
        if calls:
            values = (await self._read_at(principal, list(calls.values()), position)).values
            states |= zip(calls, (value or b"null" for value in values), strict=True)
        return states

    async def read_allowed(self, principal: Principal, channel: str, position: Position) -> bytes:
        """One channel's state, authorised in the same snapshot.

        Raises Refusal LC305 (LC301 without a token), LC105 when the channel has no state, and as `read`.
        """
        state = self._state(channel)
        if state is None:
            raise Refusal("LC105", "this channel has no state")
        try:
            allowed, value = (await self._read_at(principal, [self._authorize(channel), state], position)).values
            if allowed == b"true":
                return value or b"null"
        except Refusal as refusal:
            # Whoever may not hear the channel is told so, whatever the state's function says of it.
            _raise_unless_answered(refusal)
            if not await self.refused(principal, [channel], position):
                raise
        raise Refusal("LC301" if principal.expires_at is None else "LC305", facts={"channels": [channel]})

    def tickets_allowed(self, channels: Sequence[str]) -> bool:
        """Whether the applications of all these channels take tickets. Raises Refusal LC401, LC409."""
        return all(find_channel(self._apps, channel)[0].tickets for channel in channels)

    async def _read_at(self, principal: Principal, calls: Sequence[Call], position: Position) -> Reading:
        identity = Identity(principal.role, msgspec.json.encode(principal.claims))
        # A head `S.0` is everything that commits before S.
        last = position.lsn if position.ordinal else position.lsn - 1
        deadline = asyncio.get_running_loop().time() + self._wait_max_s
        wait_s = RETRY_WAIT_MIN_S
        while True:
            reading = await self._caller.read(identity, calls)
            self._feed.unseen.seen(reading.snapshot)
            if not self._feed.unseen.up_to(last):
                return reading
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                raise Refusal("LC205")
            self._meter.state_retries += 1
            await asyncio.sleep(min(wait_s, remaining))
            wait_s = min(2 * wait_s, RETRY_WAIT_MAX_S)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                await self._look()
            except Refusal as refusal:
                _log.debug("unseen not swept", code=refusal.code.number)

    async def _look(self) -> None:
        """Forget what is visible by now."""
        if len(self._feed.unseen):
            self._feed.unseen.seen(await self._caller.snapshot())

    def _authorize(self, name: str) -> Call:
        _, channel, fields = find_channel(self._apps, name)
        return _call(self._functions[channel.authorize], fields)

    def _state(self, name: str) -> Call | None:
        _, channel, fields = find_channel(self._apps, name)
        return None if channel.state is None else _call(self._functions[channel.state], fields)

    def _check(self, app: App, channel: Channel) -> None:
        for name in (channel.authorize, channel.state):
            if name is None:
                continue
            signature = self._functions.get(name)
            if signature is None:
                raise StartRefused(f"{app.name}: the channel {channel.pattern} names {name}, which does not exist")
            names = {parameter.name for parameter in signature.parameters if parameter.form == "text"}
            required = {parameter.name for parameter in signature.parameters if not parameter.optional}
            if not (required <= set(channel.fields) <= names):
                wanted = ", ".join(f"{field} text" for field in channel.fields)
                raise StartRefused(f"{app.name}: {name} must take ({wanted}), as the channel {channel.pattern} says")
            if name == channel.authorize and signature.returns.form != "boolean":
                raise StartRefused(f"{app.name}: {name} must return boolean")


def _call(signature: Signature, fields: Mapping[str, str]) -> Call:
    # A field has no character that JSON would escape.
    return signature.call({name: f'"{value}"'.encode() for name, value in fields.items()})


def _named(app: App) -> list[str]:
    return [name for channel in app.channels for name in (channel.authorize, channel.state) if name is not None]


def _raise_unless_answered(refusal: Refusal) -> None:
    """An error of the function refuses the channel; a database that cannot answer refuses nothing."""
    if refusal.code.status == 503:
        raise refusal
