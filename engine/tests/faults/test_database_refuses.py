"""The database is full, read-only or busy: calls are told so and when to come back, and whoever listens stays."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from lastcall.testing.fixtures import Database, Databases, PostgresServer
from lastcall.testing.sample import app as sample
from lastcall.testing.serving import Serve
from lastcall.testing.waiting import eventually

DISK_BYTES = 220 << 20
BALLAST_BYTES = 1 << 20


def write(client: httpx.Client, number: int = 1) -> httpx.Response:
    """One note through the gateway."""
    return client.post("/rpc/sample.write_note", json={"topic": "t0", "writer": 1, "number": number})


def write_much(client: httpx.Client) -> httpx.Response:
    """A note that needs new pages: its body does not compress."""
    note = {"topic": "t1", "writer": 1, "number": 1, "body": os.urandom(45_000).hex()}
    return client.post("/rpc/sample.write_note", json=note)


def refused_for_now(answer: httpx.Response, code: str) -> bool:
    """Whether the answer is 503 with this number and a time to come back."""
    return (
        answer.status_code == 503 and answer.json()["code"] == code and int(answer.headers.get("retry-after", "0")) >= 1
    )


async def test_read_only(sample_database: Database, serve: Serve) -> None:
    """A database that turns read-only refuses writes with LC206; listeners stay, and hear what comes afterwards."""
    server = serve(sample_database)
    listener = await server.listener("topic:t0").start()
    with server.client() as client, sample_database.superuser() as superuser:
        superuser.execute(f'alter database "{sample_database.name}" set default_transaction_read_only = on')
        _end_pool(superuser, sample_database)
        eventually(lambda: refused_for_now(write(client), "LC206"))
        superuser.execute("set default_transaction_read_only = off")
        superuser.execute(f'alter database "{sample_database.name}" reset default_transaction_read_only')
        _end_pool(superuser, sample_database)
        eventually(lambda: write(client, 2).status_code == 200)
    await listener.until_heard(1)
    assert listener.heard[-1].data["number"] == 2
    assert listener.connections == 1
    await listener.stop()


def _end_pool(superuser: psycopg.Connection[tuple[object, ...]], database: Database) -> None:
    superuser.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = %s and usename = 'lastcall_authenticator'",
        (database.name,),
    )


async def test_pool_exhausted(sample_database: Database, serve: Serve) -> None:
    """With every connection busy a call waits, then is refused with LC203; listeners hear on, and calls work again."""
    server = serve(sample_database, pool_max=2, pool_wait_max_s=0.3, statement_timeout_s=3)
    listener = await server.listener("topic:t0").start()

    def sleep() -> None:
        with server.client() as client:
            client.post("/rpc/sample.misbehave", json={"how": "sleep"})

    sleepers = [threading.Thread(target=sleep) for _ in range(2)]
    for sleeper in sleepers:
        sleeper.start()
    with server.client() as client:
        eventually(lambda: refused_for_now(write(client), "LC203"), 10)
        sample_database.execute("insert into sample.note (topic, writer, number) values ('t0', 9, 9)")
        await listener.until(lambda: any(event.data["writer"] == 9 for event in listener.heard))
        for sleeper in sleepers:
            sleeper.join()
        eventually(lambda: write(client).status_code == 200)
    assert listener.connections == 1
    await listener.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 220 MB, where this account may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    # PostgreSQL's account has to be able to reach it.
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path(parent.anchor) and parent.name.startswith("pytest"):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.slow
async def test_disk_full(small_disk: Path, serve: Serve) -> None:
    """A full disk refuses writes with LC207 and a time to come back; listeners stay; with room again all goes on."""
    postgres = PostgresServer(
        {"min_wal_size": "32MB", "max_wal_size": "48MB", "max_slot_wal_keep_size": "64MB"}, folder=small_disk
    ).start()
    try:
        database = Databases(postgres).create((sample,))
        server = serve(database)
        listener = await server.listener("topic:t0").start()
        table = small_disk / "ballast"
        with server.client() as client:
            assert write(client).status_code == 200
            _fill(table)
            eventually(lambda: refused_for_now(write_much(client), "LC207"), 30)
            table.unlink()
            eventually(lambda: write(client, 2).status_code == 200, 30)
        await listener.until_heard(2)
        assert [event.data["number"] for event in listener.heard] == [1, 2]
        assert listener.connections == 1
        await listener.stop()
        server.stop()
    finally:
        postgres.remove()


def _fill(path: Path) -> None:
    """Write until the disk has no room."""
    with path.open("wb") as file:
        try:
            while True:
                file.write(bytes(BALLAST_BYTES))
                file.flush()
        except OSError:
            return
