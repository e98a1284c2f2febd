"""The one round trip of a call, and of a read.

    begin → [gate] → role and claims → function → keep → commit → position
    begin (repeatable read, read only) → role and claims → snapshot → reads → commit

Promises:

* A call is one transaction with the token's role and claims; what it answers was committed before.
* Its position is at or after the commit. Where commits wait for the disk, that is what is flushed right after it: every
  commit record before that LSN is on disk, ours is one of them, and the feed will get there without further writes.
  Where they do not wait, it is what is inserted, which also covers what the disk does not have yet.
* Serialization failures and deadlocks are repeated up to `retries_max` times, then LC210.
* A key makes a call apply once: the first answer is kept in the call's own transaction, and repeated to whoever comes
  with the same key and the same request; whoever comes meanwhile waits, `lock_timeout_s` at most.
* When the connection breaks and nobody knows whether PostgreSQL committed, a call that may write is LC211, not LC202.
* The pool gets back a connection that is good, or closed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from lastcall.config import Config
from lastcall.errors import CODES, Code, Refusal
from lastcall.position import parse_lsn
from lastcall.postgres.pipeline import BEGIN, BEGIN_READING, COMMIT, Command, NotSent, Outcome, Row, Statement, run
from lastcall.postgres.pool import Pool
from lastcall.postgres.refusals import RETRYABLE, refusal_of
from lastcall.postgres.signature import Call, Signature, read_signatures

RETRY_WAIT_MAX_S: Final = 0.02
"""The first repetition of a call waits up to this long, each further one up to twice as long."""

LINK_MARGIN_S: Final = 5.0
"""A round trip may take this much longer than its statements may; then the connection is given up."""

_BECOME: Final = Statement(
    b"select set_config('lastcall.claims', $1, true), set_config('role', $2, true)", b"lastcall_become"
)
_ENTER: Final = Statement(b"select lastcall.enter($1, $2, $3, $4, $5)", b"lastcall_enter")
_STORED: Final = Statement(b"select lastcall.stored($1, $2, $3, $4)", b"lastcall_stored")
_POSITION: Final = Command(
    Statement(b"select pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn()", b"lastcall_position")
)
_SNAPSHOT: Final = Command(Statement(b"select pg_current_snapshot()::text", b"lastcall_snapshot"))
_SIGNATURES: Final = Statement(b"select lastcall.signatures(array(select jsonb_array_elements_text($1::jsonb)))")


class Identity(NamedTuple):
    """As whom SQL runs: a role of the allow-list, and the claims as JSON."""

    role: str
    claims: bytes

    def command(self) -> Command:
        """Takes the role for the rest of the transaction."""
        return Command(_BECOME, (self.claims, self.role.encode()))


SERVICE: Final = Identity("service", b'{"role":"service"}')


class Key(NamedTuple):
    """What makes a call the same call: who, which function, which key; and the hash of what is asked."""

    issuer: str
    subject: str
    function: str
    key: str
    hash: bytes

    def names(self) -> tuple[bytes, bytes, bytes, bytes]:
        """All but the hash, as parameters."""
        return self.issuer.encode(), self.subject.encode(), self.function.encode(), self.key.encode()


class Answer(msgspec.Struct, frozen=True):
    """value: JSON. position_lsn: at or after the commit; None where PostgreSQL could not be asked any more.
    replayed: whether an earlier call with the same key got this answer."""

    value: bytes
    position_lsn: int | None
    replayed: bool = False


class Reading(msgspec.Struct, frozen=True):
    """snapshot: `pg_current_snapshot()` as text. values: what each statement read, as text; None for NULL."""

    snapshot: str
    values: list[bytes | None]


class Caller:
    """Calls and reads through the pool. `codes` are the engine's and the applications' numbers."""

    def __init__(self, pool: Pool, config: Config, codes: Mapping[str, Code] = CODES) -> None:
        self._pool = pool
        self._codes = codes
        self._retries_max = config.retries_max
        self._answer_max_bytes = b"%d" % config.idempotency_answer_max_bytes
        self._wait_max_s = 2 * config.statement_timeout_s + config.lock_timeout_s + LINK_MARGIN_S

    async def call(
        self,
        identity: Identity,
        signature: Signature,
        arguments: Mapping[str, msgspec.Raw | bytes],
        key: Key | None = None,
    ) -> Answer:
        """Call the function with named arguments (name → JSON). Raises Refusal."""
        call = signature.call(arguments, keep=key is not None)
        commands = [BEGIN, identity.command(), Command(call.statement, call.parameters), COMMIT, _POSITION]
        if key is not None:
            call.parameters.append(self._answer_max_bytes)
            commands.insert(1, Command(_ENTER, (*key.names(), b"\\x" + key.hash.hex().encode())))
        commit = len(commands) - 2
        for attempt in range(self._retries_max + 1):
            done = await self._run(commands)
            if len(done.rows) > commit:
                value, waits = done.rows[commit - 1]
                return Answer(value or b"null", await self._position(done.rows[commit + 1 :], waits != b"off"))
            state = "" if done.error is None or done.unknown(commit) else (done.error.sqlstate or "")
            if key is not None and state == "LC001":
                return await self._stored(key)
            if state not in RETRYABLE or attempt == self._retries_max:
                break
            await asyncio.sleep(random.uniform(0, RETRY_WAIT_MAX_S * 2**attempt))  # noqa: S311 (spreads, protects nothing)
        if done.unknown(commit) and (signature.volatile or key is not None):
            raise Refusal("LC211")
        raise self._refusal(done, call)

    async def read(self, identity: Identity, calls: Sequence[Call]) -> Reading:
        """Run the calls in one snapshot, writing nothing. Raises Refusal; where one call fails, all do."""
        commands = [BEGIN_READING, identity.command(), _SNAPSHOT]
        commands += [Command(call.statement, call.parameters) for call in calls]
        commands.append(COMMIT)
        done = await self._run(commands)
        if len(done.rows) < len(commands):
            failed = calls[len(done.rows) - 3] if 3 <= len(done.rows) < len(calls) + 3 else None
            raise self._refusal(done, failed)
        snapshot = done.rows[2][0] or b""
        return Reading(snapshot.decode(), [row[0] for row in done.rows[3:-1]])

    async def snapshot(self) -> str:
        """`pg_current_snapshot()` as text. Raises Refusal."""
        return (await self.ask(_SNAPSHOT.statement)).decode()

    async def ask(self, statement: Statement, parameters: Sequence[bytes | None] = ()) -> bytes:
        """Run one statement of the engine's own as the authenticator; its first value, empty for NULL. Or a Refusal."""
        done = await self._run([Command(statement, parameters)])
        if not done.finished or done.error is not None:
            raise self._refusal(done, None)
        return (done.rows[0] or (None,))[0] or b""

    async def signatures(self, schemas: Sequence[str]) -> list[Signature]:
        """The functions of these schemas. Raises Refusal."""
        return read_signatures(await self.ask(_SIGNATURES, (msgspec.json.encode(schemas),)))

    async def transaction(self, commands: Sequence[Command]) -> list[Row]:
        """Run statements of the engine's own in one transaction; their first rows. Raises Refusal."""
        done = await self._run([BEGIN, *commands, COMMIT])
        if done.unknown(len(commands) + 1):
            raise Refusal("LC211")
        if len(done.rows) < len(commands) + 2:
            raise self._refusal(done, None)
        return done.rows[1:-1]

    async def _run(self, commands: Sequence[Command]) -> Outcome:
        async with self._pool.connection() as connection:
            try:
                return await run(connection, commands, self._wait_max_s)
            except NotSent:
                raise Refusal("LC202") from None

    async def _stored(self, key: Key) -> Answer:
        """What the first call with this key was answered."""
        done = await self._run([Command(_STORED, key.names()), _POSITION])
        if not done.rows:
            raise self._refusal(done, None)
        value = done.rows[0][0]
        if value is None:
            # It was there a moment ago: the purge has taken it. Asking again applies the call anew.
            raise Refusal("LC210")
        # The first call may have been committed without waiting for the disk, so only what is inserted is sure.
        return Answer(value, await self._position(done.rows[1:], waits=False), replayed=True)

    async def _position(self, rows: Sequence[Row], waits: bool) -> int | None:
        """At or after the commit, from the answer of _POSITION; it is asked again where the connection broke before."""
        if not rows:
            try:
                rows = (await self._run([_POSITION])).rows
            except Refusal:
                return None
        if not rows:
            return None
        flushed, inserted = rows[0]
        return parse_lsn(((flushed if waits else inserted) or b"").decode())

    def _refusal(self, done: Outcome, call: Call | None) -> Refusal:
        if done.error is None:
            return Refusal("LC202")
        return refusal_of(done.error, self._codes, call)
