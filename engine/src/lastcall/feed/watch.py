"""What an application wants to be told: which changes of a table become which event on which channels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Operation = Literal["insert", "update", "delete"]
_FIELD = re.compile(r"\{([a-z_][a-z0-9_]*)\}", re.ASCII)


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes of a table become which event on which channels.

    table: `schema.table`; needs a primary key, and a replica identity that covers the columns named in `channel` and
        `where` when UPDATE or DELETE is watched.
    channel: one template or several; `{column}` is replaced by the row's value. A NULL there: no event on that channel.
    event: the event's name (lower-case; not a reserved one).
    columns: what the event's `data` carries, in this order. Mandatory: decoding knows no row-level security.
    operations: insert and update carry `columns` of the new row; delete, and a row that left the channel or `where`,
        are the event `gone` with `{"event": …, "key": {primary key columns}}`.
    where: keep only rows for which it is true: a mapping of column → value (or a tuple of values), compared after
        conversion to JSON. Evaluated in lastcall.

    Several watches may name one table: the first that matches a change renders it, so one change is one event.
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
