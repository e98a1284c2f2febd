"""`GET /state/{channel}`: a channel's state and the position that it fits (spec/protocol.md, 7).

Promises:

* The position is the head as it was when the request came; the state includes every event at or before it.
* `ETag` names the state alone: an unchanged one is 304, with the position of now in the header.
* The answer is the asker's own: `private, no-store`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

from starlette.types import Receive, Scope, Send

from lastcall.auth import Principal
from lastcall.errors import Refusal
from lastcall.gateway.admission import Admission
from lastcall.gateway.http import JSON_TYPE, answer, headers_of
from lastcall.position import Position

IF_NONE_MATCH_MAX_CHARACTERS: Final = 1_000


class Channels(Protocol):
    """What the gateway needs of the hub."""

    @property
    def head(self) -> Position:
        """Everything before it has been delivered."""

    @property
    def ready(self) -> bool:
        """Whether the head has passed what was committed before the start."""

    def describe(self, channel: str) -> tuple[int, Position, Position]:
        """Listeners, head and floor of a channel."""


class Reader(Protocol):
    """What the gateway needs of lastcall.state."""

    async def refused(self, principal: Principal, channels: Sequence[str], position: Position) -> list[str]:
        """Those of the channels that the principal may not hear, as of the position or later."""

    async def read_allowed(self, principal: Principal, channel: str, position: Position) -> bytes:
        """The channel's state at or after the position, as JSON, if the principal may hear it."""


class StateEndpoint:
    """The route's handler."""

    def __init__(self, reader: Reader, channels: Channels, admission: Admission) -> None:
        self._reader = reader
        self._channels = channels
        self._admission = admission

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer with one channel's state."""
        principal = self._admission.admit(scope, "state")
        if not self._channels.ready:
            raise Refusal("LC204")
        position = self._channels.head
        state = await self._reader.read_allowed(principal, scope["path_params"]["channel"], position)
        tag = f'"{hashlib.blake2b(state, digest_size=16).hexdigest()}"'
        headers = [
            (b"etag", tag.encode()),
            (b"lastcall-position", str(position).encode()),
            (b"cache-control", b"private, no-store"),
        ]
        if _matches(headers_of(scope).get(b"if-none-match", b"").decode("latin-1"), tag):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return 304
        body = b'{"position":"%b","state":%b}' % (str(position).encode(), state)
        return await answer(send, 200, body, (JSON_TYPE, *headers))


def _matches(if_none_match: str, tag: str) -> bool:
    """RFC 9110, 13.1.2: any listed tag, compared weakly, or `*`."""
    tags = [part.strip().removeprefix("W/") for part in if_none_match[:IF_NONE_MATCH_MAX_CHARACTERS].split(",")]
    return tag in tags or tags == ["*"]
