"""Watches: what is refused without a database, and what the catalog says against one."""

from __future__ import annotations

from typing import Any

import pytest

from lastcall.errors import StartRefused
from lastcall.feed.catalog import (
    ENGINE_TABLES,
    Catalog,
    ColumnFacts,
    PublicationFacts,
    TableFacts,
    fingerprints,
    problems,
    refuse,
)
from lastcall.feed.values import TypeFacts
from lastcall.feed.watch import Watch, check

WATCH = Watch(table="bar.sale", channel="bar:{bar_id}", event="sale", columns=("id", "total"), where={"open": True})


def changed(**members: Any) -> Watch:
    """WATCH with other members."""
    return Watch(**{name: members.get(name, getattr(WATCH, name)) for name in WATCH.__struct_fields__})


COLUMNS = {"id": 20, "bar_id": 23, "total": 1700, "open": 16, "place": 600, "note": 25, "mood": 16400, "doubled": 23}
TABLE = TableFacts(
    name="bar.sale",
    oid=1000,
    kind="r",
    persistence="p",
    identity="f",
    children=False,
    published=True,
    narrowed=False,
    key=("id",),
    identity_columns=tuple(COLUMNS),
    columns=tuple(
        ColumnFacts(name, oid, f"type {oid}", "s" if name == "doubled" else "") for name, oid in COLUMNS.items()
    ),
)


def table(**members: Any) -> TableFacts:
    """TABLE with other members."""
    return TableFacts(**{name: members.get(name, getattr(TABLE, name)) for name in TABLE.__struct_fields__})


def catalog(sale: TableFacts | None = TABLE, version: int = 170000, **publication: Any) -> Catalog:
    """What the database says."""
    flags = dict.fromkeys(("insert", "update", "delete", "truncate"), True)
    facts = PublicationFacts(**{"oid": 1, "all_tables": False, **flags, "via_root": False, **publication})
    engine = {name: table(name=name) for name in ENGINE_TABLES}
    types = {16400: TypeFacts(16400, "mood", "e")}
    return Catalog(version, facts, {**engine, **({"bar.sale": sale} if sale else {})}, types)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"table": "sale"}, "schema.table"),
        ({"channel": ()}, "no channel"),
        ({"channel": "bar"}, "'bar'"),
        ({"channel": "{bar_id}:1"}, "literal kind"),
        ({"channel": "Bar:{bar_id}"}, "literal kind"),
        ({"channel": "bar:{bar id}"}, "literal kind"),
        ({"channel": "bar:"}, "literal kind"),
        ({"event": "Sale"}, "event's name"),
        ({"event": "reset"}, "reserved"),
        ({"columns": ()}, "columns"),
        ({"columns": ("id", "id")}, "twice"),
        ({"operations": frozenset()}, "operations"),
        ({"operations": frozenset({"truncate"})}, "operations"),
        ({"where": {"open": object()}}, "JSON"),
    ],
)
def test_ill_formed_watch_is_refused(members: dict[str, Any], says: str) -> None:
    """A declaration that cannot mean anything is refused, and the refusal says where and why."""
    with pytest.raises(StartRefused, match=r"watch \S+ on ") as refusal:
        check([changed(**members)])
    assert says in str(refusal.value)


def test_watch_in_the_shadow_is_refused() -> None:
    """A watch that never matches, because earlier ones take every change it could match, is refused; others are not."""
    inserts = changed(where=None, operations=frozenset({"insert"}))
    rest = changed(where=None, operations=frozenset({"update", "delete"}))
    check([WATCH, inserts, WATCH, rest])
    check([inserts, changed(table="bar.other", operations=frozenset({"insert"}))])
    with pytest.raises(StartRefused, match="earlier watches"):
        check([inserts, changed(operations=frozenset({"insert"}))])
    with pytest.raises(StartRefused, match="earlier watches"):
        check([inserts, rest, WATCH])


def test_sound_watch_has_no_problem() -> None:
    """A watch that fits its table is not refused."""
    assert problems([WATCH, changed(columns=("mood",))], catalog(), published=True) == []
    refuse([])


INSERTS = frozenset({"insert"})


@pytest.mark.parametrize(
    ("watch", "sale", "says"),
    [
        ({}, None, "there is no table"),
        ({}, {"kind": "p"}, "partitioned"),
        ({}, {"kind": "v"}, "view"),
        ({}, {"kind": "m"}, "materialised"),
        ({}, {"kind": "f"}, "foreign"),
        ({}, {"kind": "S"}, "not a table"),
        ({}, {"persistence": "u"}, "unlogged"),
        ({}, {"children": True}, "child tables"),
        ({}, {"key": ()}, "no primary key"),
        ({"operations": INSERTS}, {"key": ()}, "no primary key"),
        ({"operations": INSERTS}, {"identity_columns": ()}, "no usable replica identity"),
        ({}, {"identity_columns": ("id",)}, "bar_id, open"),
        ({}, {"identity_columns": ("bar_id", "open")}, "without id"),
        ({"columns": ("gone",)}, {}, "no column gone"),
        ({"channel": "bar:{gone}"}, {}, "no column gone"),
        ({"where": {"gone": 1}}, {}, "no column gone"),
        ({"columns": ("place",)}, {}, "type 600"),
        ({"where": {"place": 1}}, {}, "type 600"),
        ({"channel": "bar:{total}"}, {}, "cannot stand in a channel"),
        ({"columns": ("doubled",)}, {}, "generated"),
        ({}, {"published": False}, "not in the publication"),
        ({}, {"narrowed": True}, "row filter"),
    ],
)
def test_watch_that_does_not_fit_is_refused(watch: dict[str, Any], sale: dict[str, Any] | None, says: str) -> None:
    """Whatever would make a watch impossible, silent or a danger to writes is named."""
    found = problems([changed(**watch)], catalog(None if sale is None else table(**sale)), published=True)
    assert any(says in str(problem) for problem in found), found
    with pytest.raises(StartRefused):
        refuse(found)


def test_watch_of_inserts_needs_less() -> None:
    """Where only inserts are watched, the replica identity need not show channel and `where`."""
    inserts = changed(operations=INSERTS)
    assert problems([inserts], catalog(table(identity_columns=("id",))), published=True) == []


def test_generated_columns_depend_on_the_server() -> None:
    """From 18 on a stored generated column can be watched; a virtual one in the identity would break writes."""
    doubled = changed(columns=("doubled",))
    assert problems([doubled], catalog(version=180000), published=True) == []
    virtual = table(columns=(*TABLE.columns[:-1], ColumnFacts("doubled", 23, "integer", "v")))
    assert "would fail" in str(problems([WATCH], catalog(virtual, version=180000), published=True))
    assert problems([WATCH], catalog(virtual, version=170000), published=True) == []


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (catalog(all_tables=True), "FOR ALL TABLES"),
        (catalog(truncate=False), "altered"),
        (catalog(via_root=True), "altered"),
        (catalog(generated="n", version=180000), "altered"),
        (Catalog(170000, None, catalog().tables, {}), "missing"),
        (Catalog(170000, catalog().publication, {"bar.sale": TABLE}, {}), "lastcall.published"),
    ],
)
def test_altered_publication_is_refused(found: Catalog, says: str) -> None:
    """A publication that leaves something out, or is not there, is named with what to do."""
    wrong = problems([WATCH], found, published=True)
    assert says in str(wrong) and "lastcall migrate" in str(wrong)


FINGERPRINTS = fingerprints([WATCH, changed(table="bar.other", channel="user:{id}")], catalog())


@pytest.mark.parametrize(
    ("watches", "found", "differing"),
    [
        ([WATCH], catalog(), set()),
        ([changed(columns=("id",))], catalog(), {"bar"}),
        ([changed(event="sold")], catalog(), {"bar"}),
        ([changed(where={"open": False})], catalog(), {"bar"}),
        ([changed(operations=INSERTS)], catalog(), {"bar"}),
        ([changed(where={"open": False}), WATCH], catalog(), {"bar"}),
        ([changed(channel=("bar:{bar_id}", "till:{id}"))], catalog(), {"bar", "till"}),
        ([WATCH], catalog(table(oid=1001)), {"bar"}),
        ([WATCH], catalog(table(key=("bar_id",))), {"bar"}),
        ([WATCH], catalog(table(published=False)), {"bar"}),
        ([WATCH], catalog(None), {"bar"}),
        ([WATCH], catalog(table(columns=TABLE.columns[:4])), set()),
        ([WATCH], catalog(table(columns=(ColumnFacts("id", 23, "integer"), *TABLE.columns[1:]))), {"bar"}),
        ([WATCH], catalog(truncate=False), {"bar", "user"}),
    ],
)
def test_fingerprint_changes_with_what_is_heard(watches: list[Watch], found: Catalog, differing: set[str]) -> None:
    """A kind's fingerprint differs exactly when a watch, its table, or what is wrong with them differs."""
    other = changed(table="bar.other", channel="user:{id}")
    made = fingerprints([*watches, other], found)
    assert {kind for kind, digest in made.items() if FINGERPRINTS.get(kind) != digest} == differing
