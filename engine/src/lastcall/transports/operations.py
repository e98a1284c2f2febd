"""What a WebSocket client may ask while it listens: subscribe, unsubscribe, a new token (spec/protocol.md, 5)."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from lastcall.auth import Principal
from lastcall.errors import CODES, Language, Refusal
from lastcall.transports.listener import Context, Listener
from lastcall.transports.opening import authorise, find_gaps, told
from lastcall.transports.request import read_position, well_formed
from lastcall.wire import payload, problem
from lastcall.wire.frames import Operation, Subscribe, Token, Unsubscribe, read_operation, ref_of
from lastcall.wire.json import ack_text, error_text

MALFORMED_MAX: Final = 3
"""So many malformed frames are answered; the next one closes."""

WAITING_MAX: Final = 16
"""A client with more operations unanswered is not read from until some are."""

_log = structlog.get_logger("lastcall.transports")


class Operations:
    """The operations of one connection, carried out one after the other.

    reply: sends one JSON text. flow: stops and continues reading from the client.
    """

    __slots__ = (
        "_context",
        "_flow",
        "_language",
        "_listener",
        "_malformed",
        "_paused",
        "_principal",
        "_reply",
        "_started",
        "_waiting",
        "_worker",
    )

    def __init__(
        self,
        context: Context,
        listener: Listener,
        principal: Principal,
        language: Language,
        *,
        reply: Callable[[bytes], None],
        flow: tuple[Callable[[], None], Callable[[], None]],
    ) -> None:
        self._context = context
        self._listener = listener
        self._principal = principal
        self._language: Language = language
        self._reply = reply
        self._flow = flow
        self._malformed = 0
        self._paused = False
        self._waiting: deque[bytes | None] | None = None  # most clients never say anything
        self._started = False
        self._worker: asyncio.Task[None] | None = None

    def receive(self, message: bytes | None) -> None:
        """Take one message; None: a binary one, which is not the protocol's."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(message)
        if len(self._waiting) > WAITING_MAX and not self._paused:
            self._paused = True
            self._flow[0]()
        self._go_on()

    def start(self) -> None:
        """The listener has joined: carry out what waits."""
        self._started = True
        self._go_on()

    def _go_on(self) -> None:
        if self._started and self._waiting and self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    def stop(self) -> None:
        """Carry out nothing more. Harmless when done twice."""
        self._waiting = None
        if self._worker is not None and self._worker is not asyncio.current_task():
            self._worker.cancel()

    def _error(self, ref: int | None, refusal: Refusal) -> None:
        self._reply(error_text(ref, problem.document(refusal, self._language)))

    async def _work(self) -> None:
        try:
            while self._waiting and not self._listener.gone:
                operation = self._read(self._waiting.popleft())
                if operation is not None:
                    await self._carry_out(operation)
                if self._paused and len(self._waiting or ()) <= WAITING_MAX:
                    self._paused = False
                    self._flow[1]()
        finally:
            self._worker = None

    def _read(self, message: bytes | None) -> Operation | None:
        """The operation; None for a malformed message, which is answered here."""
        try:
            if message is None:
                raise Refusal("LC406")
            return read_operation(message)
        except Refusal as refusal:
            self._malformed += 1
            if self._malformed > MALFORMED_MAX:
                self._listener.end(refusal.code)
            else:
                self._error(None if message is None else ref_of(message), refusal)
            return None

    async def _carry_out(self, operation: Operation) -> None:
        try:
            match operation:
                case Subscribe():
                    await self._subscribe(operation)
                case Unsubscribe():
                    self._unsubscribe(operation)
                case Token():
                    await self._take_token(operation)
        except Refusal as refusal:
            self._error(operation.ref, refusal)
        except Exception:
            incident = secrets.token_hex(4)
            _log.exception("operation failed", incident=incident, op=type(operation).__name__)
            self._error(operation.ref, Refusal("LC100", incident=incident))

    async def _subscribe(self, asked: Subscribe) -> None:
        context, listener, hub = self._context, self._listener, self._context.hub
        channels = well_formed(asked.channels)
        position = None if asked.position is None else read_position(asked.position)
        new = [channel for channel in channels if channel not in listener.channels]
        if len(new) + len(listener.channels) > context.config.channels_max:
            raise Refusal("LC402", facts={"channels_max": context.config.channels_max})
        reservation = hub.reserve(listener.subject, counts=False)
        try:
            await authorise(context, self._principal, new)
            gaps = await find_gaps(context, reservation, self._principal, new, position, asked.state)
            ack = ack_text(asked.ref, channels)
            if not new or listener.gone:
                hub.release(reservation)
                self._reply(ack)
                return
            opening = told(gaps, listener.encoding, last_state_id=False)
            starts = gaps.starts(new, position)
            joiner = hub.joiner(reservation, listener.encoding, starts, opening=opening, ids=False, beat=True)
        except BaseException:
            hub.release(reservation)
            raise
        self._reply(ack)
        listener.opening = True
        await listener.catch_up(joiner)

    def _unsubscribe(self, asked: Unsubscribe) -> None:
        channels = well_formed(asked.channels)
        self._context.hub.drop(self._listener, channels)
        self._reply(ack_text(asked.ref, channels))

    async def _take_token(self, asked: Token) -> None:
        principal = self._context.tokens.verify(asked.token)
        before = bool(self._listener.channels)
        heard = await refresh(self._context, self._listener, principal)
        self._principal = principal
        self._reply(ack_text(asked.ref, heard))
        if before and not heard:
            self._listener.end(CODES["LC305"])


async def refresh(context: Context, listener: Listener, principal: Principal) -> list[str]:
    """Go on with a new token: channels that it may not hear are revoked. Answers those still heard.

    Raises Refusal where the database cannot say; the connection then goes on with the old token.
    """
    hub = context.hub
    reservation = hub.reserve(principal.subject, counts=False)
    try:
        asked = sorted(listener.channels)
        lost = set(await context.reader.refused(principal, asked, hub.head)) if asked else set()
        lost |= reservation.revoked
    finally:
        hub.release(reservation)
    revoke(context, listener, lost & listener.channels)
    listener.subject = principal.subject
    context.sessions.prolong(listener, principal.expires_at)
    return sorted(listener.channels)


def revoke(context: Context, listener: Listener, channels: Iterable[str]) -> None:
    """Let the listener hear these channels no longer, and tell it. No position: nothing in the stream says so."""
    lost = sorted(channels)
    if lost and not listener.gone:
        context.hub.drop(listener, lost)
        listener.send(listener.encoding.frame("revoked", payload.revoked(lost)))
