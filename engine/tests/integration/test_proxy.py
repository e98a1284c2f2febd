"""The fault proxy and the fixtures that other tests stand on do what they say."""

from __future__ import annotations

import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from lastcall.testing.fixtures import Database, Databases
from lastcall.testing.postgres_server import sweep
from lastcall.testing.proxy import FaultProxy
from lastcall.testing.waiting import eventually, eventually_async

QUIET_S = 0.2
"""How long a peer is watched that must hear nothing."""


class _Echo(socketserver.BaseRequestHandler):
    """Sends back what it gets; says `end` when the other side has finished."""

    def handle(self) -> None:
        try:
            while chunk := self.request.recv(1024):
                self.request.sendall(chunk)
            self.request.sendall(b"end")
        except OSError:
            return


@pytest.fixture
def proxy(make_proxy: Callable[[int], FaultProxy]) -> Iterator[FaultProxy]:
    """A proxy in front of an echo server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield make_proxy(server.server_address[1])
        server.shutdown()


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    """A connection through the proxy that has been used."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(b"hello")
        assert connection.recv(1024) == b"hello"
        yield connection


def hears_nothing(connection: socket.socket) -> bool:
    connection.settimeout(QUIET_S)
    try:
        connection.recv(1024)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(10)
    return False


def test_pass_and_count(proxy: FaultProxy, client: socket.socket) -> None:
    """Bytes go through and are counted; the end of one side reaches the other."""
    assert (proxy.connections_total, proxy.open_connections) == (1, 1)
    eventually(lambda: (proxy.bytes_to_server, proxy.bytes_to_client) == (5, 5))
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1024) == b"end"
    eventually(lambda: proxy.open_connections == 0)


def test_delay(proxy: FaultProxy, client: socket.socket) -> None:
    """Delayed bytes come, later."""
    proxy.fault("delay", QUIET_S)
    client.sendall(b"late")
    assert client.recv(1024) == b"late"


def test_drop(proxy: FaultProxy, client: socket.socket) -> None:
    """Dropped bytes never come, not even after healing; later ones do."""
    proxy.fault("drop")
    client.sendall(b"lost")
    assert hears_nothing(client)
    proxy.heal()
    client.sendall(b"found")
    assert client.recv(1024) == b"found"


def test_stall(proxy: FaultProxy, client: socket.socket) -> None:
    """Stalled bytes wait until healing."""
    proxy.fault("stall")
    client.sendall(b"held")
    assert hears_nothing(client)
    proxy.heal()
    assert client.recv(1024) == b"held"


def test_half_close(proxy: FaultProxy, client: socket.socket) -> None:
    """The server sees the end of the client, whose other direction stays open."""
    proxy.fault("half_close")
    assert client.recv(1024) == b"end"


def test_half_open(proxy: FaultProxy, client: socket.socket) -> None:
    """The client sees the end of the server, while its own direction stays open."""
    proxy.fault("half_open")
    assert client.recv(1024) == b""
    client.sendall(b"still heard")
    eventually(lambda: proxy.bytes_to_server == len(b"hello") + len(b"still heard"))


def test_cut_and_refuse(proxy: FaultProxy, client: socket.socket) -> None:
    """A cut resets what is open and lets new connections through; refusing resets new ones and leaves what is open."""
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1024)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as second:
        second.sendall(b"again")
        assert second.recv(1024) == b"again"
        proxy.fault("refuse")
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as third, pytest.raises(ConnectionError):
            third.sendall(b"?")
            if third.recv(1024) == b"":
                raise ConnectionResetError
        second.sendall(b"still")
        assert second.recv(1024) == b"still"


def test_database_is_fresh(database: Database, databases: Databases) -> None:
    """Each test has a database of its own; a second one in the same test shares nothing with it."""
    other = databases.create()
    database.execute("create table public.mine ()")
    assert other.execute("select to_regclass('public.mine')") == [(None,)]
    assert other.config.slot != database.config.slot


def test_everything_is_dropped(databases: Databases) -> None:
    """Slots in use, prepared transactions and open connections do not keep a database from being dropped."""
    database = databases.create()
    reader = psycopg.connect(database.replication_url + " replication=database", autocommit=True)
    reader.execute(f"CREATE_REPLICATION_SLOT {database.name} LOGICAL pgoutput".encode())
    options = "(proto_version '1', publication_names 'x')"
    reader.pgconn.send_query(f"START_REPLICATION SLOT {database.name} LOGICAL 0/0 {options}".encode())
    eventually(
        lambda: database.execute("select active from pg_replication_slots where slot_name = %s", [database.name])
    )
    with database.connect(autocommit=False) as writer:
        writer.execute("create table public.mine ()")
        writer.execute(f"prepare transaction '{database.name}'".encode())
        databases.drop_all()
    with database.server.connect() as superuser:
        row = superuser.execute("select count(*) from pg_database where datname = %s", [database.name]).fetchone()
        assert row == (0,)
        assert superuser.execute("select count(*) from pg_prepared_xacts").fetchone() == (0,)
    reader.close()


def test_killed_run_is_swept() -> None:
    """The server of a test run that was killed is stopped and removed by the next run; one whose run lives is not."""
    program = (
        "from lastcall.testing.postgres_server import PostgresServer\n"
        "import sys\nprint(PostgresServer().start().folder, flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        folder = Path(run.stdout.readline().strip())
        sweep()
        assert (folder / "postgres" / "postmaster.pid").exists()
        pid = int((folder / "postgres" / "postmaster.pid").read_text().split()[0])
        run.kill()
    sweep()
    assert not folder.exists()
    eventually(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())


async def test_waiting_is_bounded() -> None:
    """A condition that never holds ends the test with what was seen last."""
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: the moon, last 0"):
        eventually(lambda: 0, 0.05, what="the moon")
    with pytest.raises(AssertionError, match="last False"):
        await eventually_async(lambda: False, 0.05)
