"""`migrate`: the database becomes what engine and applications need, or says why it cannot.

Promises:

* Migrations are applied once, in order, in a transaction each, and are frozen by their hash from then on.
* Routines are re-applied when they changed, all of one source in one transaction: a running node sees the old set or
  the new one. What a changed or removed routine file leaves behind (an overload with other arguments) is dropped.
* One at a time: an advisory lock makes a second `migrate` wait, then find nothing to do. Repeating it changes nothing.
* Afterwards every table of the sources has row-level security on; else nothing is kept and the table is named.
* Refusals are StartRefused and name the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from lastcall.config import Config
from lastcall.errors import StartRefused
from lastcall.postgres import privileges
from lastcall.postgres.logins import login_refused
from lastcall.postgres.sources import ENGINE, Application, File, Source, query, sources_of

VERSION_MIN = 150000
LOCK_WAIT_MAX_S = 60
LOCK_KEY = 0x6C617374_63616C6C
"""`lastcall` in ASCII; advisory locks are per database."""

Progress = Callable[[str], None]
Connection = psycopg.AsyncConnection[Any]


class Report(msgspec.Struct, frozen=True):
    """What `migrate` did: `source/name` of migrations and routines, roles with a new password, sentences to show."""

    migrations: tuple[str, ...] = ()
    routines: tuple[str, ...] = ()
    passwords: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.migrations or self.routines or self.passwords)


def _silent(_: str) -> None:
    """Progress that nobody asked for."""


async def migrate(owner_url: str, apps: Sequence[Application], config: Config, progress: Progress = _silent) -> Report:
    """Bring the database up to date. Raises StartRefused with what to do."""
    sources = sources_of(apps)
    async with await owner_connection(owner_url) as connection:
        await _check_server(connection)
        await _lock(connection, progress)
        await _prepare(connection)
        migrations: list[str] = []
        routines: list[str] = []
        for source in sources:
            await _prepare_schemas(connection, source)
            migrations += await _apply_migrations(connection, source, progress)
            routines += await _apply_routines(connection, source, progress)
        notes = await _choose_path(connection)
        passwords = await privileges.set_passwords(connection, config, owner_url)
        for line in (*(f"password of {role}" for role in passwords), *notes):
            progress(line)
    return Report(tuple(migrations), tuple(routines), tuple(passwords), tuple(notes))


async def owner_connection(owner_url: str) -> Connection:
    try:
        return await psycopg.AsyncConnection.connect(
            owner_url, autocommit=True, connect_timeout=privileges.CONNECT_WAIT_MAX_S
        )
    except psycopg.OperationalError as error:
        raise login_refused(owner_url, error) from None


async def pending(connection: Connection, apps: Sequence[Application]) -> list[str]:
    """`source/name` of every migration and routine that `migrate` would apply; raises StartRefused as it would."""
    waiting: list[str] = []
    for source in sources_of(apps):
        waiting += [f"{source.name}/{file.name}" for file in await _new_migrations(connection, source)]
        known = await _routines_known(connection, source)
        waiting += [f"{source.name}/{file.name}" for file in source.routines if known.get(file.name) != file.hash]
    return waiting


async def _check_server(connection: Connection) -> None:
    info = connection.info
    if info.server_version < VERSION_MIN:
        raise StartRefused(f"PostgreSQL {info.server_version // 10000} is too old: lastcall needs 15 or newer")
    if info.parameter_status("server_encoding") != "UTF8":
        raise StartRefused(f"the database {info.dbname} is not in UTF-8: create one with ENCODING 'UTF8'")
    if info.parameter_status("in_hot_standby") == "on":
        raise StartRefused("this is a standby: name the primary in LASTCALL_DATABASE_URL")


async def _lock(connection: Connection, progress: Progress) -> None:
    """Held by the session, so that it ends with us however we end."""
    row = await (await connection.execute("select pg_try_advisory_lock(%s)", [LOCK_KEY])).fetchone()
    if row and row[0]:
        return
    progress("waiting for another migration")
    try:
        async with connection.transaction():
            await connection.execute(sql.SQL("set local lock_timeout = {}").format(f"{LOCK_WAIT_MAX_S}s"))
            await connection.execute("select pg_advisory_lock(%s)", [LOCK_KEY])
    except psycopg.errors.LockNotAvailable:
        raise StartRefused(f"another migration of this database has been running for {LOCK_WAIT_MAX_S} s") from None


async def _prepare(connection: Connection) -> None:
    if await privileges.is_superuser(connection) or await privileges.missing(connection):
        await privileges.grant(connection)
    lacking = await privileges.missing(connection)
    if lacking:
        raise StartRefused(privileges.advice(lacking, connection.info.user, connection.info.dbname))


async def _prepare_schemas(connection: Connection, source: Source) -> None:
    """The source's schemas, with the default that a new function may be called by no one until it is granted."""
    async with connection.transaction():
        await connection.execute("alter default privileges revoke execute on functions from public")
        for schema in source.schemas:
            name = sql.Identifier(schema)
            await connection.execute(sql.SQL("create schema if not exists {}").format(name))
            await connection.execute(sql.SQL("revoke all on schema {} from public").format(name))
        exposed = sql.Identifier(source.schemas[-1])
        await connection.execute(sql.SQL("grant usage on schema {} to anon, member, service").format(exposed))
        if source.name == ENGINE:
            await connection.execute(
                sql.SQL("grant usage on schema {} to lastcall_authenticator, lastcall_replication").format(exposed)
            )


async def _new_migrations(connection: Connection, source: Source) -> list[File]:
    """Those not applied yet. Raises StartRefused where what was applied is not what the files say."""
    known: dict[str, str] = {}
    if await _exists(connection, "lastcall.migration"):
        cursor = await connection.execute("select name, hash from lastcall.migration where source = %s", [source.name])
        known = dict(await cursor.fetchall())
    files = {file.name: file for file in source.migrations}
    for name, hash_applied in sorted(known.items()):
        if name not in files:
            raise StartRefused(
                f"the database knows the migration {source.name}/{name}, this installation does not: it is older than "
                f"the database; install the newer one"
            )
        if files[name].hash != hash_applied:
            raise StartRefused(
                f"the migration {source.name}/{name} was changed after it was applied: restore it, and put the change "
                f"into a new migration"
            )
    new = [file for file in source.migrations if file.name not in known]
    if new and known and new[0].name < max(known):
        raise StartRefused(
            f"the migration {source.name}/{new[0].name} comes before {max(known)}, which is applied already"
        )
    return new


async def _apply_migrations(connection: Connection, source: Source, progress: Progress) -> list[str]:
    done = []
    for file in await _new_migrations(connection, source):
        progress(f"migration {source.name}/{file.name}")
        async with connection.transaction():
            await _run(connection, source, file)
            await connection.execute(
                "insert into lastcall.migration (source, name, hash) values (%s, %s, %s)",
                [source.name, file.name, file.hash],
            )
            await _check_row_security(connection, source, file)
        done.append(f"{source.name}/{file.name}")
    return done


async def _routines_known(connection: Connection, source: Source) -> dict[str, str]:
    if not await _exists(connection, "lastcall.routine"):
        return {}
    cursor = await connection.execute("select name, hash from lastcall.routine where source = %s", [source.name])
    return dict(await cursor.fetchall())


async def _apply_routines(connection: Connection, source: Source, progress: Progress) -> list[str]:
    """Re-apply the changed files, then drop what changed and removed files had made and no file makes any more."""
    known = await _routines_known(connection, source)
    changed = [file for file in source.routines if known.get(file.name) != file.hash]
    removed = sorted(set(known) - {file.name for file in source.routines})
    if not changed and not removed:
        return []
    async with connection.transaction():
        cursor = await connection.execute(
            "select unnest(objects) from lastcall.routine where source = %s and name = any(%s)",
            [source.name, [*removed, *(file.name for file in changed)]],
        )
        before = [row[0] for row in await cursor.fetchall()]
        # A body may name a routine of a later file; all are checked when all are there.
        await connection.execute("set local check_function_bodies = off")
        for file in changed:
            progress(f"routine {source.name}/{file.name}")
            await _apply_routine(connection, source, file)
        await connection.execute(
            "delete from lastcall.routine where source = %s and name = any(%s)", [source.name, removed]
        )
        await _drop_leftovers(connection, source, before)
        await _check_bodies(connection, source)
    return [f"{source.name}/{file.name}" for file in changed] + [f"{source.name}/{name}" for name in removed]


async def _apply_routine(connection: Connection, source: Source, file: File) -> None:
    objects = await _objects(connection, source)
    await _run(connection, source, file)
    made = sorted({name for name, _ in await _objects(connection, source) - objects})
    await connection.execute(
        "insert into lastcall.routine (source, name, hash, objects) values (%s, %s, %s, %s) "
        "on conflict (source, name) do update "
        "set hash = excluded.hash, objects = excluded.objects, applied_at = clock_timestamp()",
        [source.name, file.name, file.hash, made],
    )


async def _objects(connection: Connection, source: Source) -> set[tuple[str, str]]:
    cursor = await connection.execute(query("objects"), {"schemas": list(source.schemas)})
    return set(await cursor.fetchall())


async def _drop_leftovers(connection: Connection, source: Source, before: Sequence[str]) -> None:
    cursor = await connection.execute("select unnest(objects) from lastcall.routine")
    kept = {row[0] for row in await cursor.fetchall()}
    existing = {name for name, _ in await _objects(connection, source)}
    for name in before:
        if name in existing and name not in kept:
            # The text is the catalogue's own identity of the object, quoted by PostgreSQL.
            try:
                await connection.execute(f"drop {name}".encode())
            except psycopg.errors.DependentObjectsStillExist as error:
                raise StartRefused(
                    f"{source.name} no longer has a routine that makes {name}, but something uses it: "
                    f"{error.diag.message_detail or ''}"
                ) from None


async def _check_bodies(connection: Connection, source: Source) -> None:
    """Have each language check its routines as it would have at their creation."""
    await connection.execute("set local check_function_bodies = on")
    cursor = await connection.execute(query("validators"), {"source": source.name, "schemas": list(source.schemas)})
    for name, oid, validator in await cursor.fetchall():
        try:
            await connection.execute(sql.SQL("select {}(%s)").format(sql.SQL(validator)), [oid])
        except psycopg.ProgrammingError as error:
            raise _file_refused(source, name or "?", "", error) from error


async def _run(connection: Connection, source: Source, file: File) -> None:
    try:
        await connection.execute(file.text.encode())
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise _file_refused(source, file.name, file.text, error) from error


def _file_refused(source: Source, name: str, text: str, error: psycopg.Error) -> StartRefused:
    """The file, the line where PostgreSQL tells it, its words and its hint."""
    diagnosis = error.diag
    place = ""
    if text and diagnosis.statement_position:
        place = f" line {1 + text[: int(diagnosis.statement_position) - 1].count(chr(10))}"
    hint = f" ({diagnosis.message_hint})" if diagnosis.message_hint else ""
    context = f" in {diagnosis.context}" if diagnosis.context else ""
    return StartRefused(f"{source.name}/{name}{place}: {diagnosis.message_primary or error}{context}{hint}")


async def _check_row_security(connection: Connection, source: Source, file: File) -> None:
    cursor = await connection.execute(query("without_row_security"), {"schemas": list(source.schemas)})
    open_tables = [row[0] for row in await cursor.fetchall()]
    if open_tables:
        raise StartRefused(
            f"{source.name}/{file.name} leaves {', '.join(open_tables)} without row-level security: add "
            f"`alter table … enable row level security` right after `create table`"
        )


async def _choose_path(connection: Connection) -> list[str]:
    row = await (await connection.execute("select lastcall.choose_path()")).fetchone()
    if row and row[0]:
        return []
    return [
        "every role of this database may emit messages into the log (pg_logical_emit_message), so publish goes through "
        "a table, which is slower; a superuser can run sql/privileges.sql to change that"
    ]


async def _exists(connection: Connection, table: str) -> bool:
    row = await (await connection.execute("select to_regclass(%s) is not null", [table])).fetchone()
    return bool(row and row[0])
