"""When things happen, as the hub sees it: no loop of its own, so that tests turn time by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Cancellable(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Do not call."""


class Scheduler(Protocol):
    """When things happen. An asyncio event loop is one."""

    def call_soon(self, callback: Callable[[], object], /) -> Cancellable:
        """Call in the next turn."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Cancellable:
        """Call `delay` seconds from now."""
