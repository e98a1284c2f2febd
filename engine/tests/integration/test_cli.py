"""The command line on the embedded database, as a user types it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lastcall.config import ENVIRONMENT_PREFIX
from lastcall.testing.server import Server
from lastcall.testing.serving import SAMPLE
from lastcall.testing.waiting import eventually, free_port

STOP_MAX_S = 3.0


def run(server: Server, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`lastcall …` in the server's folder, with the server's secret."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    environment |= {"LASTCALL_JWT_SECRET": server.secret, "NO_COLOR": "1", "COLUMNS": "200", **settings}
    return subprocess.run(
        [sys.executable, "-m", "lastcall", *arguments],
        cwd=server.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node with the sample application on the embedded database."""
    server = Server(free_port(), tmp_path_factory.mktemp("embedded"), {"apps": SAMPLE}).start()
    yield server
    server.stop()


def test_publish_and_tail(embedded: Server) -> None:
    """What `publish` says is what `tail` prints, with the id that `publish` has printed or passed."""
    environment = os.environ | {"LASTCALL_JWT_SECRET": embedded.secret}
    with subprocess.Popen(
        [sys.executable, "-m", "lastcall", "tail", "topic:t1", "--url", embedded.url, "--json"],
        cwd=embedded.folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as tail:
        assert tail.stdout is not None
        assert '"joined"' in tail.stdout.readline()
        said = run(embedded, "publish", "topic:t1", "hello", '{"a": 1}', "--url", embedded.url)
        assert said.returncode == 0, said.stderr
        line = tail.stdout.readline()
        assert '"hello"' in line
        assert '{"a":1}' in line
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 0


def test_publish_is_refused_in_a_sentence(embedded: Server) -> None:
    """A refusal is one sentence with its number on standard error, and no stack trace."""
    said = run(embedded, "publish", "nothing:1", "hello", "{}", "--url", embedded.url)
    assert said.returncode != 0
    assert "LC409" in said.stderr
    assert "Traceback" not in said.stderr


def test_no_server_there() -> None:
    """Publishing to nobody says so in a sentence."""
    nowhere = Server(free_port(), Path.cwd())
    said = run(nowhere, "publish", "topic:t1", "hello", "{}", "--url", nowhere.url)
    assert said.returncode != 0
    assert "does not answer" in said.stderr


def test_token(embedded: Server) -> None:
    """A minted token opens what its role and claims may, and carries the claims."""
    made = run(embedded, "token", "--role", "member", "--sub", "ada", "--claim", "level=3", "--claim", "name=Ada")
    assert made.returncode == 0, made.stderr
    answer = httpx.get(
        f"{embedded.url}/events?channel=topic:t1&wait=0", headers={"Authorization": f"Bearer {made.stdout.strip()}"}
    )
    assert answer.status_code == 200
    assert run(embedded, "token", "--role", "owner").returncode != 0


def test_bench_counts(embedded: Server) -> None:
    """`bench` ends well only when every listener got every event."""
    said = run(
        embedded, "bench", "topic:b1", "--url", embedded.url, "--listeners", "10", "--events", "40", "--publishers", "4"
    )
    assert said.returncode == 0, said.stderr
    assert "deliveries/s" in said.stdout


def test_doctor_beside_a_running_server(embedded: Server) -> None:
    """`doctor` examines the embedded database while the server runs, and finds nothing wrong."""
    said = run(embedded, "doctor")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "wal_level" in said.stdout


def test_a_second_server_is_refused(embedded: Server) -> None:
    """A second server on the same data folder is refused, naming the process that has it."""
    second = Server(free_port(), embedded.folder, {"apps": SAMPLE, "data": str(embedded.folder / "data")})
    said = run(second, "serve", "--port", str(second.port), LASTCALL_APPS=SAMPLE)
    assert said.returncode != 0
    assert embedded.process is not None
    assert str(embedded.process.pid) in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"LASTCALL_HEARTBEET_S": "1"}, "heartbeet_s"),
        ({"LASTCALL_PORT": "many"}, "port"),
        ({"LASTCALL_WINDOW_S": "-1"}, "window_s"),
        ({"LASTCALL_APPS": "nothing"}, "nothing"),
        ({"LASTCALL_DATABASE_URL": "postgresql://127.0.0.1:1/none"}, "127.0.0.1"),
    ],
)
def test_a_wrong_setting_refuses_to_start(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    """An unknown, ill-typed or impossible setting refuses to start and is named; its value is not repeated."""
    said = run(Server(free_port(), tmp_path), "serve", **{"LASTCALL_APPS": SAMPLE, **settings})
    assert said.returncode != 0
    assert named in said.stderr
    assert "many" not in said.stderr
    assert "Traceback" not in said.stderr


def test_a_taken_port_is_named(embedded: Server, tmp_path: Path) -> None:
    """A port that somebody has is refused with the advice to choose another."""
    said = run(Server(free_port(), tmp_path), "serve", "--port", str(embedded.port), LASTCALL_APPS=SAMPLE)
    assert said.returncode != 0
    assert "--port" in said.stderr


@pytest.mark.slow
def test_the_database_outlives_kill_minus_nine(tmp_path: Path) -> None:
    """After `kill -9` the database still runs, the next start finds it and its rows, and Ctrl-C ends all within 3 s."""
    server = Server(free_port(), tmp_path, {"apps": SAMPLE}).start()
    with server.client() as client:
        assert client.post("/rpc/sample.write_note", json={"topic": "t1", "writer": 1, "number": 1}).status_code == 200
    server.kill()
    server.start()
    assert "found the database running" in server.log
    with server.client() as client:
        assert len(client.get("/state/topic:t1").json()["state"]["notes"]) == 1
    assert server.stop(signal.SIGINT) < STOP_MAX_S
    record = tmp_path / "data" / "postgres.json"
    assert record.exists()
    eventually(lambda: "shut down" in server.log or not _postmasters(tmp_path))


def _postmasters(folder: Path) -> list[str]:
    """Command lines of processes that have this data folder in them."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "postgres" in line and str(folder) in line:
            found.append(line)
    return found


def test_help_is_the_manual(tmp_path: Path) -> None:
    """`lastcall --help` names every command, and each command says what it does."""
    said = run(Server(0, tmp_path), "--help")
    for name in ("serve", "demo", "migrate", "tail", "publish", "token", "bench", "doctor"):
        assert name in said.stdout
        assert run(Server(0, tmp_path), name, "--help").returncode == 0
