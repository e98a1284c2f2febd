"""The benchmark suite counts right: what it calls exactly once was, and what was not, it reports. Times are ignored."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import peers, programs, rows
from bench.generator import Endpoint, Generator, Load, Result

ROOT = Path(__file__).resolve().parents[3]
EVENTS = 200
LISTENERS = 5
DRAIN_MS = 300
FEW = Load(listeners=LISTENERS, publishers=1, warmup_ms=0, requests_max=EVENTS, drain_ms=DRAIN_MS)
WAITING = Load(listeners=3, drain_ms=DRAIN_MS)
TAG = "smok"
WITHOUT_NCHAN = [row.name for row in rows.ROWS if not any("nchan" in case for case in row.needs())]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """The C programs, compiled."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler; `scripts/bootstrap bench` brings one")
    programs.build()


def measure(endpoint: Endpoint, load: Load, folder: Path) -> Result:
    """One run, right or not."""
    with Generator(endpoint, load, folder) as generator:
        generator.live()
        generator.go()
        return generator.measured(must_be_right=False)


def against_fault(fault: str, folder: Path) -> Result:
    """A run against the C server that treats the first listener wrongly at every tenth event."""
    with peers.c_server(folder, "--fault", fault, "--fault-every", "10") as endpoint:
        return measure(endpoint, FEW, folder)


def test_a_clean_run_counts_everything(tmp_path: Path) -> None:
    """Every event that was published is delivered to every listener once, and the run is called right."""
    with peers.c_server(tmp_path) as endpoint:
        result = measure(endpoint, Load(listeners=40, publishers=8, requests_max=EVENTS), tmp_path)
    assert result.right
    assert result.published == result.answered == EVENTS
    assert result.deliveries == 40 * EVENTS
    assert (result.lost, result.doubled, result.disordered, result.orders) == (0, 0, 0, 1)


def test_a_dropped_event_is_reported(tmp_path: Path) -> None:
    """Events that one listener does not get are counted as lost, each of them, and the run is not right."""
    result = against_fault("drop", tmp_path)
    assert not result.right
    assert (result.lost, result.doubled, result.disordered) == (EVENTS // 10, 0, 0)
    assert result.deliveries == LISTENERS * EVENTS - EVENTS // 10


def test_a_doubled_event_is_reported(tmp_path: Path) -> None:
    """Events that one listener gets twice are counted as doubled, each of them, and the run is not right."""
    result = against_fault("double", tmp_path)
    assert not result.right
    assert (result.lost, result.doubled, result.disordered) == (0, EVENTS // 10, 0)


def test_a_changed_order_is_reported(tmp_path: Path) -> None:
    """Events that one listener gets after their successor are counted as out of order, and the run is not right."""
    result = against_fault("swap", tmp_path)
    assert not result.right
    # The very last event is held back for a successor that never comes.
    assert (result.lost, result.doubled, result.disordered) == (1, 0, EVENTS // 10 - 1)
    assert result.orders == 2


def test_a_changed_order_across_publishers_is_reported(tmp_path: Path) -> None:
    """Listeners that see two publishers' events in different orders are noticed even where each publisher's is kept."""
    with peers.c_server(tmp_path, "--fault", "swap", "--fault-every", "10") as endpoint:
        result = measure(endpoint, Load(listeners=3, publishers=2, requests_max=EVENTS, drain_ms=DRAIN_MS), tmp_path)
    assert not result.right
    assert result.orders > 1


def data(number: int) -> str:
    """What an event of publisher 0 carries."""
    return '"' + f"~{TAG}~000~{number:08d}".rjust(198, "x") + '"'


def sse(numbers: Iterator[int]) -> Iterator[bytes]:
    """A joined block, then events with what a server may put around them."""
    yield b"retry: 1\nid: e.0.0\nevent: joined\ndata: {}\n\n"
    for number in numbers:
        if number % 7 == 0:
            yield b"id: e.1.0\nevent: heartbeat\ndata: {}\n\n: a comment\n\n"
        yield f"id: e.{number}.1\nevent: bench\nchannel: topic:bench\ndata: {data(number)}\n\n".encode()


def frames(numbers: Iterator[int]) -> Iterator[bytes]:
    """The same as WebSocket text frames of both lengths, with a ping in between."""
    texts = [b'{"event":"joined","data":{}}']
    texts += [
        f'{{"id":"e.{n}.1","event":"bench","channels":["topic:bench"],"data":{data(n)}}}'.encode() for n in numbers
    ]
    for place, text in enumerate(texts):
        size = bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")
        yield b"\x81" + size + text
        if place % 5 == 0:
            yield b"\x89\x04ping"


def chunks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """HTTP chunks that fall where they like."""
    body = b"".join(parts)
    for start in range(0, len(body), 37):
        part = body[start : start + 37]
        yield f"{len(part):X};extension\r\n".encode() + part + b"\r\n"


HEADS = {
    "plain": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    "websocket": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
}


def body_of(framing: str) -> bytes:
    """Forty events in this framing."""
    numbers = iter(range(1, 41))
    if framing == "websocket":
        return b"".join(frames(numbers))
    return b"".join(chunks(sse(numbers)) if framing == "chunked" else sse(numbers))


@pytest.mark.parametrize("step", [1, 3, 64, 1 << 20])
@pytest.mark.parametrize("framing", list(HEADS))
async def test_any_split_of_the_bytes_is_read(framing: str, step: int, tmp_path: Path) -> None:
    """However the bytes of a stream are cut into segments, each event in it is counted once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        stream = HEADS[framing] + body_of(framing)
        for start in range(0, len(stream), step):
            writer.write(stream[start : start + step])
            await writer.drain()
            await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    def listen(port: int) -> Result:
        flags = ("--tag", TAG, *(("--websocket",) if framing == "websocket" else ()))
        with Generator(Endpoint(port=port, pid=0), Load(listeners=2, flags=flags), tmp_path) as generator:
            generator.live()
            generator.expect(40)
            generator.end()
            return generator.measured(must_be_right=False)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        result = await asyncio.to_thread(listen, server.sockets[0].getsockname()[1])
    assert (result.right, result.deliveries, result.published) == (True, 80, 40)
    assert result.frames.joined == 2


def test_a_stream_that_ends_is_reported(tmp_path: Path) -> None:
    """A run in which the server closes a listener's connection is not right."""
    with peers.c_server(tmp_path) as endpoint, Generator(endpoint, WAITING, tmp_path) as generator:
        generator.live()
        with programs.Program(["kill", "-9", str(endpoint.pid)], tmp_path / "kill.log") as kill:
            kill.process.wait(5)
        generator.end()
        with pytest.raises(programs.BenchFailed):
            generator.measured()


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_the_whole_suite_runs() -> None:
    """Each row that needs no Nchan runs from end to end: every event exactly once, every connection handed over."""
    asked = [option for name in WITHOUT_NCHAN for option in ("--row", name)]
    command = [sys.executable, "-m", "bench", "--quick", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| ") >= len(WITHOUT_NCHAN)
