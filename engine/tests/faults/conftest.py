"""What the fault tests share: storms that are compared with the write-ahead log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from lastcall.testing.fixtures import Database
from lastcall.testing.listener import Listener
from lastcall.testing.storm import SEED, Disturbance, Storm, Writers, compare, gather, rage, truth, truth_begin


@pytest.fixture
def storm(capsys: pytest.CaptureFixture[str]) -> Storm:
    """A storm of four writers whose seed, operations and disturbances are printed."""

    async def run(
        database: Database,
        listen: Callable[..., Listener],
        disturb: Sequence[Disturbance],
        *,
        listeners: int,
        notes: int,
        pause_s: float = 0.0,
    ) -> int:
        truth_begin(database.superuser_url)
        writers = Writers(database.owner_url, 4, notes, SEED, pause_s=pause_s)
        present = await gather(listen, listeners, SEED)
        try:
            await rage(writers, disturb)
            committed = truth(database.superuser_url)
            checked = await compare(present, committed)
        finally:
            for listener in present:
                await listener.stop()
        with capsys.disabled():
            print(
                f"\n  seed {SEED}: {len(committed)} commits, {writers.failures} failed writes, "
                f"{len(disturb)} disturbances, {listeners} listeners, {checked} deliveries compared ",
                end="",
            )
        return checked

    return run
