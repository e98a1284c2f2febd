"""One question, one answer (spec/protocol.md, 6): an equal of the streams, for clients that cannot stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from starlette.types import Receive, Send

from lastcall.auth import Principal
from lastcall.errors import Refusal
from lastcall.hub import Reservation, Waiter
from lastcall.position import Position
from lastcall.transports.listener import Context
from lastcall.transports.opening import Gaps, authorise, find_gaps
from lastcall.transports.request import Asked
from lastcall.wire import payload
from lastcall.wire.json import event_text, poll_answer

HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


async def long_poll(context: Context, asked: Asked, principal: Principal, receive: Receive, send: Send) -> None:
    """Answer as soon as there is something. Raises Refusal."""
    reservation = context.hub.reserve(principal.subject)
    context.meter.connections["long_poll"] += 1
    try:
        body = await _answer(context, reservation, asked, principal, receive)
    finally:
        context.meter.connections["long_poll"] -= 1
        context.hub.release(reservation)
    if body is not None:
        headers = [*HEADERS, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _answer(
    context: Context, reservation: Reservation, asked: Asked, principal: Principal, receive: Receive
) -> bytes | None:
    """The answer's body; None when the client is gone."""
    hub = context.hub
    await authorise(context, principal, asked.channels)
    wait_s = asked.wait_s
    if principal.expires_at is not None:
        wait_s = max(0.0, min(wait_s, principal.expires_at - time.time()))
    ends = asyncio.get_running_loop().time() + wait_s
    channels: Sequence[str] = asked.channels
    while True:
        gaps = await find_gaps(context, reservation, principal, channels, asked.position, asked.state)
        if asked.position is None:
            return poll_answer(str(gaps.at), (), states=list(gaps.states.items()))
        answer, anything = _collect(context, channels, asked.position, gaps)
        left_s = ends - asyncio.get_running_loop().time()
        if anything or left_s <= 0 or hub.draining:
            return answer
        waiter = Waiter(channels, principal.subject, bool)
        if not await _wait(context, waiter, left_s, receive):
            return None
        lost = waiter.revoked | reservation.revoked
        if lost:
            channels = [channel for channel in channels if channel not in lost]
            ends = 0.0
            if not channels:
                raise Refusal("LC305", facts={"channels": sorted(lost)})


def _collect(context: Context, channels: Sequence[str], position: Position, gaps: Gaps) -> tuple[bytes, bool]:
    """The answer as of now, and whether there is anything in it."""
    starts = gaps.starts(channels, position)
    for reason_channels in gaps.lost.values():
        for channel in reason_channels:
            if channel not in gaps.states:
                del starts[channel]  # whoever is told to fetch a state gets one that is newer than anything here
    heard = context.hub.read(starts)
    events: list[bytes] = []
    size = 0
    for event, on in heard:
        id = str(event.position)
        if event.name == "reset":
            events.append(event_text("reset", payload.reset(on, payload.reason_of(event.data)), id=id))
        else:
            events.append(event_text(event.name, event.data, id=id, channels=on))
        size += len(events[-1])
        if size >= context.config.flush_max_bytes:
            break
    more = len(events) < len(heard)
    context.meter.deliveries += len(events)
    context.meter.delivered_bytes += size
    answer = poll_answer(
        str(heard[len(events) - 1][0].position if more else context.hub.head),
        events,
        resets=[(names, reason) for reason, names in gaps.lost.items()],
        states=list(gaps.states.items()),
        more=more,
    )
    return answer, bool(events or gaps.lost)


async def _wait(context: Context, waiter: Waiter, wait_s: float, receive: Receive) -> bool:
    """Wait for something on the channels. False when the client went away instead."""
    woken = asyncio.Event()
    waiter.wake = woken.set
    leaving = asyncio.get_running_loop().create_task(_disconnected(receive, woken))
    context.hub.wait(waiter)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await woken.wait()
        return not leaving.done()
    finally:
        context.hub.unwait(waiter)
        leaving.cancel()


async def _disconnected(receive: Receive, woken: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    woken.set()
