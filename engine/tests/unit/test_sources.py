"""The SQL files: which there are, in which order, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lastcall.errors import StartRefused
from lastcall.postgres.sources import application_source, engine_source, hash_of


@dataclass
class Shop:
    """An application's SQL and nothing else."""

    sql: Path
    name: str = "shop"
    schema: str = "shop"
    api_schema: str = "shop_api"


def shop(folder: Path, **files: str) -> Shop:
    for name, text in files.items():
        kind = "migrations" if name[0] == "m" else "routines"
        (folder / kind).mkdir(exist_ok=True)
        (folder / kind / f"{name[1:].lstrip('_')}.sql").write_text(text)
    return Shop(folder)


def test_order(tmp_path: Path) -> None:
    """Migrations go by number; routines by name, each behind those that its header names."""
    source = application_source(
        shop(
            tmp_path,
            m0002_b="select 2",
            m0001_a="select 1",
            r_apple="-- after: pear, fig\nselect 1",
            r_fig="select 1",
            r_banana="select 1",
            r_pear="--after: quince\nselect 1",
            r_quince="select 1",
        )
    )
    assert source.schemas == ("shop", "shop_api")
    assert [file.name for file in source.migrations] == ["0001_a", "0002_b"]
    assert [file.name for file in source.routines] == ["quince", "pear", "fig", "apple", "banana"]


def test_circle(tmp_path: Path) -> None:
    """Routines that wait for each other are refused with the whole circle."""
    app = shop(tmp_path, r_a="-- after: b", r_b="-- after: c", r_c="-- after: a")
    with pytest.raises(StartRefused, match="a → b → c → a"):
        application_source(app)


def test_unknown_name(tmp_path: Path) -> None:
    """A header that names no file is refused."""
    with pytest.raises(StartRefused, match=r"the routine a .* is to come after nothing, which does not exist"):
        application_source(shop(tmp_path, r_a="-- after: nothing"))


def test_only_the_first_line_is_a_header(tmp_path: Path) -> None:
    """A comment further down is a comment."""
    app = shop(tmp_path, r_a="select 1;\n-- after: nothing")
    assert [file.name for file in application_source(app).routines] == ["a"]


@pytest.mark.parametrize("name", ["m1_short", "m0001-dash", "m0001_Upper", "r_Upper", "r_a-b"])
def test_names(tmp_path: Path, name: str) -> None:
    """A file whose name does not follow the rule is refused with the rule."""
    with pytest.raises(StartRefused, match="is not named"):
        application_source(shop(tmp_path, **{name: "select 1"}))


def test_same_number(tmp_path: Path) -> None:
    """Two migrations of one number (two branches merged) are refused."""
    with pytest.raises(StartRefused, match="have the same number"):
        application_source(shop(tmp_path, m0001_a="", m0001_b=""))


def test_missing_folder(tmp_path: Path) -> None:
    """An application without its SQL folder (a broken installation) is refused, and so is one named like the engine."""
    with pytest.raises(StartRefused, match="shop has no SQL folder"):
        application_source(Shop(tmp_path / "nowhere"))
    with pytest.raises(StartRefused, match="takes the engine's name"):
        application_source(Shop(tmp_path, name="lastcall"))


def test_hash() -> None:
    """Line ends and trailing blanks do not count for the hash; anything else does."""
    assert hash_of("select 1;\nselect 2;\n") == hash_of("select 1;  \r\nselect 2;\r\n\r\n")
    assert hash_of("select 1;") != hash_of("select  1;")


def test_engine() -> None:
    """The engine's own SQL is one schema, its first migration the foundation."""
    source = engine_source()
    assert (source.name, source.schemas) == ("lastcall", ("lastcall",))
    assert source.migrations[0].name == "0001_foundation"
    assert {"publish", "revoke", "claims", "now"} <= {file.name for file in source.routines}
