"""What the transports need of other stations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lastcall.auth import Principal
from lastcall.position import Position


class Reader(Protocol):
    """Authorisation and state, read from the database at or after a position (lastcall.state)."""

    async def refused(self, principal: Principal, channels: Sequence[str], position: Position) -> list[str]:
        """Those of `channels` that the principal may not hear. Raises Refusal LC401 and LC409 for a channel that is
        malformed or unknown, LC2xx when the database cannot say."""

    async def read(
        self, principal: Principal, channels: Sequence[str], position: Position
    ) -> Mapping[str, bytes | None]:
        """Each channel's state as JSON, all of one moment at or after `position`; None: the channel has no state."""

    def tickets_allowed(self, channels: Sequence[str]) -> bool:
        """Whether the applications of all these channels take tickets."""
