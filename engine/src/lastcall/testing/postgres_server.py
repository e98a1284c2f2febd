"""A real PostgreSQL for tests: one that can be started, stopped, crashed and restarted at will.

`LASTCALL_TEST_POSTGRES` chooses which: `18` (default) and `16` of the wheel, `15` of Debian, or a folder of binaries.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from lastcall.config import checked
from lastcall.postgres import installation
from lastcall.postgres.cluster import Cluster, Mode
from lastcall.postgres.logins import REPLICATION, password
from lastcall.postgres.privileges import SCRIPT
from lastcall.testing.waiting import eventually, free_port

SUPERUSER = "postgres"
OWNER = "lastcall_owner"
PASSWORD = "lastcall-test"  # noqa: S105 (a test database on the loopback interface)
TEST_SECRET = "a secret for tests, long enough to sign"  # noqa: S105
VARIABLE = "LASTCALL_TEST_POSTGRES"

FAST: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}
"""Settings where durability is not what is tested. A clean stop or a killed postmaster loses nothing even so; commits
still wait for the log to be flushed, as decoding does."""

DURABLE: Mapping[str, str] = {"fsync": "on", "full_page_writes": "on"}

BASE: Mapping[str, str] = {
    "wal_level": "logical",
    "max_slot_wal_keep_size": "256MB",
    "max_prepared_transactions": "16",
    "max_replication_slots": "32",
    "max_wal_senders": "32",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "min_wal_size": "80MB",
    "autovacuum": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
}


_PREFIX = "lastcall-test-"
_OWNER_PID = "owner.pid"


def sweep() -> None:
    """Stop and remove the servers of test runs that were killed: a postmaster outlives whoever started it."""
    account = installation.account()
    uid = os.geteuid() if account is None else account.uid
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            pid = int((folder / _OWNER_PID).read_text(encoding="ascii"))
            ours = folder.lstat().st_uid == uid and not Path(f"/proc/{pid}").exists()
        except (OSError, ValueError):
            continue
        if ours:
            Cluster(chosen_installation(), folder / "postgres", account).stop("immediate")
            shutil.rmtree(folder, ignore_errors=True)


def chosen_installation(choice: str | None = None) -> installation.Installation:
    """The PostgreSQL that `choice` (or the environment) names."""
    choice = choice or os.environ.get(VARIABLE) or str(installation.BUNDLED_MAJOR)
    if not choice.isdigit():
        return installation.at(Path(choice))
    if int(choice) in {16, 18}:
        return installation.bundled(int(choice))
    return installation.at(Path(f"/usr/lib/postgresql/{choice}/bin"))


class PostgresServer:
    """One PostgreSQL on 127.0.0.1 and a Unix socket, with a data folder of its own.

    settings: beyond BASE and FAST; pass DURABLE for a server that must survive a crash of its machine.
    choice: as in LASTCALL_TEST_POSTGRES.
    folder: where the cluster `postgres` lies or is to be made; by default a new folder, which `remove()` deletes.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, choice: str | None = None, folder: Path | None = None
    ) -> None:
        account = installation.account()
        self.installation = installation.reachable(chosen_installation(choice), account)
        self.folder = folder or Path(tempfile.mkdtemp(prefix=_PREFIX))
        (self.folder / _OWNER_PID).write_text(str(os.getpid()), encoding="ascii")
        if account is not None:
            os.chown(self.folder, account.uid, account.gid)
        self.cluster = Cluster(self.installation, self.folder / "postgres", account)
        self.port = free_port()
        self.settings = {**BASE, **FAST, **(settings or {})}

    def start(self) -> PostgresServer:
        """Make the cluster when new, then start and wait until it takes connections."""
        fresh = not self.cluster.exists
        if fresh:
            self.cluster.create(SUPERUSER, PASSWORD, durable=False)
        self.configure()
        self.cluster.start()
        if fresh:
            self._prepare()
        return self

    def configure(self, **settings: str) -> None:
        """Write the settings; they hold from the next start."""
        self.settings |= settings
        place = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": str(self.folder)}
        if self.installation.major >= 18:
            place["io_method"] = "sync"
        kinds = ("local {} all", "host {} all 127.0.0.1/32")
        rules = [f"{kind.format(what)} scram-sha-256" for what in ("all", "replication") for kind in kinds]
        self.cluster.configure({**place, **self.settings}, rules)

    def stop(self, mode: Mode = "fast", *, wait_max_s: float = 20.0) -> None:
        """Shut down (`fast`, or `immediate` as in a crash) and wait for the end."""
        self.cluster.stop(mode, wait_max_s=wait_max_s)

    def kill(self) -> None:
        """`kill -9` of the postmaster."""
        self.cluster.kill()

    def restart(self, mode: Mode = "fast", **settings: str) -> None:
        """Stop and start again on the same port, with further settings."""
        self.stop(mode)
        self.configure(**settings)
        self.cluster.start()

    def remove(self) -> None:
        """Stop at once and delete everything."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.remove()

    def url(
        self, database: str = "postgres", user: str = SUPERUSER, password: str = PASSWORD, port: int | None = None
    ) -> str:
        """A connection URL over TCP; `port` names a proxy's."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{port or self.port}/{database}"

    def socket_url(self, database: str = "postgres", user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """The same over the Unix socket."""
        host = quote(str(self.folder), safe="")
        return f"postgresql://{user}:{quote(password, safe='')}@/{database}?host={host}&port={self.port}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A superuser's connection in autocommit."""
        return psycopg.connect(self.url(database), autocommit=True)

    def create_database(self, name: str, template: str = "template0") -> None:
        """A database that belongs to OWNER, who gets there what only a superuser can give."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                    sql.Identifier(name), sql.Identifier(template), sql.Identifier(OWNER)
                )
            )
        if template == "template0":
            self.grant_privileges(name)

    def grant_privileges(self, name: str) -> None:
        """Run sql/privileges.sql in database `name` for OWNER."""
        with self.connect(name) as connection:
            connection.execute("SELECT set_config('lastcall.owner', %s, false)", [OWNER])
            connection.execute(SCRIPT.read_bytes())
            if self.installation.major < 16:
                # Before 16 only a superuser sets the password of a role that replicates.
                secret = password(checked({"jwt_secret": TEST_SECRET}), REPLICATION)
                connection.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(REPLICATION), sql.Literal(secret))
                )

    def drop_database(self, name: str) -> None:
        """Drop it with its slots, prepared transactions and connections."""
        with self.connect() as connection:
            prepared = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", [name]).fetchall()
            if prepared:
                with self.connect(name) as inside:
                    for (gid,) in prepared:
                        inside.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
            slots = connection.execute(
                "SELECT slot_name FROM pg_replication_slots WHERE database = %s", [name]
            ).fetchall()
            for (slot,) in slots:
                _drop_slot(connection, str(slot))
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _prepare(self) -> None:
        """The owner is what an operator would make: no superuser."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB REPLICATION PASSWORD {}").format(
                    sql.Identifier(OWNER), sql.Literal(PASSWORD)
                )
            )


def _drop_slot(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    """End who holds the slot; a walsender that was told to end lets go of it a moment later."""

    def dropped() -> bool:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active", [name]
        )
        try:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
        except psycopg.errors.ObjectInUse:
            return False
        except psycopg.errors.UndefinedObject:
            return True
        return True

    eventually(dropped, what=f"slot {name} is let go")
