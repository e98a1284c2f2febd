"""The gateway over HTTP on a real PostgreSQL: calls, batches, publications, states, and everything refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from lastcall.app import App
from lastcall.position import Position
from lastcall.testing.desk import define
from lastcall.testing.fixtures import Database, Databases
from lastcall.testing.house import EPOCH, House, house
from lastcall.testing.sample import app as sample
from lastcall.testing.waiting import eventually_async

NOTE = {"topic": "t", "writer": 1, "number": 1}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="session")
def database_apps() -> Sequence[App]:
    return (sample,)


@pytest.fixture
async def home(database: Database) -> AsyncIterator[House]:
    async with house(database) as made:
        yield made


@pytest.fixture
async def member(home: House) -> AsyncIterator[httpx.AsyncClient]:
    async with home.client(home.token()) as client:
        yield client


@pytest.fixture
async def service(home: House) -> AsyncIterator[httpx.AsyncClient]:
    async with home.client(home.token("service", "s1")) as client:
        yield client


@pytest.fixture
async def stranger(home: House) -> AsyncIterator[httpx.AsyncClient]:
    async with home.client() as client:
        yield client


def problem(response: httpx.Response, number: str) -> dict[str, Any]:
    """The problem document, which must have this number."""
    document: dict[str, Any] = response.json()
    assert document["code"] == number, document
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == document["status"]
    assert ("retry-after" in response.headers) == (response.status_code in {429, 503})
    return document


async def test_a_call_answers_value_and_position(member: httpx.AsyncClient, database: Database) -> None:
    """200 with the function's value as JSON, and a position of this epoch."""
    response = await member.post("/rpc/sample.write_note", json=NOTE)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert database.execute("select id from sample.note") == [(response.json(),)]
    position = Position.parse(response.headers["lastcall-position"])
    assert (position.epoch, position.ordinal) == (EPOCH, 0)
    assert response.headers["cache-control"] == "no-store"
    assert "lastcall-replayed" not in response.headers


async def test_no_position_before_there_is_a_stream(database: Database) -> None:
    """Before the feed has begun, a call is answered without a position rather than with a wrong one."""
    async with house(database) as home, home.client(home.token()) as client:
        home.hub.head = Position("0", 0, 0)
        response = await client.post("/rpc/sample.echo", json={"value": 1})
        assert (response.status_code, response.json()) == (200, 1)
        assert "lastcall-position" not in response.headers


@pytest.mark.parametrize(
    ("body", "headers", "number"),
    [
        (b"{", JSON, "LC102"),
        (b"[]", JSON, "LC102"),
        (b'{"value": 1} x', JSON, "LC102"),
        (b'{"value": "\xff"}', JSON, "LC102"),
        (b'{"value": "\0"}', JSON, "LC102"),
        (b'{"value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON, "LC102"),
        (b'{"value": 1}', {}, "LC109"),
        (b'{"value": 1}', {"Content-Type": "text/plain"}, "LC109"),
        (b'{"value": 1}', JSON | {"Content-Encoding": "gzip"}, "LC109"),
        (b'{"value": "' + b"x" * (1 << 20) + b'"}', JSON, "LC103"),
        (b"{}", JSON, "LC108"),
        (b"", {}, "LC108"),
    ],
)  # fmt: skip
async def test_bodies_that_are_none(
    member: httpx.AsyncClient, body: bytes, headers: dict[str, str], number: str
) -> None:
    """Each kind of bad body has its number."""
    problem(await member.post("/rpc/sample.echo", content=body, headers=headers), number)


async def test_a_body_without_a_length_is_bounded_too(member: httpx.AsyncClient) -> None:
    """A chunked body is cut off at the limit."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b'"' + b"x" * 10_000

    problem(await member.post("/rpc/sample.echo", content=endless(), headers=JSON), "LC103")


async def test_a_body_that_does_not_come_is_not_waited_for(databases: Databases, database_apps: Sequence[App]) -> None:
    """A client that begins a body and says no more is refused after the bound."""
    database = databases.create(database_apps, {"body_wait_max_s": 0.1})

    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with house(database) as home, home.client(home.token()) as client:
        problem(await client.post("/rpc/sample.echo", content=stalled(), headers=JSON), "LC101")


async def test_an_empty_body_is_no_arguments(database: Database) -> None:
    """A function without arguments is called without a body."""
    define(database, "one() returns int language sql as 'select 1'")
    async with house(database) as home, home.client() as client:
        assert (await client.post("/rpc/sample.one")).json() == 1


@pytest.mark.parametrize(
    "name", ["sample.nowhere", "sample", "other.echo", "sample.", "sample.echo.x", "lastcall.publish"]
)
async def test_functions_that_are_not_there(member: httpx.AsyncClient, name: str) -> None:
    """LC107, whatever the reason."""
    problem(await member.post(f"/rpc/{name}", json={}), "LC107")


async def test_functions_that_are_not_for_this_role(member: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    """Another role's function is unknown to a token, and asks a stranger for one."""
    problem(await member.post("/rpc/sample.ban", json={"subject": "u", "topic": "t"}), "LC107")
    problem(await stranger.post("/rpc/sample.write_note", json=NOTE), "LC301")
    assert (await stranger.post("/rpc/sample.echo", json={"value": 1})).json() == 1


async def test_bad_tokens(home: House, stranger: httpx.AsyncClient) -> None:
    """A bad, an expired and a foreign token and a ticket are refused, and never taken for none."""
    expired = home.tokens.mint("u1", "member", {}, -1)
    ticket = home.tokens.ticket(home.tokens.verify(home.token()))
    for token, number in (("x.y.z", "LC302"), (expired, "LC303"), (ticket, "LC302")):
        response = await stranger.post(
            "/rpc/sample.echo", json={"value": 1}, headers={"Authorization": f"Bearer {token}"}
        )
        assert token not in json.dumps(problem(response, number))


async def test_arguments_are_named(member: httpx.AsyncClient) -> None:
    """A wrong argument is named with what is wrong, in the language that is asked for."""
    response = await member.post(
        "/rpc/sample.write_note", json=NOTE | {"writer": "x"}, headers={"Accept-Language": "fr"}
    )
    document = problem(response, "LC108")
    assert document["facts"] == {"arguments": {"writer": "expected an integer"}}
    assert document["title"] == "Les arguments ne conviennent pas à la fonction."


async def test_a_mistake_of_the_server_shows_nothing_of_it(
    member: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """LC100 has an incident number, which finds the error in the log, and nothing else."""
    document = problem(await member.post("/rpc/sample.misbehave", json={"how": "secret"}), "LC100")
    assert "hunter2" not in json.dumps(document)
    assert document["incident"] in capsys.readouterr().out


async def test_a_function_of_the_application_refuses_with_its_own_number(member: httpx.AsyncClient) -> None:
    """Number, title and facts are the application's."""
    document = problem(await member.post("/rpc/sample.misbehave", json={"how": "refuse"}), "SA001")
    assert (document["title"], document["facts"]) == ("You asked for this refusal.", {"asked": True})


async def test_a_key_applies_once_over_http(member: httpx.AsyncClient, database: Database) -> None:
    """The repetition, in another order and spacing, gets the stored answer, marked as such."""
    headers = JSON | {"Idempotency-Key": "k-1"}
    first = await member.post("/rpc/sample.write_note", content=json.dumps(NOTE), headers=headers)
    again = await member.post(
        "/rpc/sample.write_note", content=json.dumps(dict(reversed(NOTE.items())), indent=3), headers=headers
    )
    assert (first.json(), again.headers["lastcall-replayed"]) == (again.json(), "true")
    assert "lastcall-position" in again.headers
    assert database.execute("select count(*) from sample.note") == [(1,)]
    problem(await member.post("/rpc/sample.write_note", json=NOTE | {"number": 2}, headers=headers), "LC002")


async def test_keys_that_are_none(home: House, member: httpx.AsyncClient) -> None:
    """A malformed key, two keys, and a key without a subject are refused before anything happens."""
    for key in ("", "a b", "x" * 65, "é"):
        response = await member.post(
            "/rpc/sample.write_note", json=NOTE, headers={"Idempotency-Key": key.encode("latin-1")}
        )
        problem(response, "LC005")
    two = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Content-Type", "application/json")]
    problem(await member.post("/rpc/sample.write_note", content=json.dumps(NOTE), headers=two), "LC101")
    async with home.client(home.token(subject=None)) as nobody:
        response = await nobody.post("/rpc/sample.write_note", json=NOTE, headers={"Idempotency-Key": "k"})
        problem(response, "LC004")


async def test_a_batch_answers_each_call(member: httpx.AsyncClient, database: Database) -> None:
    """In order, each its own transaction: a failed one stops nothing, a key repeats its answer."""
    calls = [
        {"function": "sample.write_note", "arguments": NOTE, "key": "b1"},
        {"function": "sample.misbehave", "arguments": {"how": "rule"}},
        {"function": "sample.nowhere"},
        {"function": "sample.echo", "arguments": {"value": {"deep": [1]}}},
        {"function": "sample.write_note", "arguments": NOTE, "key": "b1"},
    ]
    response = await member.post("/batch", json=calls, headers={"Accept-Language": "fr"})
    answers = response.json()
    assert [answer["status"] for answer in answers] == [200, 400, 404, 200, 200]
    assert answers[3]["value"] == {"deep": [1]}
    assert answers[1]["problem"]["code"] == "LC112"
    assert answers[1]["problem"]["title"] == "Une règle de l'application a refusé cette demande."
    assert answers[4]["value"] == answers[0]["value"]
    assert answers[4]["replayed"] is True
    assert all("position" in answer for answer in answers if answer["status"] == 200)
    assert database.execute("select count(*) from sample.note") == [(1,)]


async def test_a_key_is_one_in_a_batch_and_alone(member: httpx.AsyncClient, database: Database) -> None:
    """What was sent in a batch and is repeated alone (or the other way) applies once."""
    await member.post("/batch", json=[{"function": "sample.write_note", "arguments": NOTE, "key": "k"}])
    alone = await member.post("/rpc/sample.write_note", json=NOTE, headers={"Idempotency-Key": "k"})
    assert alone.headers["lastcall-replayed"] == "true"
    assert database.execute("select count(*) from sample.note") == [(1,)]


async def test_batches_that_are_none(member: httpx.AsyncClient) -> None:
    """Too long, and not a list of calls."""
    call = {"function": "sample.echo", "arguments": {"value": 1}}
    assert problem(await member.post("/batch", json=[call] * 21), "LC110")["facts"] == {"calls_max": 20}
    assert len((await member.post("/batch", json=[call] * 20)).json()) == 20
    assert (await member.post("/batch", json=[])).json() == []
    for body in ({}, [1], [{"arguments": {}}], [{"function": "sample.echo", "arguments": []}]):
        problem(await member.post("/batch", json=body), "LC102")


async def test_too_many_requests(databases: Databases, database_apps: Sequence[App]) -> None:
    """A subject has its own count; what is beyond it is LC111 with the time to wait; batches count each call."""
    database = databases.create(database_apps, {"requests_per_minute_max": 5})
    async with house(database) as home, home.client(home.token()) as one, home.client(home.token(subject="u2")) as two:
        call = {"function": "sample.echo", "arguments": {"value": 1}}
        assert (await one.post("/batch", json=[call] * 5)).status_code == 200
        document = problem(await one.post("/rpc/sample.echo", json={"value": 1}), "LC111")
        assert 1 <= document["retry_after_s"] <= 60
        assert (await two.post("/rpc/sample.echo", json={"value": 1})).status_code == 200
        async with home.client("bad.token.here") as guesser:
            for _ in range(5):
                problem(await guesser.post("/rpc/sample.echo", json={"value": 1}), "LC302")
            problem(await guesser.post("/rpc/sample.echo", json={"value": 1}), "LC111")


async def test_publishing(service: httpx.AsyncClient, database: Database) -> None:
    """202 with the position, after COMMIT: the message is in the log, its data as it was given."""
    with database.superuser() as superuser:
        superuser.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [f"{database.name}_g"])
        superuser.execute("create publication nothing")
        for data in ({"a": [1, None]}, None, "text"):
            response = await service.post("/channels/topic:t/events", json={"event": "hello", "data": data})
            assert response.status_code == 202
            assert Position.parse(response.json()["position"]).epoch == EPOCH

        def messages() -> list[bytes]:
            rows = superuser.execute(
                "select data from pg_logical_slot_peek_binary_changes(%s, null, null, 'proto_version', '1', "
                "'publication_names', 'nothing', 'messages', 'true')",
                [f"{database.name}_g"],
            ).fetchall()
            return [row[0] for row in rows if row[0][:1] == b"M"]  # type: ignore[index]

        found = await eventually_async(lambda: len(messages()) == 3 and messages())
    contents = [json.loads(message[message.index(b"{") :]) for message in found or []]
    assert [content["data"] for content in contents] == [{"a": [1, None]}, None, "text"]


async def test_publications_that_are_refused(
    service: httpx.AsyncClient, member: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    """Only the role `service` publishes, on a channel that exists, an event of its own name and of bounded size."""
    event = {"event": "hello", "data": 1}
    problem(await member.post("/channels/topic:t/events", json=event), "LC304")
    problem(await stranger.post("/channels/topic:t/events", json=event), "LC301")
    problem(await service.post("/channels/unknown:t/events", json=event), "LC409")
    problem(await service.post("/channels/nonsense/events", json=event), "LC401")
    for bad in ({"event": "reset", "data": 1}, {"event": "Hello", "data": 1}, {"event": "a", "data": "x" * 70_000}):
        problem(await service.post("/channels/topic:t/events", json=bad), "LC410")
    for bad in ({"event": "a"}, {"data": 1}, [1]):
        problem(await service.post("/channels/topic:t/events", json=bad), "LC102")


async def test_describing_a_channel(
    service: httpx.AsyncClient, member: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    """Listeners, head and floor, for a service and for whoever may listen."""
    for client in (service, member):
        described = (await client.get("/channels/topic:t")).json()
        assert (described["channel"], described["listeners"]) == ("topic:t", 0)
        assert Position.parse(described["head"]) >= Position.parse(described["floor"])
    problem(await stranger.get("/channels/topic:t"), "LC301")
    await service.post("/rpc/sample.ban", json={"subject": "u1", "topic": "t"})
    problem(await member.get("/channels/topic:t"), "LC305")
    problem(await member.get("/channels/nothing:t"), "LC409")


async def test_state_with_its_tag(home: House, member: httpx.AsyncClient) -> None:
    """The state at the head; unchanged it is 304 with the position of now."""
    await member.post("/rpc/sample.write_note", json=NOTE)
    first = await member.get("/state/topic:t")
    assert first.status_code == 200
    assert first.json()["position"] == str(home.hub.head) == first.headers["lastcall-position"]
    assert [note["number"] for note in first.json()["state"]["notes"]] == [1]
    assert first.headers["cache-control"] == "private, no-store"
    home.hub.advance(Position(EPOCH, (1 << 40) + 1, 0))
    for tags in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        same = await member.get("/state/topic:t", headers={"If-None-Match": tags})
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["lastcall-position"] == str(home.hub.head)
        assert same.headers["etag"] == first.headers["etag"]
    await member.post("/rpc/sample.write_note", json=NOTE)
    changed = await member.get("/state/topic:t", headers={"If-None-Match": first.headers["etag"]})
    assert (changed.status_code, len(changed.json()["state"]["notes"])) == (200, 2)


async def test_states_that_are_refused(
    home: House, service: httpx.AsyncClient, member: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    """No right, no state, no such channel, and a node that is not ready."""
    problem(await stranger.get("/state/topic:t"), "LC301")
    problem(await member.get("/state/quiet:t"), "LC105")
    problem(await member.get("/state/nothing:t"), "LC409")
    problem(await member.get("/state/%00"), "LC401")
    await service.post("/rpc/sample.ban", json={"subject": "u1", "topic": "t"})
    problem(await member.get("/state/topic:t"), "LC305")
    assert (await member.get("/state/topic:other")).status_code == 200
    home.hub.set_ready(False)
    problem(await member.get("/state/topic:other"), "LC204")


async def test_the_catalogue_follows_the_database(home: House, member: httpx.AsyncClient, database: Database) -> None:
    """A new function is called without a restart; an overload hides the name; a revoked right is felt at once."""
    problem(await member.post("/rpc/sample.fresh"), "LC107")
    define(database, "fresh() returns int language sql as 'select 1'")
    await eventually_async(lambda: answered(member, "/rpc/sample.fresh", 1))
    database.execute("revoke execute on function sample_api.fresh from member")
    problem(await member.post("/rpc/sample.fresh"), "LC304")
    database.execute("grant execute on function sample_api.fresh to member")
    database.execute("create function sample_api.fresh(a int) returns int language sql as 'select a'")
    await home.catalogue.load()
    problem(await member.post("/rpc/sample.fresh"), "LC107")


async def answered(client: httpx.AsyncClient, path: str, value: object) -> bool:
    response = await client.post(path)
    return response.status_code == 200 and bool(response.json() == value)


@pytest.mark.parametrize(
    "definition",
    [
        "f(int) returns int language sql as 'select $1'",
        "f(variadic a int[]) returns int language sql as 'select a[1]'",
        "f(a anyelement) returns anyelement language sql as 'select a'",
        "f() returns record language sql as 'select 1, 2'",
        "f() returns trigger language plpgsql as 'begin return null; end'",
    ],
)
async def test_what_json_cannot_call_is_not_exposed(database: Database, definition: str) -> None:
    """Unnamed, variadic and polymorphic arguments, shapeless results and triggers have no address."""
    database.execute(f"create function sample_api.{definition}")
    async with house(database) as home, home.client(home.token()) as client:
        problem(await client.post("/rpc/sample.f", json={}), "LC107")


async def test_addresses_and_methods(member: httpx.AsyncClient) -> None:
    """Nothing there: LC105. Another method: LC106 naming those that are taken."""
    problem(await member.get("/nowhere"), "LC105")
    for method, path, allowed in (
        ("GET", "/rpc/sample.echo", "POST"),
        ("DELETE", "/batch", "POST"),
        ("POST", "/state/topic:t", "GET, HEAD"),
        ("PUT", "/openapi.json", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ):
        response = await member.request(method, path)
        problem(response, "LC106")
        assert response.headers["allow"] == allowed


async def test_the_description_is_the_askers(member: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    """Each role sees its functions, with arguments, defaults and comments; the other paths are there for all."""
    mine, open_to_all = (await member.get("/openapi.json")).json(), (await stranger.get("/openapi.json")).json()
    assert mine["openapi"] == "3.1.0"
    assert "/rpc/sample.write_note" in mine["paths"]
    assert "/rpc/sample.ban" not in mine["paths"]
    assert {path for path in open_to_all["paths"] if path.startswith("/rpc/")} == {
        "/rpc/sample.echo",
        "/rpc/sample.may_hear",
    }
    operation = mine["paths"]["/rpc/sample.write_note"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert operation["summary"] == "Write a note on a topic and return its id."
    assert schema["required"] == ["topic", "writer", "number"]
    assert schema["properties"]["writer"]["type"] == ["integer", "null"]
    assert {"/events", "/state/{channel}", "/channels/{channel}/events", "/batch"} <= open_to_all["paths"].keys()


async def test_usage_is_counted_and_written(home: House, member: httpx.AsyncClient, database: Database) -> None:
    """Requests per day, subject and kind reach the table, added to what is there; a failed write is kept."""
    for _ in range(3):
        await member.post("/rpc/sample.echo", json={"value": 1})
    await member.get("/state/topic:t")
    await home.usage.flush()
    await member.post("/rpc/sample.echo", json={"value": 1})
    database.execute("revoke execute on function lastcall.add_usage from lastcall_authenticator")
    await home.usage.flush()
    database.execute("grant execute on function lastcall.add_usage to lastcall_authenticator")
    await home.usage.flush()
    rows = database.execute("select subject, kind, count from lastcall.usage where day = current_date order by kind")
    assert rows == [("u1", "rpc", 4), ("u1", "state", 1)]


async def test_requests_are_counted_by_route_and_status(home: House, member: httpx.AsyncClient) -> None:
    """The meter knows routes, never paths, and `/metrics` shows it."""
    await member.post("/rpc/sample.echo", json={"value": 1})
    await member.post("/rpc/sample.nowhere", json={})
    assert home.meter.requests[("/rpc/{function}", 200)] == 1
    assert home.meter.requests[("/rpc/{function}", 404)] == 1
    text = (await member.get("/metrics")).text
    assert 'lastcall_requests_total{route="/rpc/{function}",status="404"} 1.0' in text


async def test_many_callers_at_once(home: House, database: Database) -> None:
    """Fifty callers share a few connections, and each gets its own answer."""
    async with home.client(home.token()) as client:
        responses = await asyncio.gather(
            *[client.post("/rpc/sample.echo", json={"value": number}) for number in range(50)]
        )
    assert [response.json() for response in responses] == list(range(50))
