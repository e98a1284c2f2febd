"""Events as JSON text, for WebSocket frames and long-poll answers. Members are absent where they have no value."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

_encode = msgspec.json.Encoder().encode


def event_text(name: str, data: bytes, *, id: str | None, channels: Sequence[str] = ()) -> bytes:
    """`{"id":…,"event":…,"channels":[…],"data":…}`. Ids, names and channels need no escaping by their grammar."""
    head = f'{{"id":"{id}","event":"{name}",' if id is not None else f'{{"event":"{name}",'
    if channels:
        head += '"channels":["' + '","'.join(channels) + '"],'
    return b'%b"data":%b}' % (head.encode("ascii"), data)


def ack_text(ref: int, channels: Sequence[str]) -> bytes:
    """The answer to an operation that was carried out."""
    return _encode({"event": "ack", "ref": ref, "channels": channels})


def error_text(ref: int | None, problem: bytes) -> bytes:
    """The answer to a frame that was refused; `problem` is a problem document. ref: None where it could not be read."""
    head = b'{"event":"error",' if ref is None else b'{"event":"error","ref":%d,' % ref
    return b'%b"problem":%b}' % (head, problem)


def poll_answer(
    position: str,
    events: Sequence[bytes],
    *,
    resets: Sequence[tuple[Sequence[str], str]] = (),
    states: Sequence[tuple[str, bytes]] = (),
    more: bool = False,
) -> bytes:
    """A long-poll answer.

    events: as `event_text` wrote them. resets: channels and reason. states: channel and its state as JSON.
    """
    parts = [b'{"position":"%b","events":[' % position.encode("ascii"), b",".join(events), b"]"]
    if resets:
        parts += [b',"reset":', _encode([{"channels": channels, "reason": reason} for channels, reason in resets])]
    if states:
        parts += [b',"states":[', b",".join(state_text(channel, state) for channel, state in states), b"]"]
    parts.append(b',"more":true}' if more else b"}")
    return b"".join(parts)


def state_text(channel: str, state: bytes) -> bytes:
    """`{"channel":…,"state":…}`."""
    return b'{"channel":"%b","state":%b}' % (channel.encode("ascii"), state)
