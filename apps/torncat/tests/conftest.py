"""What the tests of C.A.T. share: a database with two factions at war."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql

from lastcall import App
from lastcall.testing.fixtures import Database
from torncat.app import app


class Member:
    """One member of a faction, as SQL sees them."""

    def __init__(self, database: Database, member_id: int, faction_id: int = 101) -> None:
        self._connection = psycopg.connect(database.authenticator_url, autocommit=True)
        self._claims = json.dumps({"sub": str(member_id), "role": "member", "faction_id": str(faction_id)})

    def ask(self, function: str, **arguments: Any) -> Any:
        """Call `torncat_api.{function}` with named arguments in one transaction of this member."""
        named = sql.SQL(", ").join(
            sql.SQL("{} => {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in arguments.items()
        )
        statement = sql.SQL("select {}({})").format(sql.Identifier("torncat_api", function), named)
        with self._connection.transaction():
            self._connection.execute("set local role member")
            self._connection.execute("select set_config('lastcall.claims', %s, true)", (self._claims,))
            row = self._connection.execute(statement).fetchone()
        assert row is not None
        return row[0]

    def refused(self, function: str, **arguments: Any) -> str:
        """The SQLSTATE with which the call is refused. Fails when it is not."""
        try:
            answer = self.ask(function, **arguments)
        except psycopg.Error as error:
            return error.sqlstate or ""
        raise AssertionError(f"{function} was not refused: {answer}")

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()


@pytest.fixture(scope="session")
def database_apps() -> Sequence[App]:
    """C.A.T. in every database of these tests."""
    return (app,)


@pytest.fixture
def war(database: Database) -> Database:
    """The demonstration's two factions (101 with members 1001…1008, 202 with 2001…2020) in war 1."""
    database.execute("select torncat_api.demo_seed()")
    return database


@pytest.fixture
def member(war: Database) -> Iterator[Callable[..., Member]]:
    """Makes members of the war, and closes their connections."""
    made: list[Member] = []

    def make(member_id: int = 1001, faction_id: int = 101) -> Member:
        made.append(Member(war, member_id, faction_id))
        return made[-1]

    yield make
    for one in made:
        one.close()
