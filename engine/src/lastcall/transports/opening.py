"""What a listener is told first: authorise, read states, find gaps (spec/protocol.md, 3.1 and 3.4).

The order is reserve, authorise, join: what is revoked or reset while this page waits is noted by the reservation.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Final

from lastcall.auth import Principal
from lastcall.errors import Refusal
from lastcall.hub import Joiner, Reservation
from lastcall.position import Position
from lastcall.transports.listener import Context
from lastcall.wire import payload
from lastcall.wire.encoding import Encoding

ATTEMPTS_MAX: Final = 3
"""How often an opening starts over because everything was reset while it was read."""


class Gaps:
    """Which channels can go on from where the listener stopped, and what the others need.

    lost: reason → channels. states: of the channels whose state is told. at: the position of these states, and where
    the lost channels go on from.
    """

    __slots__ = ("at", "lost", "states")

    def __init__(self, at: Position, lost: Mapping[str, Sequence[str]], states: Mapping[str, bytes]) -> None:
        self.at = at
        self.lost = lost
        self.states = states

    def starts(self, channels: Sequence[str], position: Position | None) -> dict[str, Position]:
        """Where each channel goes on."""
        if position is None:
            return dict.fromkeys(channels, self.at)
        without = {channel for channels in self.lost.values() for channel in channels}
        return {channel: self.at if channel in without else position for channel in channels}


async def ready(context: Context) -> None:
    """Return when the feed has caught up. Raises Refusal LC204 after `ready_wait_max_s`."""
    hub = context.hub
    if hub.ready or hub.draining:
        return
    caught_up = asyncio.Event()
    hub.when_ready(caught_up.set)
    try:
        async with asyncio.timeout(context.config.ready_wait_max_s):
            await caught_up.wait()
    except TimeoutError:
        raise Refusal("LC204") from None


async def authorise(context: Context, principal: Principal, channels: Sequence[str]) -> None:
    """Raises Refusal LC305 naming the channels that the principal may not hear, LC306 where a ticket is not taken."""
    if not channels:
        return
    if principal.ticket and not context.reader.tickets_allowed(channels):
        raise Refusal("LC306")
    refused = await context.reader.refused(principal, channels, context.hub.head)
    if refused:
        raise Refusal("LC305", facts={"channels": list(refused)})


async def find_gaps(
    context: Context,
    reservation: Reservation,
    principal: Principal,
    channels: Sequence[str],
    position: Position | None,
    state: bool,
) -> Gaps:
    """See Gaps. Raises Refusal LC205 and the like where a state cannot be read."""
    for _ in range(ATTEMPTS_MAX):
        reservation.resets.clear()
        at = context.hub.head
        lost: dict[str, list[str]] = {}
        if position is not None:
            for channel in channels:
                reason = context.hub.gap(channel, position)
                if reason is not None:
                    lost.setdefault(reason, []).append(channel)
        wanted = (
            [c for c in channels if position is None or any(c in names for names in lost.values())] if state else []
        )
        if not wanted:
            return Gaps(at, lost, {})
        found = await context.reader.read(principal, wanted, at)
        if not any(reservation.reset_reason(channel) for channel in wanted):
            return Gaps(at, lost, {channel: value for channel in wanted if (value := found.get(channel)) is not None})
    raise Refusal("LC205")


def told(gaps: Gaps, encoding: Encoding, *, last_state_id: bool) -> bytes:
    """The resets and states of an opening. last_state_id: whether the last state carries its position."""
    parts = [
        encoding.frame("reset", payload.reset(channels, reason), id=None) for reason, channels in gaps.lost.items()
    ]
    last = next(reversed(list(gaps.states)), None) if last_state_id else None
    for channel, value in gaps.states.items():
        id = str(gaps.at) if channel == last else None
        parts.append(encoding.frame("state", payload.state(channel, value), id=id))
    return b"".join(parts)


async def open_stream(
    context: Context,
    reservation: Reservation,
    principal: Principal,
    encoding: Encoding,
    *,
    channels: Sequence[str],
    position: Position | None,
    state: bool,
    secret: str | None,
) -> Joiner:
    """A new listener on its way in: authorised, with its first frames. What raises here is still an HTTP answer."""
    config, hub = context.config, context.hub
    await authorise(context, principal, channels)
    gaps = await find_gaps(context, reservation, principal, channels, position, state)
    if position is None:
        id = None if gaps.states else gaps.at
    else:
        # What comes from elsewhere, or from beyond the head, is not a place to come back to.
        id = position if position.epoch == hub.head.epoch and position <= hub.head else None
        context.meter.resumes += 1
        context.meter.resume_resets += bool(gaps.lost)
    opening = encoding.frame(
        "joined",
        payload.joined(channels, config.heartbeat_interval_s, position is not None, secret),
        id=None if id is None else str(id),
        retry_ms=random.randint(config.retry_min_ms, max(config.retry_min_ms, config.retry_max_ms)),  # noqa: S311
    )
    opening += told(gaps, encoding, last_state_id=position is None)
    starts = gaps.starts(channels, position)
    return hub.joiner(reservation, encoding, starts, opening=opening, beat=position is not None)
