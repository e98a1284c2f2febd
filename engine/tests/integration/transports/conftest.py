"""Sockets are carried by uvloop, as in production, and by asyncio's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Every test on uvloop; the modules with BOTH_LOOPS on asyncio's own loop too."""
    factories: dict[str, LoopFactory] = {"uvloop": uvloop.new_event_loop}
    if getattr(getattr(item, "module", None), "BOTH_LOOPS", False):
        factories["asyncio"] = asyncio.new_event_loop
    return factories
