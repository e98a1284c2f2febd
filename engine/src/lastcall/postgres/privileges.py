"""Roles and what they are given, beyond the SQL of engine and applications.

    owner                    migrations; owns everything; need not be a superuser
    lastcall_authenticator   the pool's login; may only become anon, member or service
    lastcall_replication     the feed's login
    anon, member, service    what a token's role is; no logins

Promises:

* What only a superuser can give is one script, sql/privileges.sql. `grant` runs it; `missing` says what is still
  lacking and is the same list that `doctor` shows.
* The two logins get the passwords derived from the token secret, but only when they do not have them already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from lastcall.config import Config
from lastcall.errors import StartRefused
from lastcall.postgres.logins import AUTHENTICATOR, REPLICATION, TOKEN_ROLES, login, password

SCRIPT = Path(__file__).parent.parent / "sql" / "privileges.sql"
CONNECT_WAIT_MAX_S = 5
RETRIES_MAX = 20

Connection = psycopg.AsyncConnection[Any]


async def is_superuser(connection: Connection) -> bool:
    """Whether the login is a superuser."""
    row = await (await connection.execute("select rolsuper from pg_roles where rolname = current_user")).fetchone()
    return bool(row and row[0])


async def grant(connection: Connection) -> None:
    """Give what this login can give. What it cannot is left to `missing`."""
    await connection.execute(SCRIPT.read_bytes())


async def missing(connection: Connection) -> list[str]:
    """What a superuser still has to give before `migrate` can run; sentences."""
    found: list[str] = []
    cursor = await connection.execute("select rolname, rolreplication, rolcanlogin from pg_roles")
    roles = {name: (replication, can_login) for name, replication, can_login in await cursor.fetchall()}
    found += [f"there is no role {name}" for name in (*TOKEN_ROLES, AUTHENTICATOR, REPLICATION) if name not in roles]
    if not found:
        found += [f"the role {name} cannot log in" for name in (AUTHENTICATOR, REPLICATION) if not roles[name][1]]
        if not roles[REPLICATION][0]:
            found.append(f"the role {REPLICATION} has no REPLICATION attribute")
        cursor = await connection.execute(
            "select role from unnest(%s::text[]) role where not pg_has_role(%s, role, 'member')",
            [list(TOKEN_ROLES), AUTHENTICATOR],
        )
        found += [f"{AUTHENTICATOR} is no member of {role}" for (role,) in await cursor.fetchall()]
    cursor = await connection.execute("select has_database_privilege(current_database(), 'create')")
    row = await cursor.fetchone()
    if not row or not row[0]:
        found.append("the owner may not create schemas in this database")
    return found


async def set_passwords(connection: Connection, config: Config, owner_url: str) -> list[str]:
    """Give both logins their derived passwords where they do not work yet; the roles changed.

    Raises StartRefused where that is needed and the owner may not.
    """
    changed = []
    for role, configured in ((AUTHENTICATOR, config.authenticator_url), (REPLICATION, config.replication_url)):
        if configured or await _logs_in(owner_url, role, password(config, role)):
            continue
        await _set_password(connection, role, password(config, role))
        changed.append(role)
    return changed


async def _logs_in(owner_url: str, role: str, secret: str) -> bool:
    try:
        async with await psycopg.AsyncConnection.connect(
            login(owner_url, role, secret), connect_timeout=CONNECT_WAIT_MAX_S
        ):
            return True
    except psycopg.OperationalError:
        return False


async def _set_password(connection: Connection, role: str, secret: str) -> None:
    """The verifier is made here, so that the password itself never reaches the server's log."""
    verifier = connection.pgconn.encrypt_password(secret.encode(), role.encode(), b"scram-sha-256").decode()
    statement = sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(verifier))
    for attempt in range(RETRIES_MAX):
        try:
            await connection.execute(statement)
            return
        except psycopg.errors.InsufficientPrivilege as error:
            raise StartRefused(
                f"the owner may not set the password of {role} ({error.diag.message_primary}): from PostgreSQL 16 on "
                f"it may after a superuser has run {SCRIPT}; on 15 a superuser sets the password, and you name the "
                f"login in LASTCALL_{role.removeprefix('lastcall_').upper()}_URL"
            ) from None
        except psycopg.errors.InternalError_:
            # "tuple concurrently updated": roles belong to the cluster, and another database is being migrated.
            if attempt == RETRIES_MAX - 1:
                raise


def advice(lacking: Sequence[str], owner: str, database: str) -> str:
    """What to tell the operator about what `missing` found."""
    return (
        f"the database {database} is not prepared for lastcall: {'; '.join(lacking)}. A superuser runs once, in that "
        f"database: SELECT set_config('lastcall.owner', '{owner}', false); and then the file {SCRIPT}"
    )
