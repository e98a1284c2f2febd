"""The embedded PostgreSQL: the wheel's binaries on a data folder of our own, so that nothing has to be installed.

    {data}/postgres.json   where the cluster lies, its passwords, what it was started with; for the server's user alone
    {data}/postgres.lock   held while a server uses the folder; holds its process number
    {data}/postgres/       the cluster; or, where PostgreSQL's account cannot reach the data folder (we are root, and it
                           lies below /root), /var/lib/lastcall/{key}/postgres with the key of the data folder's path

Promises:

* `start()` returns the owner's connection string; the first time it makes the cluster, later it takes about a second.
* One server per data folder: a second one is refused and told the first one's process number.
* The database outlives a `kill -9` of the server; the next start finds it and goes on with it.
* A Ctrl-C in the terminal does not reach the database; `stop()` shuts it down within `STOP_WAIT_MAX_S` and a moment.
* The owner is no superuser: it is what sql/privileges.sql makes it. Connections need a password everywhere (SCRAM).
* No folder that was there before has its permissions changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from lastcall.errors import StartRefused
from lastcall.postgres import installation
from lastcall.postgres.cluster import Cluster, Postmaster
from lastcall.postgres.installation import Account, make_folder
from lastcall.postgres.privileges import SCRIPT

OWNER: Final = "lastcall_owner"
SUPERUSER: Final = "postgres"
DATABASE: Final = "lastcall"
STOP_WAIT_MAX_S = 2.5
SOCKET_FOLDER_MAX_BYTES = 80
"""A socket's whole path has to fit into 107 bytes (sockaddr_un)."""

PORT_ATTEMPTS_MAX = 3

SETTINGS: Final[dict[str, str]] = {
    "wal_level": "logical",
    "max_slot_wal_keep_size": "2GB",
    "max_wal_size": "1GB",
    "max_replication_slots": "8",
    "max_wal_senders": "8",
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
}
"""lastcall's own; an operator's go into `local.conf` in the cluster's folder, which wins."""

ACCESS: Final = (
    "local all all scram-sha-256",
    "host all all 127.0.0.1/32 scram-sha-256",
    "local replication all scram-sha-256",
    "host replication all 127.0.0.1/32 scram-sha-256",
)


class _Record(msgspec.Struct, kw_only=True):
    """`postgres.json`."""

    place: str | None = None
    port: int = 0
    superuser_password: str
    owner_password: str
    started_with: str = ""
    prepared_with: str = ""


def running_url(data: Path) -> str | None:
    """The owner's connection string of the database that runs now in this data folder; None when none does. It takes no
    lock: for tools beside a server."""
    record = _read_record(data / "postgres.json")
    if record is None:
        return None
    folder = Path(record.place) if record.place else data.absolute() / "postgres"
    running = Cluster(installation.bundled(), folder, None).running()
    return None if running is None else _url(running, DATABASE, OWNER, record.owner_password)


class Embedded:
    """The database of one data folder. One service life: start, stop; a second stop is harmless."""

    def __init__(self, data: Path, progress: Callable[[str], None] = lambda _: None) -> None:
        self.data = data.absolute()
        self._progress = progress
        self._locks: list[int] = []
        self._cluster: Cluster | None = None
        self._record_path = self.data / "postgres.json"

    def start(self) -> str:
        """Make, find or start the database. The owner's connection string. Raises StartRefused."""
        try:
            make_folder(self.data, 0o711)
            self._lock(self.data / "postgres.lock")
            return self._start()
        except OSError as error:
            self._unlock()
            raise StartRefused(f"the data folder {self.data} cannot be used: {error.strerror or error}") from None
        except BaseException:
            self._unlock()
            raise

    def stop(self) -> None:
        """Shut the database down: everyone is disconnected, everything is written."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.stop("fast", wait_max_s=STOP_WAIT_MAX_S)
        self._unlock()

    def _start(self) -> str:
        record = _read_record(self._record_path)
        cluster, record = self._settle(record)
        if not cluster.exists:
            self._progress(f"making the database in {cluster.folder}")
            cluster.create(SUPERUSER, record.superuser_password)
        running = self._adopt(cluster, record) or self._launch(cluster, record)
        self._prepare(cluster, record, running)
        self._cluster = cluster
        return _url(running, DATABASE, OWNER, record.owner_password)

    def _write_record(self, record: _Record) -> None:
        scratch = self._record_path.with_name(".postgres.json.new")
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(record), indent=2))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._record_path)

    def _settle(self, record: _Record | None) -> tuple[Cluster, _Record]:
        """Decide where the cluster lies and who runs it, or keep to what was decided before."""
        folder = Path(record.place) if record and record.place else self.data / "postgres"
        owner_uid = folder.stat().st_uid if folder.exists() else None
        account = installation.account(owner_uid)
        if account is None and owner_uid not in {None, os.geteuid()}:
            raise StartRefused(
                f"{folder} belongs to another account ({owner_uid}): start the server as that one or root"
            )
        if record is None:
            if folder.exists() and any(folder.iterdir()):
                raise StartRefused(
                    f"{self._record_path} is missing, so nobody knows the passwords of {folder}: restore it"
                )
            folder = self._choose_place(account)
            place = str(folder) if folder.parent != self.data else None
            record = _Record(
                place=place, superuser_password=secrets.token_urlsafe(32), owner_password=secrets.token_urlsafe(32)
            )
            self._write_record(record)
        if record.place:
            make_folder(folder.parent, 0o711)
            self._lock(folder.parent / "postgres.lock")
        return Cluster(installation.reachable(installation.bundled(), account), folder, account), record

    def _choose_place(self, account: Account | None) -> Path:
        if account is None or installation.can_enter(self.data, account):
            return self.data / "postgres"
        key = hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:12]
        return installation.PRIVATE_ROOT / key / "postgres"

    def _adopt(self, cluster: Cluster, record: _Record) -> Postmaster | None:
        """A database that a killed server left behind goes on, unless it runs other binaries or other settings."""
        running = cluster.running()
        if running is None:
            return None
        if record.started_with == _fingerprint(cluster):
            self._progress(f"found the database running (process {running.pid})")
            return running
        cluster.stop("fast")
        return None

    def _launch(self, cluster: Cluster, record: _Record) -> Postmaster:
        for attempt in range(1, PORT_ATTEMPTS_MAX + 1):
            if not _is_free(record.port):
                record.port = _free_port()
            place = {"port": str(record.port), "unix_socket_directories": str(self._socket_folder(cluster))}
            cluster.configure(SETTINGS | place, ACCESS)
            record.started_with = _fingerprint(cluster)
            self._write_record(record)
            try:
                return cluster.start()
            except StartRefused:
                if attempt == PORT_ATTEMPTS_MAX or _is_free(record.port):
                    raise
        raise AssertionError("the loop returns or raises")

    def _socket_folder(self, cluster: Cluster) -> Path:
        """The cluster's own folder, which only its account enters; a short private one where that path is too long."""
        if len(os.fsencode(cluster.folder)) <= SOCKET_FOLDER_MAX_BYTES:
            return cluster.folder
        key = hashlib.sha256(os.fsencode(cluster.folder)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"lastcall-{key}"
        uid = os.geteuid() if cluster.account is None else cluster.account.uid
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if cluster.account is not None:
                os.chown(folder, uid, cluster.account.gid)
        if folder.is_symlink() or folder.stat().st_uid != uid:
            raise StartRefused(f"{folder}, where the database's socket is to lie, belongs to somebody else: remove it")
        return folder

    def _prepare(self, cluster: Cluster, record: _Record, running: Postmaster) -> None:
        """The owner, its database, and what only a superuser can give; again when the script has changed."""
        script = SCRIPT.read_bytes()
        wanted = hashlib.sha256(script).hexdigest()
        if record.prepared_with == wanted:
            return
        try:
            with _connect(running, "postgres", record.superuser_password) as connection:
                _ensure_owner(connection, record.owner_password)
            with _connect(running, DATABASE, record.superuser_password) as connection:
                connection.execute("select set_config('lastcall.owner', %s, false)", [OWNER])
                connection.execute(script)
        except psycopg.Error as error:
            raise StartRefused(f"the database in {cluster.folder} cannot be prepared: {error}") from None
        record.prepared_with = wanted
        self._write_record(record)

    def _lock(self, path: Path) -> None:
        """Held until `_unlock` or our end, however we end; the kernel takes care of it."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise StartRefused(
                f"another server uses the data folder {self.data}: process {holder}. Stop it first, or name another "
                f"folder with --data"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._locks.append(handle)

    def _unlock(self) -> None:
        while self._locks:
            os.close(self._locks.pop())


def _read_record(path: Path) -> _Record | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Record)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartRefused(f"{path} cannot be read ({error.strerror}): only the server's account may") from None
    except msgspec.DecodeError:
        raise StartRefused(f"{path} is damaged: restore it from a backup") from None


def _fingerprint(cluster: Cluster) -> str:
    """Changes with the binaries and with what lastcall sets."""
    return hashlib.sha256(
        f"{cluster.installation.version} {cluster.installation.bin} {sorted(SETTINGS.items())} {ACCESS}".encode()
    ).hexdigest()


def _ensure_owner(connection: psycopg.Connection[tuple[object, ...]], password: str) -> None:
    owner, database = sql.Identifier(OWNER), sql.Identifier(DATABASE)
    verifier = connection.pgconn.encrypt_password(password.encode(), OWNER.encode(), b"scram-sha-256").decode()
    if not connection.execute("select from pg_roles where rolname = %s", [OWNER]).fetchone():
        connection.execute(sql.SQL("create role {} createrole replication").format(owner))
    connection.execute(sql.SQL("alter role {} login password {}").format(owner, sql.Literal(verifier)))
    if not connection.execute("select from pg_database where datname = %s", [DATABASE]).fetchone():
        connection.execute(sql.SQL("create database {} owner {}").format(database, owner))


def _connect(running: Postmaster, database: str, password: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(_url(running, database, SUPERUSER, password), autocommit=True, connect_timeout=10)


def _url(running: Postmaster, database: str, user: str, password: str) -> str:
    return make_conninfo(
        "", host=running.socket_folder, port=running.port, dbname=database, user=user, password=password
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
