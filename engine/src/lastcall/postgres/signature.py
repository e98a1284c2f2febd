"""What a SQL function takes and gives, and the statement that calls it with named JSON arguments.

Promises:

* Arguments go by name, as parameters of a prepared statement, never as text of SQL. PostgreSQL itself reads each as the
  type that the function declares; only the kind of JSON is checked here, so that a wrong one is refused by name.
* A number keeps all its digits on the way in: it is never a float of Python's.
* Results are JSON as `to_jsonb` writes it: a set is an array, void is null, a composite is an object.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any, Final, Literal

import msgspec
from psycopg import sql

from lastcall.errors import Refusal
from lastcall.postgres.pipeline import Statement

Form = Literal["json", "boolean", "integer", "bigint", "number", "array", "composite", "text", "pseudo"]

VARIANTS_MAX: Final = 16
"""Statements kept per function: one for each set of arguments that is given. Further ones are not kept."""

NAMES_SHOWN_MAX: Final = 20
NAME_SHOWN_MAX_CHARACTERS: Final = 64

NUMBER_TEXT_MAX: Final = 40
"""A longer number than this is no bigint, however it is written."""

_FRACTION: Final = frozenset(b".eE")
_NUMBER: Final = frozenset(b"-0123456789")
_EXPECTED: Final[dict[str, tuple[frozenset[int], str]]] = {
    "boolean": (frozenset(b"tf"), "true or false"),
    "integer": (_NUMBER, "an integer"),
    "bigint": (_NUMBER | {0x22}, "an integer, or its digits as text"),
    "number": (_NUMBER | {0x22}, "a number, or its digits as text"),
    "array": (frozenset(b"["), "an array"),
    "composite": (frozenset(b"{"), "an object"),
    "text": (frozenset(b'"'), "text"),
}
"""By form: the first bytes of the JSON values that are taken, and how to say so."""

_numbers = itertools.count(1)


class Parameter(msgspec.Struct, frozen=True):
    """One argument: name, type as SQL writes it, how JSON gets there, the type below its domains."""

    name: str
    type: str
    form: Form
    base: str
    optional: bool
    variadic: bool = False


class Result(msgspec.Struct, frozen=True):
    """What comes back: type as SQL writes it, its form, the type below its domains."""

    type: str
    form: Form
    base: str


class Call(msgspec.Struct, frozen=True):
    """A call that is ready to be sent.

    statement: selects the result as JSON text and whether commits wait for the disk (`synchronous_commit`).
    names: of the arguments, in the order of `parameters`.
    nested: those of them that are arrays or composites, which PostgreSQL reads only when the statement runs.
    """

    statement: Statement
    parameters: list[bytes | None]
    names: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()


class Signature(msgspec.Struct, frozen=True, dict=True):
    """One function, as `lastcall.signatures` describes it.

    volatile: whether a call may write.
    outputs: its OUT parameters.
    roles: which of anon, member and service may call it.
    """

    schema: str
    name: str
    set: bool
    volatile: bool
    comment: str
    returns: Result
    outputs: int
    roles: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    @property
    def hindrance(self) -> str | None:
        """Why this function cannot be called by name with JSON; None when it can."""
        if any(not parameter.name for parameter in self.parameters):
            return "an argument has no name"
        if any(parameter.variadic or parameter.form == "pseudo" for parameter in self.parameters):
            return "an argument is variadic or of a pseudo-type"
        if self.returns.form == "pseudo" and self.returns.type not in {"void", "record"}:
            return f"it returns {self.returns.type}"
        if self.returns.type == "record" and not self.outputs:
            return "it returns records of no known shape"
        return None

    def call(self, arguments: Mapping[str, msgspec.Raw | bytes], *, keep: bool = False) -> Call:
        """The call with these arguments (name → JSON). With `keep` the result also goes through `lastcall.keep`, whose
        limit is the last parameter, to be appended. Raises Refusal LC108 naming what is missing, unknown or unfit."""
        names: list[str] = []
        values: list[bytes | None] = []
        wrong: dict[str, str] = {}
        for parameter in self.parameters:
            raw = arguments.get(parameter.name)
            if raw is None:
                if not parameter.optional:
                    wrong[parameter.name] = "missing"
                continue
            names.append(parameter.name)
            try:
                values.append(_text(parameter.form, bytes(raw)))
            except ValueError as error:
                wrong[parameter.name] = str(error)
        if wrong or len(names) != len(arguments):
            known = {parameter.name for parameter in self.parameters}
            wrong |= {name: "unknown" for name in arguments if name not in known}
            raise bad_arguments(wrong)
        given = tuple(names)
        statement, nested = self._variant(given, keep)
        return Call(statement, values, given, nested)

    @cached_property
    def _variants(self) -> dict[tuple[tuple[str, ...], bool], tuple[Statement, tuple[str, ...]]]:
        return {}

    def _variant(self, names: tuple[str, ...], keep: bool) -> tuple[Statement, tuple[str, ...]]:
        """The statement for these arguments, and those of them that are nested."""
        found = self._variants.get((names, keep))
        if found is None:
            text = self._text(names, keep)
            forms = {parameter.name: parameter.form for parameter in self.parameters}
            nested = tuple(name for name in names if forms[name] in {"array", "composite"})
            if len(self._variants) >= VARIANTS_MAX:
                return Statement(text), nested
            found = self._variants[names, keep] = Statement(text, b"lastcall_%d" % next(_numbers)), nested
        return found

    def _text(self, names: tuple[str, ...], keep: bool) -> bytes:
        types = {parameter.name: parameter for parameter in self.parameters}
        arguments = sql.SQL(", ").join(_argument(types[name], place) for place, name in enumerate(names, 1))
        function = sql.SQL("{}({})").format(sql.Identifier(self.schema, self.name), arguments)
        value, source = self._result(function)
        if keep:
            value = sql.SQL("lastcall.keep({}, ${}::integer)").format(value, sql.SQL(str(len(names) + 1)))
        select = sql.SQL("select {}, current_setting('synchronous_commit'){}").format(value, source)
        return select.as_bytes(None)

    def _result(self, function: sql.Composed) -> tuple[sql.Composable, sql.Composable]:
        """The JSON text of what the function returns, and the FROM clause that it needs."""
        rows = sql.SQL(" from {} as lastcall_row").format(function)
        if self.returns.type == "void":
            return sql.SQL("'null'::text"), rows
        composite = self.returns.form == "composite" or self.returns.type == "record" or self.outputs > 0
        if self.set and composite:
            # Behind a subquery the row is an object even where it has one column only.
            rows = sql.SQL(" from (select * from {}) as lastcall_row").format(function)
            return sql.SQL("coalesce(jsonb_agg(to_jsonb(lastcall_row.*)), '[]')::text"), rows
        if self.set:
            return sql.SQL("coalesce(jsonb_agg(to_jsonb(lastcall_row.value)), '[]')::text"), rows + sql.SQL(" (value)")
        if self.returns.type == "record":
            return sql.SQL("to_jsonb(lastcall_row.*)::text"), rows
        value = "coalesce({}::text, 'null')" if self.returns.form == "json" else "coalesce(to_jsonb({})::text, 'null')"
        return sql.SQL(_trusted(value)).format(function), sql.SQL("")


def bad_arguments(wrong: Mapping[str, str]) -> Refusal:
    """LC108 that says of each argument what is wrong with it; not more than a reader can take in."""
    shown = {
        name[:NAME_SHOWN_MAX_CHARACTERS]: reason
        for name, reason in itertools.islice(sorted(wrong.items()), NAMES_SHOWN_MAX)
    }
    return Refusal("LC108", facts={"arguments": shown} if shown else None)


def read_signatures(text: bytes) -> list[Signature]:
    """What `lastcall.signatures` answers."""
    return msgspec.json.decode(text, type=list[Signature])


def _argument(parameter: Parameter, place: int) -> sql.Composed:
    # The type's text is PostgreSQL's own (format_type), quoted where it has to be.
    name, kind, number = sql.Identifier(parameter.name), sql.SQL(_trusted(parameter.type)), sql.SQL(str(place))
    if parameter.form in {"array", "composite"}:
        return sql.SQL("{} => (select r.v from jsonb_to_record(${}::jsonb) as r (v {}))").format(name, number, kind)
    return sql.SQL("{} => ${}::{}").format(name, number, kind)


def _trusted(text: str) -> Any:
    """psycopg wants literal strings; this one comes from the database's catalogue."""
    return text


def _text(form: str, raw: bytes) -> bytes | None:
    """A JSON value as the text that PostgreSQL reads. Raises ValueError saying what was expected."""
    first = raw[0]
    if first == 0x6E:  # null
        return None
    if form == "json":
        return raw
    allowed, expected = _EXPECTED[form]
    if first not in allowed:
        raise ValueError(f"expected {expected}")
    if form in {"array", "composite"}:
        return b'{"v":' + raw + b"}"
    if first != 0x22:  # "
        return _whole(raw) if form in {"integer", "bigint"} else raw
    if b"\\" not in raw:
        return raw[1:-1]
    text = msgspec.json.decode(raw, type=str)
    if "\0" in text:
        raise ValueError("PostgreSQL has no text with a NUL character")
    return text.encode()


def _whole(raw: bytes) -> bytes:
    """`1.0` and `1e3` are whole numbers in JSON Schema, but not as PostgreSQL reads one. Others stay as they are."""
    if raw.isdigit() or _FRACTION.isdisjoint(raw) or len(raw) > NUMBER_TEXT_MAX:
        return raw
    number = Decimal(raw.decode())
    whole = number.is_finite() and abs(number.adjusted()) < NUMBER_TEXT_MAX and number == number.to_integral_value()
    return b"%d" % int(number) if whole else raw
