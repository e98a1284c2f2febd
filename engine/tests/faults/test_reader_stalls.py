"""A reader that stops reading is cut at the limit; memory comes back and the others never notice."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import httpx
import pytest

from lastcall.testing.fixtures import Database
from lastcall.testing.server import Server
from lastcall.testing.serving import Serve
from lastcall.testing.waiting import eventually, eventually_async

STALLED = 20
NOTES = 400
BODY_BYTES = 10_000
BUFFER_MAX_BYTES = 256 << 10


def metric(server: Server, name: str) -> float:
    """The value of one metric, all labels summed."""
    text = httpx.get(f"{server.url}/metrics", timeout=5.0).text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith(name) and line[len(name) : len(name) + 1] in {" ", "{"}
    )


def resident_bytes(server: Server) -> int:
    """Resident memory of the server's process."""
    assert server.process is not None
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def stalled_reader(server: Server) -> socket.socket:
    """Asks for a stream, reads its first bytes, and then nothing more."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", server.port))
    reader.sendall(
        f"GET /events?channel=topic:t0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {server.token()}\r\n\r\n".encode()
    )
    assert reader.recv(64).startswith(b"HTTP/1.1 200")
    return reader


@pytest.mark.slow
async def test_stalled_readers(sample_database: Database, serve: Serve) -> None:
    """Twenty readers that stop are aborted at the limit, memory returns, and a healthy listener hears everything."""
    server = serve(
        sample_database, write_buffer_max_bytes=BUFFER_MAX_BYTES, history_channel_max_bytes=1 << 20, log_level="warning"
    )
    healthy = await server.listener("topic:t0").start()
    stalled = [stalled_reader(server) for _ in range(STALLED)]
    before = resident_bytes(server)
    body = "x" * BODY_BYTES
    with sample_database.connect() as writer:
        for number in range(NOTES):
            writer.execute(
                "insert into sample.note (topic, writer, number, body) values ('t0', 0, %s, %s)", (number, body)
            )
    await healthy.until_heard(NOTES)
    assert [event.data["number"] for event in healthy.heard] == list(range(NOTES))
    assert healthy.connections == 1
    await eventually_async(lambda: metric(server, "lastcall_slow_aborts_total") == STALLED)
    # All that was written for the stalled would be 80 MB; what stays is far less than the buffers' limit alone.
    eventually(lambda: resident_bytes(server) - before < STALLED * BUFFER_MAX_BYTES + (16 << 20))
    await healthy.stop()
    for reader in stalled:
        reader.close()
