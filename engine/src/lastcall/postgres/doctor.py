"""The doctor: everything the server needs of its database and its machine, each with what to do where it is lacking.

Promises:

* `examine` changes nothing and takes no lock that others wait for; it needs the owner's login and no more.
* Every finding stands for itself: a check that cannot be made because an earlier one failed is left out.
* The checks are pure functions of facts; what they need of the database are the statements in sql/queries/doctor_*.sql.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import psycopg

from lastcall.config import Config
from lastcall.errors import StartRefused
from lastcall.postgres.logins import AUTHENTICATOR, REPLICATION, TOKEN_ROLES, Logins, login_refused, logins
from lastcall.postgres.migrate import VERSION_MIN, pending
from lastcall.postgres.sources import ENGINE, Application, query

CONNECT_WAIT_MAX_S: Final = 5
CLOCK_DIFFERENCE_MAX_S: Final = 1.0
RETAINED_SHARE_MAX: Final = 0.5
"""More log retained than this part of max_slot_wal_keep_size is a finding."""

FILES_SPARE: Final = 200
"""Descriptors of a node beside its listeners and its pool: log, database, applications' own connections."""

CONNECTIONS_SPARE: Final = 5
_ADVICE_SCRIPT = "a superuser runs sql/privileges.sql in this database (or `lastcall migrate` with a superuser's login)"


class Finding(msgspec.Struct, frozen=True):
    """One check.

    name: stable, lower-case.
    ok: whether it is as it should be.
    what: one sentence of what was found.
    remedy: what to do; empty when ok.
    """

    name: str
    ok: bool
    what: str
    remedy: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks look at. Mappings are the JSON of the statement of the same name.

    clock_difference_s: the database's clock minus ours.
    files_max: how many descriptors this process may have open (the soft limit after it was raised as far as it goes).
    refused: of each login that does not work, what the database said.
    """

    server: Mapping[str, Any]
    roles: Mapping[str, Any]
    emit: Sequence[str]
    tables: Mapping[str, Sequence[str]]
    functions: Mapping[str, Sequence[str]]
    pending: Sequence[str]
    refused: Mapping[str, str]
    clock_difference_s: float
    files_max: int
    config: Config

    def number(self, setting: str) -> int:
        """One of PostgreSQL's settings, in its own unit."""
        return int(self.server["settings"][setting])


async def examine(owner_url: str, config: Config, apps: Sequence[Application] = ()) -> list[Finding]:
    """Every check, in the order in which to read them."""
    try:
        connection = await psycopg.AsyncConnection.connect(
            owner_url, autocommit=True, connect_timeout=CONNECT_WAIT_MAX_S
        )
    except psycopg.OperationalError as error:
        return [Finding("connection", False, str(login_refused(owner_url, error)), "start it, or correct the URL")]
    async with connection:
        facts = await gather(connection, owner_url, config, apps)
    return [check(facts) for check in CHECKS if facts.server["migrated"] or check not in _AFTER_MIGRATION]


async def gather(
    connection: psycopg.AsyncConnection[Any], owner_url: str, config: Config, apps: Sequence[Application]
) -> Facts:
    """Ask the database and the machine."""
    before = time.time()
    server = await _ask(connection, "doctor_server", slot=config.slot)
    difference = float(server["clock"]) - (before + time.time()) / 2
    migrated = server["migrated"]
    schemas = await _schemas(connection) if migrated else []
    names = [*TOKEN_ROLES, AUTHENTICATOR, REPLICATION]
    try:
        waiting: Sequence[str] = await pending(connection, apps)
    except StartRefused as refusal:
        waiting = [str(refusal)]
    return Facts(
        server=server,
        roles=await _ask(connection, "doctor_roles", roles=names),
        emit=await _ask(connection, "doctor_emit"),
        tables=await _ask(connection, "doctor_tables", schemas=schemas),
        functions=await _ask(connection, "doctor_functions", schemas=schemas),
        pending=waiting,
        refused=await _refused(owner_url, config),
        clock_difference_s=difference,
        files_max=_files_max(),
        config=config,
    )


async def _ask(connection: psycopg.AsyncConnection[Any], name: str, **parameters: object) -> Any:
    row = await (await connection.execute(query(name), parameters or None)).fetchone()
    assert row is not None
    return row[0]


async def _schemas(connection: psycopg.AsyncConnection[Any]) -> list[str]:
    """The engine's schema, and the pair of each application that was ever migrated here."""
    cursor = await connection.execute("select distinct source from lastcall.migration where source <> %s", [ENGINE])
    sources = [row[0] for row in await cursor.fetchall()]
    return [ENGINE, *sources, *(f"{source}_api" for source in sources)]


async def _refused(owner_url: str, config: Config) -> dict[str, str]:
    try:
        found: Logins = logins(config, owner_url)
    except StartRefused as refusal:
        return {"jwt_secret": str(refusal)}
    refused = {}
    for role, url in ((AUTHENTICATOR, found.authenticator), (REPLICATION, found.replication)):
        try:
            async with await psycopg.AsyncConnection.connect(url, connect_timeout=CONNECT_WAIT_MAX_S):
                continue
        except psycopg.OperationalError as error:
            refused[role] = str(login_refused(url, error))
    return refused


def _files_max() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft, hard) if resource.RLIM_INFINITY not in (soft, hard) else 1 << 30


def check_version(facts: Facts) -> Finding:
    """PostgreSQL is new enough, a primary, and takes writes."""
    server = facts.server
    if server["version_num"] < VERSION_MIN:
        return Finding("version", False, f"PostgreSQL {server['version']} is too old", "upgrade to 15 or newer")
    if server["recovery"] or server["read_only"]:
        return Finding("version", False, "the database takes no writes (a standby?)", "name the primary")
    return Finding("version", True, f"PostgreSQL {server['version']}")


def check_encoding(facts: Facts) -> Finding:
    """The database is in UTF-8."""
    encoding = facts.server["encoding"]
    ok = encoding == "UTF8"
    return Finding("encoding", ok, f"the database is in {encoding}", "" if ok else "make one with ENCODING 'UTF8'")


def check_wal_level(facts: Facts) -> Finding:
    """The log carries what logical decoding needs."""
    level = facts.server["settings"]["wal_level"]
    ok = level == "logical"
    remedy = "" if ok else "ALTER SYSTEM SET wal_level = 'logical' and restart PostgreSQL"
    return Finding("wal_level", ok, f"wal_level is {level}", remedy)


def check_slots_free(facts: Facts) -> Finding:
    """There is a slot for us, or room for one."""
    most, used = facts.number("max_replication_slots"), facts.server["slots_used"]
    ok = facts.server["slot"] is not None or used < most
    remedy = "" if ok else "raise max_replication_slots and restart PostgreSQL, or drop a slot that nobody needs"
    return Finding("max_replication_slots", ok, f"{used} of {most} replication slots are taken", remedy)


def check_senders_free(facts: Facts) -> Finding:
    """There is a WAL sender for us."""
    most, used = facts.number("max_wal_senders"), facts.server["senders_used"]
    ok = used < most or _held(facts)
    remedy = "" if ok else "raise max_wal_senders and restart PostgreSQL"
    return Finding("max_wal_senders", ok, f"{used} of {most} WAL senders are taken", remedy)


def check_keep_size(facts: Facts) -> Finding:
    """A slot that nobody reads cannot fill the disk."""
    megabytes = facts.number("max_slot_wal_keep_size")
    if megabytes < 0:
        return Finding(
            "max_slot_wal_keep_size",
            False,
            "a slot that nobody reads keeps the log without bound, until the disk is full",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB' (a part of the free room) and SELECT pg_reload_conf()",
        )
    return Finding("max_slot_wal_keep_size", True, f"a slot keeps at most {megabytes} MB of log")


def _held(facts: Facts) -> bool:
    return bool(facts.server["slot"] and facts.server["slot"]["active"])


def check_slot(facts: Facts) -> Finding:
    """Our slot exists, here, and has not been invalidated."""
    slot, name = facts.server["slot"], facts.config.slot
    if slot is None:
        remedy = "start `lastcall serve`, which makes it (a new epoch: every listener fetches its state once)"
        return Finding("slot", False, f"there is no replication slot {name}", remedy)
    if not slot["here"]:
        remedy = "give this deployment a name of its own: LASTCALL_SLOT"
        return Finding("slot", False, f"the slot {name} belongs to the database {slot['database']}", remedy)
    if slot["wal_status"] in {"lost", "unreserved"}:
        remedy = "start `lastcall serve`, which begins a new epoch; then raise max_slot_wal_keep_size"
        return Finding("slot", False, f"the slot {name} has lost its log (wal_status {slot['wal_status']})", remedy)
    return Finding("slot", True, f"the slot {name} is {slot['wal_status']}")


def check_slot_active(facts: Facts) -> Finding:
    """A node reads the slot."""
    name = facts.config.slot
    if _held(facts):
        return Finding("slot_active", True, f"the slot {name} is read by process {facts.server['slot']['active_pid']}")
    remedy = "start `lastcall serve`; until then the log is kept for it"
    return Finding("slot_active", False, f"nobody reads the slot {name}", remedy)


def check_retained(facts: Facts) -> Finding:
    """The log kept for the slot is well below where PostgreSQL would give it up."""
    slot = facts.server["slot"]
    retained = int(slot["retained"] or 0) if slot else 0
    most = facts.number("max_slot_wal_keep_size") << 20
    if most > 0 and retained > RETAINED_SHARE_MAX * most:
        remedy = "see that `lastcall serve` runs and keeps up, or raise max_slot_wal_keep_size"
        return Finding("retained_bytes", False, f"{retained >> 20} MB of log are kept, of {most >> 20} MB", remedy)
    return Finding("retained_bytes", True, f"{retained >> 20} MB of log are kept for the slot")


def check_roles(facts: Facts) -> Finding:
    """Every role exists and has no more power than it needs."""
    wrong = [f"{name} is missing" for name in (*TOKEN_ROLES, AUTHENTICATOR, REPLICATION) if name not in facts.roles]
    for name, role in sorted(facts.roles.items()):
        wrong += [f"{name} has {power}" for power in role["powers"]]
        if role["login"] != (name not in TOKEN_ROLES):
            wrong.append(f"{name} {'may' if role['login'] else 'may not'} log in")
        if role["replication"] != (name == REPLICATION):
            wrong.append(f"{name} {'may' if role['replication'] else 'may not'} replicate")
    if AUTHENTICATOR in facts.roles and facts.roles[AUTHENTICATOR]["inherit"]:
        wrong.append(f"{AUTHENTICATOR} has INHERIT, so it acts as its members without becoming one")
    if wrong:
        return Finding(
            "roles", False, "; ".join(wrong), f"ALTER ROLE … to take or give it; where missing, {_ADVICE_SCRIPT}"
        )
    return Finding("roles", True, "all five roles are there, none with more power than it needs")


def check_memberships(facts: Facts) -> Finding:
    """The authenticator may become exactly the three roles of tokens, and those nobody else."""
    wanted = {AUTHENTICATOR: sorted(TOKEN_ROLES)}
    wrong = []
    for name, role in sorted(facts.roles.items()):
        may, should = set(role["member_of"]), set(wanted.get(name, []))
        wrong += [f"{name} is a member of {extra}" for extra in sorted(may - should)]
        wrong += [f"{name} is no member of {lacking}" for lacking in sorted(should - may)]
    if wrong:
        return Finding("memberships", False, "; ".join(wrong), f"REVOKE … FROM …; where lacking, {_ADVICE_SCRIPT}")
    return Finding("memberships", True, f"{AUTHENTICATOR} may become {', '.join(TOKEN_ROLES)} and nobody else")


def check_logins(facts: Facts) -> Finding:
    """Both logins of a node work."""
    if facts.refused:
        remedy = "run `lastcall migrate` with the same jwt_secret; see that pg_hba.conf lets both connect"
        return Finding("logins", False, "; ".join(facts.refused.values()), remedy)
    return Finding("logins", True, f"{AUTHENTICATOR} and {REPLICATION} can log in")


def check_owner(facts: Facts) -> Finding:
    """Who owns everything; a superuser works, and is more than is needed."""
    owner = facts.server["owner"]
    also = ", a superuser: more than is needed, as its functions run with its rights" if owner["superuser"] else ""
    return Finding("owner", True, f"the owner is {owner['name']}{also}")


def check_connections(facts: Facts) -> Finding:
    """PostgreSQL takes as many connections as the pool may open."""
    most = facts.number("max_connections") - facts.number("superuser_reserved_connections")
    needed = facts.config.pool_max + CONNECTIONS_SPARE
    ok = needed <= most
    remedy = "" if ok else "raise max_connections and restart PostgreSQL, or lower pool_max"
    return Finding("max_connections", ok, f"a node may open {needed} connections of {most}", remedy)


def check_durability(facts: Facts) -> Finding:
    """What was committed survives a crash of the machine, or listeners heard of what never was."""
    off = [name for name in ("fsync", "full_page_writes") if facts.server["settings"][name] != "on"]
    remedy = "ALTER SYSTEM SET … = on and SELECT pg_reload_conf(), unless the data can be thrown away" if off else ""
    return Finding("durability", not off, f"{', '.join(off)} off" if off else "commits survive a crash", remedy)


def check_clock(facts: Facts) -> Finding:
    """Tokens, quiet hours and the history window go by clocks that agree."""
    seconds = facts.clock_difference_s
    ok = abs(seconds) <= CLOCK_DIFFERENCE_MAX_S
    remedy = "" if ok else "let both machines keep time (chrony, systemd-timesyncd)"
    return Finding("clock", ok, f"the database's clock is {seconds:+.2f} s from this machine's", remedy)


def check_files(facts: Facts) -> Finding:
    """This process may open a file for every listener."""
    needed = facts.config.connections_max + facts.config.pool_max + FILES_SPARE
    ok = facts.files_max >= needed
    remedy = "" if ok else f"`ulimit -n {needed}` (systemd: LimitNOFILE={needed}), or lower connections_max"
    return Finding("file_limit", ok, f"{facts.files_max} open files are allowed, {needed} may be needed", remedy)


def check_emit(facts: Facts) -> Finding:
    """Nobody but the owner's functions can write an event into the log."""
    if facts.emit:
        what = f"{', '.join(sorted(facts.emit))} may call pg_logical_emit_message, so publish takes the slower table"
        return Finding("emit", False, what, f"{_ADVICE_SCRIPT}, then `lastcall migrate`, then restart the nodes")
    return Finding("emit", True, "only the owner's functions write messages into the log")


def check_migrated(facts: Facts) -> Finding:
    """The database's SQL is this installation's."""
    if not facts.server["migrated"] or facts.pending:
        what = "; ".join(facts.pending[:5]) if facts.server["migrated"] else "nothing has been migrated yet"
        return Finding("migrations", False, f"to be applied: {what}", "run `lastcall migrate`")
    return Finding("migrations", True, "the database is up to date")


def check_row_security(facts: Facts) -> Finding:
    """Row-level security is on everywhere."""
    tables = facts.tables["open"]
    remedy = "ALTER TABLE … ENABLE ROW LEVEL SECURITY" if tables else ""
    what = f"row-level security is off on {', '.join(tables)}" if tables else "row-level security is on everywhere"
    return Finding("row_security", not tables, what, remedy)


def check_table_grants(facts: Facts) -> Finding:
    """No table is granted to anyone."""
    grants = facts.tables["granted"]
    what = f"granted: {'; '.join(grants)}" if grants else "no table is granted to anyone"
    return Finding("table_grants", not grants, what, "REVOKE ALL ON … FROM …; expose a function" if grants else "")


def check_function_grants(facts: Facts) -> Finding:
    """No function may be called by everybody."""
    functions = facts.functions["public"]
    what = f"everybody may call {', '.join(functions)}" if functions else "no function is open to everybody"
    remedy = "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC, and grant it to roles by name" if functions else ""
    return Finding("function_grants", not functions, what, remedy)


def check_definers(facts: Facts) -> Finding:
    """A definer looks only where its owner says."""
    functions = facts.functions["unpinned"]
    what = f"no pinned search path: {', '.join(functions)}" if functions else "every definer pins its search path"
    remedy = "ALTER FUNCTION … SET search_path = pg_catalog, pg_temp (and in its file)" if functions else ""
    return Finding("definers", not functions, what, remedy)


CHECKS: Final[tuple[Callable[[Facts], Finding], ...]] = (
    check_version,
    check_encoding,
    check_wal_level,
    check_keep_size,
    check_slots_free,
    check_senders_free,
    check_connections,
    check_durability,
    check_roles,
    check_memberships,
    check_owner,
    check_emit,
    check_migrated,
    check_logins,
    check_row_security,
    check_table_grants,
    check_function_grants,
    check_definers,
    check_slot,
    check_slot_active,
    check_retained,
    check_clock,
    check_files,
)

_AFTER_MIGRATION: Final = frozenset(
    {
        check_logins,
        check_row_security,
        check_table_grants,
        check_function_grants,
        check_definers,
        check_slot,
        check_slot_active,
        check_retained,
    }
)
