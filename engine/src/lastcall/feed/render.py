"""From a changed row to an event: which channels hear it, what it is called, what it says.

Promises:

* The first watch (in the order given) that takes the operation and whose `where` holds renders the change; where it has
  no channel (a NULL in each), there is no event. A row that left channels makes one `gone` for them; one whose primary
  key changed is `gone` under the old key on all of them.
* A relation whose columns no longer fit a watch makes a Renderer that is `broken`; a value that is needed and was not
  sent raises NotRenderable. Both end in a reset of the watch's kinds of channel, never in silence.
* A value that cannot stand in a channel's name makes no event on that channel, which nobody can listen on; it is
  counted and raises an alarm.
* An unchanged value stored out of line is taken from the old row where that has it, else its member is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from lastcall.event import CHANNEL, GONE
from lastcall.feed.catalog import TableFacts
from lastcall.feed.pgoutput import UNCHANGED, Delete, Insert, Relation, Row, Update, Value
from lastcall.feed.values import Codec, Types, codec
from lastcall.feed.watch import Watch, kinds_of, template_parts

CACHE_ENTRIES_MAX: Final = 8_192
"""Channel names and `where` answers are kept by raw value; a full cache is emptied."""


class NotRenderable(Exception):
    """A change needs a value that PostgreSQL did not send."""


class Draft(NamedTuple):
    """An event without its position."""

    channels: tuple[str, ...]
    name: str
    data: bytes


class Mismatch(Exception):
    """A relation does not fit a watch; the text says how."""


class _Members:
    """Some columns of a row as a JSON object, in a fixed order."""

    def __init__(self, names: Sequence[str], columns: Mapping[str, tuple[int, Codec]]) -> None:
        encoded = [msgspec.json.encode(name) for name in names]
        self._columns = [
            (b"%b%b:" % (b"," if place else b"{", text), *columns[name])
            for place, (name, text) in enumerate(zip(names, encoded, strict=True))
        ]

    def render(self, row: Row) -> bytes:
        """The object; a value that was not sent has no member."""
        parts = []
        for prefix, index, encode in self._columns:
            value = row[index]
            if value is None:
                parts.append(prefix + b"null")
            elif value is UNCHANGED:
                continue
            else:
                parts.append(prefix + encode(value))
        text = b"".join(parts)
        # Only where the first member is absent does the text not begin with its brace.
        return b"{%b}" % text.lstrip(b",") if text[:1] != b"{" else text + b"}"

    def raw(self, row: Row) -> list[Value]:
        """The values themselves, to be compared."""
        return [row[index] for _, index, _ in self._columns]


class _Condition:
    """One column of `where`: the value it must have, or one of several."""

    def __init__(self, index: int, encode: Codec, wanted: object) -> None:
        self._index = index
        self._encode = encode
        allowed = wanted if isinstance(wanted, (tuple, list, set, frozenset)) else (wanted,)
        self._allowed = [_comparable(msgspec.json.decode(msgspec.json.encode(value))) for value in allowed]
        self._known: dict[bytes | None, bool] = {None: (type(None), None) in self._allowed}

    def holds(self, row: Row) -> bool:
        """Whether the row's value is one of them."""
        value = row[self._index]
        if value is UNCHANGED:
            raise NotRenderable
        answer = self._known.get(value)
        if answer is None:
            assert value is not None
            answer = _comparable(msgspec.json.decode(self._encode(value))) in self._allowed
            if len(self._known) >= CACHE_ENTRIES_MAX:
                self._known.clear()
            self._known[value] = answer
        return answer


def _comparable(value: Any) -> tuple[type, Any]:
    """JSON values by kind, so that true is not 1, while 1 is 1.0."""
    return (float if isinstance(value, int) and not isinstance(value, bool) else type(value)), value


class _Channels:
    """The channels of a row."""

    def __init__(self, watch: Watch, columns: Mapping[str, tuple[int, Codec]], malformed: Callable[[], None]) -> None:
        names = watch.channel_columns
        self._indexes = tuple(columns[name][0] for name in names)
        self._templates = [
            [part if place % 2 == 0 else names.index(part) for place, part in enumerate(template_parts(template))]
            for template in watch.channels
        ]
        self._malformed = malformed
        self._known: dict[tuple[Value, ...], tuple[tuple[str, ...], int]] = {}

    def of(self, row: Row) -> tuple[str, ...]:
        """Channel names, each once; those with a NULL or a malformed value left out."""
        key = tuple([row[index] for index in self._indexes])
        found = self._known.get(key)
        if found is None:
            found = self._make(key)
            if len(self._known) >= CACHE_ENTRIES_MAX:
                self._known.clear()
            self._known[key] = found
        if found[1]:
            self._malformed()
        return found[0]

    def _make(self, values: tuple[Value, ...]) -> tuple[tuple[str, ...], int]:
        texts: list[str | None] = []
        for value in values:
            if value is UNCHANGED:
                raise NotRenderable
            assert value is None or isinstance(value, bytes)
            texts.append(None if value is None else value.decode())
        channels: dict[str, None] = {}
        malformed = 0
        for template in self._templates:
            parts = [part if isinstance(part, str) else texts[part] for part in template]
            if None in parts:
                continue
            name = "".join(part for part in parts if part is not None)
            if CHANNEL.fullmatch(name) is None:
                malformed += 1
            else:
                channels[name] = None
        return tuple(channels), malformed


class _Compiled:
    """A watch fitted to a relation. Raises Mismatch where it does not fit."""

    def __init__(
        self, watch: Watch, relation: Relation, key: Sequence[str], types: Types, malformed: Callable[[], None]
    ) -> None:
        needed = [*watch.columns, *watch.channel_columns, *(watch.where or ()), *(key if watch.sees_old_rows else ())]
        columns = _columns(needed, relation, types)
        if watch.sees_old_rows:
            _check_identity(needed[len(watch.columns) :], relation)
        self.watch = watch
        self.name = watch.event
        self._members = _Members(watch.columns, columns)
        self._key = _Members(key, columns) if watch.sees_old_rows else None
        self._conditions = [_Condition(*columns[name], wanted) for name, wanted in (watch.where or {}).items()]
        self._gone_prefix = b'{"event":"%b","key":' % watch.event.encode()
        self.channels = _Channels(watch, columns, malformed).of
        self.data = self._members.render

    def accepts(self, row: Row) -> bool:
        """Whether `where` holds."""
        for condition in self._conditions:  # noqa: SIM110 (a generator would cost more than the loop)
            if not condition.holds(row):
                return False
        return True

    def key(self, row: Row) -> list[Value]:
        """The primary key's values."""
        assert self._key is not None
        return self._key.raw(row)

    def gone(self, channels: tuple[str, ...], row: Row) -> Draft | None:
        """The row has left these channels."""
        assert self._key is not None
        return Draft(channels, GONE, self._gone_prefix + self._key.render(row) + b"}") if channels else None


def _columns(names: Sequence[str], relation: Relation, types: Types) -> dict[str, tuple[int, Codec]]:
    present = {column.name: (index, column) for index, column in enumerate(relation.columns)}
    found: dict[str, tuple[int, Codec]] = {}
    for name in names:
        if name not in present:
            raise Mismatch(f"{relation.schema}.{relation.name} has no column {name}")
        index, column = present[name]
        encode = codec(column.type_oid, types)
        if encode is None:
            raise Mismatch(f"{relation.schema}.{relation.name}.{name} has the unknown type {column.type_oid}")
        found[name] = (index, encode)
    return found


def _check_identity(names: Sequence[str], relation: Relation) -> None:
    keys = {column.name for column in relation.columns if column.key}
    missing = [name for name in names if name not in keys]
    if missing:
        raise Mismatch(f"the replica identity of {relation.schema}.{relation.name} does not show {missing[0]}")


class Renderer:
    """All watches of one table, fitted to the table as it was when a change was made.

    kinds: the kinds of channel that these watches feed. broken: why nothing can be rendered, or empty.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        relation: Relation,
        table: TableFacts,
        types: Types,
        malformed: Callable[[], None],
    ) -> None:
        self.kinds = kinds_of(watches)
        self.broken = ""
        compiled: list[_Compiled] = []
        try:
            compiled = [_Compiled(watch, relation, table.key, types, malformed) for watch in watches]
        except Mismatch as mismatch:
            self.broken = str(mismatch)
        self._width = len(relation.columns)
        self._keys = [index for index, column in enumerate(relation.columns) if column.key]
        self._on_insert = [each for each in compiled if "insert" in each.watch.operations]
        self._on_update = [each for each in compiled if "update" in each.watch.operations]
        self._on_delete = [each for each in compiled if "delete" in each.watch.operations]

    def insert(self, change: Insert) -> Draft | None:
        """What became of it. Raises NotRenderable."""
        row = self._checked(change.new)
        for each in self._on_insert:
            if each.accepts(row):
                return _draft(each, each.channels(row), row)
        return None

    def update(self, change: Update) -> tuple[Draft | None, Draft | None]:
        """What is gone, and what became of it. Raises NotRenderable."""
        old = change.old
        new = self._checked(change.new)
        if old is not None:
            self._checked(old)
            if UNCHANGED in new:
                new = self._completed(new, old, change.old_full)
        became: Draft | None = None
        channels: tuple[str, ...] = ()
        for each in self._on_update:
            if each.accepts(new):
                channels = each.channels(new)
                became = _draft(each, channels, new)
                break
        if old is None:
            return None, became
        for each in self._on_update:
            if each.accepts(old):
                left = each.channels(old)
                if each.key(old) == each.key(new):
                    left = tuple([channel for channel in left if channel not in channels])
                return each.gone(left, old), became
        return None, became

    def delete(self, change: Delete) -> Draft | None:
        """What is gone. Raises NotRenderable."""
        row = self._checked(change.old)
        for each in self._on_delete:
            if each.accepts(row):
                return each.gone(each.channels(row), row)
        return None

    def _checked(self, row: Row) -> Row:
        if len(row) != self._width:
            raise NotRenderable
        return row

    def _completed(self, new: Row, old: Row, full: bool) -> Row:
        """Unchanged values are those of the old row, as far as that shows them."""
        shown = range(self._width) if full else self._keys
        completed = list(new)
        for index in shown:
            if completed[index] is UNCHANGED:
                completed[index] = old[index]
        return completed


def _draft(each: _Compiled, channels: tuple[str, ...], row: Row) -> Draft | None:
    return Draft(channels, each.name, each.data(row)) if channels else None
