"""Calling a target: decided in SQL, one winner, whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from lastcall.testing.fixtures import Database


def test_exactly_one_wins(war: Database, member: Callable[..., Any]) -> None:
    """Of 40 simultaneous calls for one target exactly one is made; the others learn who holds it."""
    members = [member(1001 + n % 8) for n in range(40)]

    def call(one: Any) -> str:
        try:
            one.ask("call_target", war_id=1, target_id=2001)
        except psycopg.Error as error:
            return error.sqlstate or ""
        return "won"

    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(call, members))
    assert sorted(outcomes) == ["TC001"] * 39 + ["won"]
    assert war.execute("select count(*) from torncat.target_calls where status = 'open'") == [(1,)]


def test_released_target_is_free(war: Database, member: Callable[..., Any]) -> None:
    """A released target can be called again, by anyone, and the ledger keeps both calls."""
    first, second = member(1001), member(1002)
    call = first.ask("call_target", war_id=1, target_id=2001)
    first.ask("release_call", call_id=call["id"])
    assert second.ask("call_target", war_id=1, target_id=2001)["caller_id"] == 1002
    assert war.execute("select caller_id, status from torncat.target_calls order by id") == [
        (1001, "released"),
        (1002, "open"),
    ]


@pytest.mark.parametrize(
    ("war_id", "target_id", "member_id", "faction_id", "code"),
    [
        (1, 1002, 1001, 101, "TC003"),
        (1, 999999, 1001, 101, "TC003"),
        (7, 2001, 1001, 101, "TC002"),
        (1, 2001, 2001, 101, "TC002"),
        (1, 2001, 1001, 202, "TC002"),
    ],
    ids=[
        "own member",
        "unknown target",
        "unknown war",
        "stranger with a forged faction",
        "member in the wrong faction",
    ],
)
def test_what_is_no_call(
    war: Database,
    member: Callable[..., Any],
    war_id: int,
    target_id: int,
    member_id: int,
    faction_id: int,
    code: str,
) -> None:
    """A call that breaks a rule is refused with its number and leaves no row."""
    assert member(member_id, faction_id).refused("call_target", war_id=war_id, target_id=target_id) == code
    assert war.execute("select count(*) from torncat.target_calls") == [(0,)]


def test_an_ended_war_takes_no_calls(war: Database, member: Callable[..., Any]) -> None:
    """Nothing can be called in a war that has ended."""
    war.execute("update torncat.wars set ended_at = lastcall.now()")
    assert member().refused("call_target", war_id=1, target_id=2001) == "TC004"


def test_only_the_caller_releases(war: Database, member: Callable[..., Any]) -> None:
    """A call is released by its caller alone, once; a stranger's faction does not even learn that it exists."""
    mine = member(1001)
    call_id = mine.ask("call_target", war_id=1, target_id=2001)["id"]
    assert member(1002).refused("release_call", call_id=call_id) == "TC005"
    assert member(2001, 202).refused("release_call", call_id=call_id) == "TC006"
    mine.ask("release_call", call_id=call_id)
    assert mine.refused("release_call", call_id=call_id) == "TC006"


def test_a_plain_insert_obeys_the_rules(war: Database) -> None:
    """An INSERT by any client fills in faction and war, and is refused where a call would be."""
    war.execute("insert into torncat.target_calls (caller_id, target_id) values (1003, 2004)")
    assert war.execute("select faction_id, war_id, status from torncat.target_calls") == [(101, 1, "open")]
    with pytest.raises(psycopg.errors.UniqueViolation):
        war.execute("insert into torncat.target_calls (caller_id, target_id) values (1004, 2004)")
    with pytest.raises(psycopg.Error, match="roster"):
        war.execute("insert into torncat.target_calls (caller_id, target_id) values (1004, 1001)")


def test_who_may_hear_a_faction(member: Callable[..., Any]) -> None:
    """A faction is heard by its members alone: neither by the enemy, nor with a token that names another faction."""
    assert member(1001).ask("may_hear_faction", id="101") is True
    assert member(1001).ask("may_hear_faction", id="202") is False
    assert member(2001, 202).ask("may_hear_faction", id="101") is False
    assert member(2001, 101).ask("may_hear_faction", id="101") is False
    assert member(1001).ask("may_hear_faction", id="nonsense") is False


def test_the_board(member: Callable[..., Any]) -> None:
    """The state of a faction is its board: both rosters, the war, the open calls; a stranger gets none."""
    mine = member(1001)
    call = mine.ask("call_target", war_id=1, target_id=2001)
    board = mine.ask("faction_state", id="101")
    assert board["faction"]["id"] == 101
    assert board["enemy"]["id"] == 202
    assert board["war"]["id"] == 1
    assert len(board["members"]) == 8
    assert len(board["targets"]) == 20
    assert [c["id"] for c in board["calls"]] == [call["id"]]
    assert member(2001, 202).ask("faction_state", id="101") is None


def test_the_demonstration_moves(war: Database) -> None:
    """Every move of the demonstration keeps the rules, and a second seed changes nothing."""
    war.execute("select torncat_api.demo_seed()")
    moves = {war.execute("select torncat_api.demo_step()")[0][0] for _ in range(30)}
    assert "called" in moves
    open_calls = war.execute(
        "select count(*), count(distinct target_id) from torncat.target_calls where status = 'open'"
    )
    assert open_calls[0][0] == open_calls[0][1] > 0
