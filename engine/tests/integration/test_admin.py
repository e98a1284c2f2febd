"""Health, readiness and metrics of a node's parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lastcall.app import App
from lastcall.meter import METRICS, Meter
from lastcall.testing.fixtures import Database
from lastcall.testing.house import EPOCH, House, house
from lastcall.testing.sample import app as sample


@pytest.fixture(scope="session")
def database_apps() -> Sequence[App]:
    return (sample,)


@pytest.fixture
async def home(database: Database) -> AsyncIterator[House]:
    async with house(database) as made:
        yield made


@pytest.fixture
async def anyone(home: House) -> AsyncIterator[httpx.AsyncClient]:
    async with home.client() as client:
        yield client


async def families(client: httpx.AsyncClient) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample of `/metrics`: name → label values → value."""
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(response.text):
        for sample_ in family.samples:
            found.setdefault(sample_.name, {})[tuple(sample_.labels.values())] = sample_.value
    return found


async def test_alive(anyone: httpx.AsyncClient, home: House) -> None:
    """The process answers, whatever else is wrong."""
    home.feed.alive = False
    assert (await anyone.get("/healthz")).text == "ok\n"


async def test_ready_and_why_not(anyone: httpx.AsyncClient, home: House) -> None:
    """Each thing that is missing is a reason of its own: LC204 with Retry-After; without one, 200."""
    assert (await anyone.get("/readyz")).json() == {"ready": True}
    home.feed.caught_up = home.feed.alive = False
    home.hub.set_ready(False)
    response = await anyone.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "LC204")
    assert "retry-after" in response.headers
    assert response.json()["facts"]["reasons"] == [
        "the feed has not caught up with the database",
        "the feed does not hear from the database",
        "the hub does not take resumes yet",
    ]
    home.feed.caught_up = home.feed.alive = True
    home.hub.set_ready()
    home.hub.draining = True
    assert (await anyone.get("/readyz")).json()["facts"]["reasons"] == ["the node is stopping"]


async def test_every_metric_is_shown(anyone: httpx.AsyncClient) -> None:
    """What meter.py declares is there, with its kind's ending, and nothing else of ours is."""
    found = await families(anyone)
    endings = {"counter": "_total", "gauge": "", "histogram": "_seconds_bucket"}
    declared = {f"lastcall_{metric.name}{endings[metric.kind]}" for metric in METRICS if not metric.labels}
    assert declared <= found.keys()
    stems = tuple(f"lastcall_{metric.name}" for metric in METRICS)
    assert [name for name in found if not name.startswith(stems)] == []


def test_every_count_is_declared() -> None:
    """The meter counts nothing that METRICS does not name."""
    names = {metric.name for metric in METRICS}
    assert [name for name in Meter.__slots__ if name not in names] == []


async def test_counts_gauges_and_durations(anyone: httpx.AsyncClient, home: House) -> None:
    """Values come from the meter and, for what is asked, from the stations; histograms are cumulative."""
    home.meter.deliveries = 7
    home.meter.connections["sse"] = 3
    home.meter.job_runs["a.b", "done"] = 2
    home.meter.alarm("epoch")
    for duration_s in (0.0004, 0.003, 99.0):
        home.meter.commit_to_write.observe(duration_s)
    found = await families(anyone)
    assert found["lastcall_deliveries_total"] == {(): 7}
    assert found["lastcall_connections"][("sse",)] == 3
    assert found["lastcall_job_runs_total"] == {("a.b", "done"): 2}
    assert found["lastcall_alarms_total"] == {("epoch",): 1}
    buckets = found["lastcall_commit_to_write_seconds_bucket"]
    assert [buckets[(bound,)] for bound in ("0.0005", "0.002", "0.005", "10.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert found["lastcall_commit_to_write_seconds_count"] == {(): 3}
    assert found["lastcall_epoch"] == {(EPOCH,): 1}
    assert found["lastcall_ready"] == {(): 1}
    assert found["lastcall_pool_connections"].keys() == {("busy",), ("idle",)}
    assert found["lastcall_resident_bytes"][()] > 1 << 20
    assert 0 < found["lastcall_open_files"][()] <= found["lastcall_open_files_max"][()]
    assert found["lastcall_started_at_seconds"][()] > 1.7e9
