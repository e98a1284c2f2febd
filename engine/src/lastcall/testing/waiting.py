"""Waiting in tests: on conditions with a bound, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")

WITHIN_S = 20.0
_POLL_S = 0.01


def eventually(predicate: Callable[[], Value], within_s: float = WITHIN_S, *, what: str = "") -> Value:
    """Call `predicate` until it is true and return what it said. AssertionError after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what or predicate}, last {value!r}")
        time.sleep(_POLL_S)


async def eventually_async(predicate: Callable[[], object], within_s: float = WITHIN_S, *, what: str = "") -> Any:
    """`eventually` for coroutines: `predicate` may be async, and the loop runs meanwhile."""
    deadline = time.monotonic() + within_s
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what or predicate}, last {value!r}")
        await asyncio.sleep(_POLL_S)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
