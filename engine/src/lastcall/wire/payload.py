"""The `data` of the protocol's own events (spec/protocol.md, 3.2), as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lastcall.errors import Code
from lastcall.wire.json import state_text

EMPTY = b"{}"
"""A heartbeat's."""

_encode = msgspec.json.Encoder().encode


class _Reason(msgspec.Struct):
    reason: str


_reason = msgspec.json.Decoder(_Reason).decode


def joined(channels: Sequence[str], heartbeat_s: float, resumed: bool, connection: str | None) -> bytes:
    """What a listener is told first. connection: the secret that refreshes its token; None: it has other means."""
    data: dict[str, object] = {
        "channels": channels,
        "heartbeat_s": int(heartbeat_s) if heartbeat_s == int(heartbeat_s) else heartbeat_s,
        "resumed": resumed,
    }
    if connection is not None:
        data["connection"] = connection
    return _encode(data)


def reset(channels: Sequence[str], reason: str) -> bytes:
    """Which channels' state must be fetched anew, and why."""
    return _encode({"channels": channels, "reason": reason})


def reason_of(data: bytes) -> str:
    """The reason in the `data` of an event named `reset` that came from the feed."""
    return _reason(data).reason


def revoked(channels: Sequence[str]) -> bytes:
    """Which channels are no longer heard."""
    return _encode({"channels": channels})


def state(channel: str, value: bytes) -> bytes:
    """A channel's state; `value` is JSON."""
    return state_text(channel, value)


def close(code: Code) -> bytes:
    """Why the server ends the stream, and whether to come back."""
    return _encode({"code": code.number, "name": code.name, "retry": code.retry})
