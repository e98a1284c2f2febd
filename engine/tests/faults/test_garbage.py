"""Whatever is sent, the answer is a numbered problem or a close, never a stack trace, and the server goes on."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import httpx
import pytest

from lastcall.testing.fixtures import Database, Databases
from lastcall.testing.sample import app as sample
from lastcall.testing.server import Server
from lastcall.testing.serving import Serve
from lastcall.testing.storm import SEED

FUZZED = 300
READ_TIMEOUT_S = 5.0


@pytest.fixture
def server(sample_database: Database, serve: Serve) -> Iterator[Server]:
    """A node with the sample application; whatever a test sent, it is still alive and has said no traceback."""
    node = serve(sample_database, log_level="info")
    yield node
    assert httpx.get(f"{node.url}/healthz", timeout=5.0).status_code == 200
    assert "Traceback" not in node.log, node.log
    assert "hunter2" not in httpx.get(f"{node.url}/metrics", timeout=5.0).text


def exchange(server: Server, data: bytes) -> bytes:
    """Send bytes, and read until the server closes or says nothing for a while."""
    with socket.create_connection(("127.0.0.1", server.port), READ_TIMEOUT_S) as wire:
        wire.settimeout(0.5)
        answer = b""
        try:
            wire.sendall(data)
            while chunk := wire.recv(65536):
                answer += chunk
        except (TimeoutError, ConnectionError):
            pass
        return answer


def mutate(chance: random.Random, data: bytes) -> bytes:
    """Flip, cut, repeat or insert bytes."""
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + data[at : at + 20] + data[at:]
            case _:
                data = data[:at] + chance.randbytes(8) + data[at:]
        data = data or b"\x00"
    return data


def test_mutated_requests(server: Server) -> None:
    """Hundreds of mutated requests of every kind leave the server alive and silent about itself."""
    chance = random.Random(SEED)
    token = server.token()
    originals = [
        f"GET /events?channel=topic:t0&wait=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode(),
        f"POST /rpc/sample.echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\n"
        'Content-Length: 11\r\n\r\n{"value":1}'.encode(),
        b"GET /events?channel=topic:t0 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"GET /events?channel=topic:t0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
    ]
    for _ in range(FUZZED):
        with socket.create_connection(("127.0.0.1", server.port), READ_TIMEOUT_S) as wire:
            wire.settimeout(0.02)
            try:
                wire.sendall(mutate(chance, chance.choice(originals)))
                assert b"Traceback" not in wire.recv(65536)
            except (TimeoutError, ConnectionError):
                continue


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("GET", "/events", {}, None, 400, "LC408"),
        ("GET", "/events?channel=Topic:x", {}, None, 400, "LC401"),
        ("GET", "/events?channel=nothing:x", {}, None, 404, "LC409"),
        ("GET", "/events?channel=topic:t0&position=abc", {}, None, 400, "LC403"),
        ("GET", "/events?channel=topic:t0", {"Authorization": ""}, None, 403, "LC305"),
        ("GET", "/events?channel=topic:t0", {"Authorization": "Bearer x.y.z"}, None, 401, "LC302"),
        ("GET", "/events?" + "&".join(f"channel=topic:t{n}" for n in range(1200)), {}, None, 414, "LC104"),
        ("GET", "/events?" + "&".join(f"channel=topic:t{n}" for n in range(101)), {}, None, 400, "LC402"),
        ("GET", "/state/topic", {}, None, 400, "LC401"),
        ("GET", "/state/nothing:x", {}, None, 404, "LC409"),
        ("GET", "/nowhere", {}, None, 404, "LC105"),
        ("GET", "/rpc/sample.echo", {}, None, 405, "LC106"),
        ("POST", "/rpc/sample.nothing", {}, b"{}", 404, "LC107"),
        ("POST", "/rpc/pg_catalog.pg_sleep", {}, b"{}", 404, "LC107"),
        ("POST", "/rpc/sample.echo", {}, b"{", 400, "LC102"),
        ("POST", "/rpc/sample.echo", {}, b"[]", 400, "LC102"),
        ("POST", "/rpc/sample.echo", {}, b"{}", 422, "LC108"),
        ("POST", "/rpc/sample.echo", {}, b'{"value": 1, "other": 2}', 422, "LC108"),
        ("POST", "/rpc/sample.delete_note", {}, b'{"id": "no number"}', 422, "LC108"),
        ("POST", "/rpc/sample.echo", {"Content-Type": "text/plain"}, b"{}", 415, "LC109"),
        ("POST", "/rpc/sample.echo", {}, b'{"value": "' + b"x" * (1 << 20) + b'"}', 413, "LC103"),
        ("POST", "/rpc/sample.misbehave", {}, b'{"how": "refuse"}', 409, "SA001"),
        ("POST", "/rpc/sample.misbehave", {}, b'{"how": "rule"}', 400, "LC112"),
        ("POST", "/rpc/sample.misbehave", {}, b'{"how": "secret"}', 500, "LC100"),
        ("POST", "/rpc/sample.misbehave", {}, b'{"how": "serialization"}', 503, "LC210"),
        ("POST", "/rpc/sample.misbehave", {"Idempotency-Key": "k" * 65}, b'{"how": ""}', 400, "LC005"),
        ("POST", "/rpc/sample.misbehave", {"Idempotency-Key": "k1"}, b'{"how": "large"}', 413, "LC003"),
        ("POST", "/rpc/sample.ban", {}, b'{"subject": "a", "topic": "b"}', 404, "LC107"),
        ("POST", "/channels/topic:t0/events", {}, b'{"event": "note", "data": 1}', 403, "LC304"),
        (
            "POST",
            "/batch",
            {},
            b"[" + b",".join([b'{"function":"sample.echo","arguments":{}}'] * 21) + b"]",
            400,
            "LC110",
        ),
    ],
)
def test_numbered_refusals(
    session_server: Server, method: str, path: str, headers: dict[str, str], body: bytes | None, status: int, code: str
) -> None:
    """What cannot be served is refused with its number, in the language asked for, without a word about the inside."""
    all_headers = {"Authorization": f"Bearer {session_server.token()}", "Content-Type": "application/json"} | headers
    all_headers = {name: value for name, value in all_headers.items() if value}
    answer = httpx.request(
        method,
        session_server.url + path,
        headers=all_headers | {"Accept-Language": "fr"},
        content=body,
        timeout=10.0,
    )
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert "hunter2" not in answer.text
    assert "pg_" not in problem.get("detail", "")
    if status in {429, 503}:
        assert int(answer.headers["retry-after"]) >= 1
    if path.startswith("/events") and status == 401:
        assert problem["title"].startswith("Le jeton")


@pytest.fixture(scope="module")
def session_server(session_databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One node for all refusals: they change nothing."""
    database = session_databases.create((sample,))
    settings = {
        "database_url": database.owner_url,
        "slot": database.config.slot,
        "apps": "lastcall.testing.sample:app",
        "statement_timeout_s": "2",
    }
    from lastcall.testing.waiting import free_port

    server = Server(free_port(), tmp_path_factory.mktemp("node"), settings, database.config.jwt_secret).start()
    yield server
    server.stop()
    assert "hunter2" not in server.log.split("incident", 1)[0]
    session_databases.drop_all()


def test_pipelined_requests_on_a_stream(server: Server) -> None:
    """Requests pipelined behind a stream are never answered on it; the stream is either refused or closed."""
    ask = (
        f"GET /events?channel=topic:t0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {server.token()}\r\n\r\n"
    ).encode()
    answer = exchange(server, ask + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") <= 1


def test_head_and_http_1_0(server: Server) -> None:
    """HEAD gets the headers of a stream and no stream; HTTP/1.0 gets an unchunked one."""
    rest = f"Host: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {server.token()}\r\n\r\n"
    head = exchange(server, f"HEAD /events?channel=topic:t0 HTTP/1.1\r\n{rest}".encode())
    assert b"event: joined" not in head
    old = exchange(server, f"GET /events?channel=topic:t0 HTTP/1.0\r\n{rest}".encode())
    assert b"event: joined" in old
    assert b"chunked" not in old.split(b"\r\n\r\n")[0].lower()


def test_a_megabyte_of_url(server: Server) -> None:
    """A request target of a megabyte is refused, with a number where the server still reads it."""
    answer = exchange(server, b"GET /events?channel=" + b"x" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer == b"" or answer.split(b" ")[1] in {b"400", b"414", b"431"}
