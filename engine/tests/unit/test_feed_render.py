"""From a changed row to an event."""

from __future__ import annotations

from typing import Any

import pytest

from lastcall.feed.catalog import TableFacts
from lastcall.feed.pgoutput import UNCHANGED, Column, Delete, Insert, Relation, Row, Update
from lastcall.feed.render import Draft, NotRenderable, Renderer
from lastcall.feed.values import TypeFacts, codec, names_channels, string
from lastcall.feed.watch import Watch

NAMES = {"id": 20, "bar": 23, "state": 25, "note": 25, "open": 16, "extra": 3802}
KEY = ("id",)


def relation(*, keys: set[str] | None = None, names: dict[str, int] | None = None) -> Relation:
    """`bar.sale` with the replica identity `keys`; FULL without."""
    columns = tuple(
        Column(name, oid, -1, keys is None or name in keys) for name, oid in (NAMES if names is None else names).items()
    )
    return Relation(1, "bar", "sale", "f" if keys is None else "d", columns)


TABLE = TableFacts("bar.sale", 1, "r", "p", "f", False, True, False, KEY, tuple(NAMES), ())
SALE = Watch(table="bar.sale", channel="bar:{bar}", event="sale", columns=("id", "state", "note"))


def row(**values: Any) -> Row:
    """A row with defaults."""
    full = {"id": b"1", "bar": b"7", "state": b"open", "note": None, "open": b"t", "extra": b"{}", **values}
    return [full[name] for name in NAMES]


def renderer(*watches: Watch, malformed: list[int] | None = None, **shape: Any) -> Renderer:
    """A renderer of these watches."""
    made = Renderer(
        watches, relation(**shape), TABLE, {}, lambda: malformed.append(1) if malformed is not None else None
    )
    assert made.broken == ""
    return made


def changed(**members: Any) -> Watch:
    """SALE with other members."""
    return Watch(**{name: members.get(name, getattr(SALE, name)) for name in SALE.__struct_fields__})


def gone(*channels: str, key: bytes = b'{"id":1}', event: bytes = b"sale") -> Draft:
    """The event `gone`."""
    return Draft(channels, "gone", b'{"event":"%b","key":%b}' % (event, key))


def test_insert_is_rendered_in_the_order_of_columns() -> None:
    """Data is a JSON object of the columns asked for, NULL being null, in their order."""
    found = renderer(changed(columns=("note", "id", "extra"))).insert(Insert(1, row(note=b'a"\n')))
    assert found == Draft(("bar:7",), "sale", b'{"note":"a\\"\\n","id":1,"extra":{}}')
    assert renderer(SALE).insert(Insert(1, row())) == Draft(("bar:7",), "sale", b'{"id":1,"state":"open","note":null}')


@pytest.mark.parametrize(
    ("absent", "data"),
    [
        ({"note"}, b'{"id":1,"state":"open"}'),
        ({"id"}, b'{"state":"open","note":null}'),
        ({"id", "state"}, b'{"note":null}'),
        ({"id", "state", "note"}, b"{}"),
    ],
)
def test_value_that_was_not_sent_has_no_member(absent: set[str], data: bytes) -> None:
    """An unchanged value stored out of line, which the old row does not show, is absent; the JSON stays sound."""
    new = row(**dict.fromkeys(absent, UNCHANGED))
    inserts_and_updates = changed(operations=frozenset({"insert", "update"}))
    found = renderer(inserts_and_updates, keys={"id", "bar"}).update(Update(1, new, None, False))
    assert found == (None, Draft(("bar:7",), "sale", data))


def test_unchanged_value_is_taken_from_the_old_row() -> None:
    """A full old row, and the key columns of a short one, stand in for what was not sent."""
    new = row(note=UNCHANGED, bar=UNCHANGED)
    old = row(note=b"long")
    both = renderer(SALE).update(Update(1, new, old, True))
    assert both == (None, Draft(("bar:7",), "sale", b'{"id":1,"state":"open","note":"long"}'))
    short = [b"1", b"7", None, None, None, None]
    keyed = renderer(SALE, keys={"id", "bar"}).update(Update(1, new, list(short), False))
    assert keyed == (None, Draft(("bar:7",), "sale", b'{"id":1,"state":"open"}'))


def test_row_that_moves_is_gone_on_the_old_channel() -> None:
    """One UPDATE tells the old channel that the row is gone and the new one what it is."""
    found = renderer(SALE).update(Update(1, row(bar=b"8"), row(), True))
    assert found == (gone("bar:7"), Draft(("bar:8",), "sale", b'{"id":1,"state":"open","note":null}'))


def test_row_that_stays_is_not_gone() -> None:
    """A row that keeps a channel is not `gone` there, whatever else it leaves."""
    both = changed(channel=("bar:{bar}", "state:{state}"))
    left, became = renderer(both).update(Update(1, row(state=b"paid"), row(), True))
    assert left == gone("state:open")
    assert became is not None
    assert became.channels == ("bar:7", "state:paid")


def test_row_whose_key_changes_is_gone_under_the_old_key() -> None:
    """A changed primary key is another row: the old one is gone on all its channels, even the one that it keeps."""
    left, became = renderer(SALE).update(Update(1, row(id=b"2"), row(), True))
    assert left == gone("bar:7")
    assert became is not None
    assert became.channels == ("bar:7",)


def test_where_decides_on_both_rows() -> None:
    """A row that enters `where` appears, one that leaves it is gone, one outside is not told."""
    only = renderer(changed(where={"state": ("open", "held"), "open": True}))
    shut = row(state=b"shut")
    assert only.insert(Insert(1, shut)) is None
    assert only.update(Update(1, shut, row(), True)) == (gone("bar:7"), None)
    assert only.update(Update(1, row(), shut, True))[1] is not None
    assert only.update(Update(1, row(), shut, True))[0] is None
    assert only.update(Update(1, shut, shut, True)) == (None, None)
    assert only.delete(Delete(1, shut, True)) is None
    assert only.delete(Delete(1, row(state=b"held"), True)) == gone("bar:7")


@pytest.mark.parametrize(
    ("column", "wanted", "value", "holds"),
    [
        ("open", True, b"t", True),
        ("open", 1, b"t", False),
        ("open", (True, False), b"f", True),
        ("id", 1, b"1", True),
        ("id", 1.0, b"1", True),
        ("id", "1", b"1", False),
        ("note", None, None, True),
        ("note", "", None, False),
        ("note", (None, "x"), b"x", True),
        ("note", None, b"", False),
        ("extra", {"a": 1}, b'{"a": 1}', True),
    ],
)
def test_where_compares_as_json(column: str, wanted: object, value: bytes | None, holds: bool) -> None:
    """Values are compared after conversion to JSON: true is not 1, 1 is 1.0, NULL is None."""
    only = renderer(changed(where={column: wanted}))
    for _ in range(2):
        assert (only.insert(Insert(1, row(**{column: value}))) is not None) == holds


def test_first_match_renders() -> None:
    """Of several watches the first that takes the operation and matches renders; an event replaces `gone`."""
    opened = changed(event="opened", where={"state": "open"}, operations=frozenset({"insert", "update"}))
    closed = changed(event="closed", where={"state": "shut"}, operations=frozenset({"update"}))
    rest = changed(event="rest", operations=frozenset({"insert", "delete"}))
    several = renderer(opened, closed, rest)
    assert several.insert(Insert(1, row())) == Draft(("bar:7",), "opened", b'{"id":1,"state":"open","note":null}')
    assert several.insert(Insert(1, row(state=b"shut"))) == Draft(
        ("bar:7",), "rest", b'{"id":1,"state":"shut","note":null}'
    )
    assert several.update(Update(1, row(state=b"shut"), row(), True)) == (
        None,
        Draft(("bar:7",), "closed", b'{"id":1,"state":"shut","note":null}'),
    )
    assert several.update(Update(1, row(state=b"lost"), row(), True)) == (gone("bar:7", event=b"opened"), None)
    assert several.delete(Delete(1, row(), True)) == gone("bar:7", event=b"rest")


def test_operations_that_are_not_watched_are_silent() -> None:
    """A watch hears of nothing but its operations."""
    inserts = renderer(changed(operations=frozenset({"insert"})), keys={"id"})
    assert inserts.delete(Delete(1, row(), False)) is None
    assert inserts.update(Update(1, row(bar=b"8"), None, False)) == (None, None)


def test_null_and_malformed_channels() -> None:
    """A NULL makes no event on its channel; a value outside of the grammar neither, but is counted each time."""
    malformed: list[int] = []
    both = renderer(changed(channel=("bar:{bar}", "state:{state}")), malformed=malformed)
    found = both.insert(Insert(1, row(bar=None)))
    assert found is not None
    assert found.channels == ("state:open",)
    assert malformed == []
    for value in (b"", b"a b", b"a:b", b"x" * 65, "é".encode(), b"a\n"):
        found = both.insert(Insert(1, row(state=value)))
        assert found is not None
        assert found.channels == ("bar:7",)
    assert len(malformed) == 6
    assert both.insert(Insert(1, row(state=b"a b", bar=None))) is None
    assert both.insert(Insert(1, row(state=b"a b", bar=None))) is None
    assert len(malformed) == 8


def test_channel_is_named_once() -> None:
    """Two templates that make one name make one channel; literals and several fields are joined."""
    found = renderer(changed(channel=("bar:{bar}", "bar:7", "bar:x-{bar}_{id}"))).insert(Insert(1, row()))
    assert found is not None
    assert found.channels == ("bar:7", "bar:x-7_1")


@pytest.mark.parametrize("column", ["bar", "open"])
def test_needed_value_that_was_not_sent_is_noticed(column: str) -> None:
    """Without the value that a channel or `where` needs, nothing is guessed."""
    only = renderer(changed(where={"open": True}), keys={"id", "bar", "open"})
    with pytest.raises(NotRenderable):
        only.update(Update(1, row(**{column: UNCHANGED}), None, False))


def test_row_of_another_width_is_noticed() -> None:
    """A row that has not as many values as its relation has columns is never rendered."""
    for change in (lambda r: r.insert(Insert(1, [b"1"])), lambda r: r.delete(Delete(1, [b"1"], True))):
        with pytest.raises(NotRenderable):
            change(renderer(SALE))
    with pytest.raises(NotRenderable):
        renderer(SALE).update(Update(1, row(), [b"1"], True))


@pytest.mark.parametrize(
    ("watch", "shape", "says"),
    [
        ({}, {"names": {"id": 20, "bar": 23, "state": 25}}, "no column note"),
        ({}, {"names": {**NAMES, "note": 99_999}}, "unknown type 99999"),
        ({}, {"keys": {"id"}}, "does not show bar"),
        ({}, {"keys": {"bar"}}, "does not show id"),
        ({"where": {"open": True}}, {"keys": {"id", "bar"}}, "does not show open"),
    ],
)
def test_relation_that_does_not_fit_is_broken(watch: dict[str, Any], shape: dict[str, Any], says: str) -> None:
    """Where a table no longer has what its watch needs, the renderer says so and knows which kinds to reset."""
    made = Renderer([changed(**watch)], relation(**shape), TABLE, {}, lambda: None)
    assert says in made.broken
    assert made.kinds == {"bar"}


def test_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of channels and values is rendered right with caches that stay small."""
    monkeypatch.setattr("lastcall.feed.render.CACHE_ENTRIES_MAX", 10)
    only = renderer(changed(where={"id": tuple(range(0, 200, 2))}))
    for _ in range(2):
        for number in range(200):
            found = only.insert(Insert(1, row(id=str(number).encode(), bar=str(number).encode())))
            assert (found.channels if found else None) == (None if number % 2 else (f"bar:{number}",))


def test_type_of_an_extension_is_known_by_its_extension() -> None:
    """citext is text where the extension made it; a type that merely has its name is not supported."""
    ours, other = TypeFacts(20_000, "citext", "b", extension="citext"), TypeFacts(20_001, "citext", "b")
    array = TypeFacts(20_002, "_citext", "b", element=20_000, extension="citext")
    types = {facts.oid: facts for facts in (ours, other, array)}
    assert (codec(20_000, types), codec(20_001, types)) == (string, None)
    assert names_channels(20_000, types) and not names_channels(20_001, types)
    members = codec(20_002, types)
    assert members is not None and members(b'{a,"b c"}') == b'["a","b c"]'
    assert not names_channels(20_002, types)
