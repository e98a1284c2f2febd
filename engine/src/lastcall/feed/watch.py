"""What an application wants to be told: which changes of a table become which event on which channels.

`check` refuses what can be known to be wrong without a database; what needs one is `catalog.problems`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from lastcall.errors import StartRefused
from lastcall.event import EVENT_NAME, RESERVED_EVENT_NAMES

Operation = Literal["insert", "update", "delete"]
OPERATIONS: Final = frozenset({"insert", "update", "delete"})
_FIELD = re.compile(r"\{([a-z_][a-z0-9_]*)\}", re.ASCII)
_TEMPLATE = re.compile(r"([a-z][a-z_]{0,30}):((?:[A-Za-z0-9_-]|\{[a-z_][a-z0-9_]*\})+)", re.ASCII)


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes of a table become which event on which channels.

    table: `schema.table`; needs a primary key, and a replica identity that covers the columns named in `channel` and
        `where` when UPDATE or DELETE is watched.
    channel: one template or several; `{column}` is replaced by the row's value. A NULL there: no event on that channel.
        The kind, before the colon, is literal.
    event: the event's name (lower-case; not a reserved one).
    columns: what the event's `data` carries, in this order. Mandatory: decoding knows no row-level security.
    operations: insert and update carry `columns` of the new row; delete, and a row that left the channel or `where`,
        are the event `gone` with `{"event": …, "key": {primary key columns}}`.
    where: keep only rows for which it is true: a mapping of column → value (or a tuple of values), compared after
        conversion to JSON. Evaluated in lastcall.

    Several watches may name one table: the first that matches a change renders it, so one change is one event (and one
    `gone` for the channels that the row has left).
    """

    table: str
    channel: str | tuple[str, ...]
    event: str
    columns: tuple[str, ...]
    operations: frozenset[Operation] = frozenset({"insert", "update", "delete"})
    where: Mapping[str, Any] | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The templates, always a tuple."""
        return (self.channel,) if isinstance(self.channel, str) else self.channel

    @property
    def channel_columns(self) -> tuple[str, ...]:
        """Columns named in the channel templates, in order of first use."""
        return tuple(dict.fromkeys(name for template in self.channels for name in _FIELD.findall(template)))

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of channel that the watch feeds: what stands before the colon."""
        return frozenset(template.partition(":")[0] for template in self.channels)

    @property
    def sees_old_rows(self) -> bool:
        """Whether a change of a row that was there before can concern it."""
        return bool(self.operations & {"update", "delete"})


def template_parts(template: str) -> list[str]:
    """The template cut at its fields: literal, column, literal, column … literal."""
    return _FIELD.split(template)


def check(watches: Sequence[Watch]) -> None:
    """Raise StartRefused, naming every watch that is ill-formed or can never match."""
    found = [f"{_named(watch)}: {problem}" for watch in watches for problem in _ill_formed(watch)]
    for table, group in by_table(watches).items():
        covered: set[str] = set()
        for watch in group:
            if watch.operations and watch.operations <= covered:
                found.append(f"{_named(watch)}: earlier watches of {table} render every change that it would match")
            if watch.where is None:
                covered |= watch.operations
    if found:
        raise StartRefused("; ".join(found))


def _named(watch: Watch) -> str:
    return f"watch {watch.event} on {watch.table}"


def _ill_formed(watch: Watch) -> Iterable[str]:
    schema, dot, table = watch.table.partition(".")
    if not (schema and dot and table):
        yield "the table is named schema.table"
    if not watch.channels:
        yield "it names no channel"
    for template in watch.channels:
        if _TEMPLATE.fullmatch(template) is None:
            yield f"the channel {template!r} is not kind:id with a literal kind and columns in braces"
    if EVENT_NAME.fullmatch(watch.event) is None or watch.event in RESERVED_EVENT_NAMES:
        yield "the event's name is not lower-case letters, digits and underscores, or it is reserved"
    if not watch.columns or len(set(watch.columns)) != len(watch.columns):
        yield "columns must name at least one column, and none twice"
    if not watch.operations or not watch.operations <= OPERATIONS:
        yield "operations must be some of insert, update, delete"
    try:
        msgspec.json.encode(watch.where)
    except (TypeError, ValueError):
        yield "a value in where is not one that JSON has"


def by_table(watches: Iterable[Watch]) -> dict[str, list[Watch]]:
    """The watches of each table, in their order."""
    tables: dict[str, list[Watch]] = {}
    for watch in watches:
        tables.setdefault(watch.table, []).append(watch)
    return tables


def kinds_of(watches: Iterable[Watch]) -> frozenset[str]:
    """All kinds of channel that these watches feed."""
    return frozenset(kind for watch in watches for kind in watch.kinds)
