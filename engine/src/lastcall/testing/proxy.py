"""A TCP proxy that fails on demand, by name.

It runs in a thread of its own with its own loop, so that it works for any test and any client. Faults hold for the
connections that are open and for those to come, until `heal()`:

    pass        bytes go through
    delay       each chunk waits `seconds` first (both directions)
    drop        bytes are read and thrown away: the peers hear nothing more of each other
    stall       bytes are not read at all: the sender's buffers fill up
    half_close  the client's direction is shut (the server sees an end of file), the other stays open
    half_open   the server's direction is shut (the client sees an end of file), the other stays open
    cut         every connection is reset at once; new ones go through
    refuse      new connections are reset at once (those open stay)
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Literal

Fault = Literal["pass", "delay", "drop", "stall", "half_close", "half_open", "cut", "refuse"]
_CHUNK_BYTES = 64 << 10
_LINGER_RESET = struct.pack("ii", 1, 0)


class _Pair:
    """One proxied connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server

    def reset(self) -> None:
        for writer in (self.client, self.server):
            _reset(writer)


class FaultProxy:
    """127.0.0.1:`port` → 127.0.0.1:`target`, with faults by name. Use as a context manager or start/stop."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.bytes_to_client = 0
        self.bytes_to_server = 0
        self.connections_total = 0
        self._fault: Fault = "pass"
        self._delay_s = 0.0
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._healed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    @property
    def open_connections(self) -> int:
        """Proxied connections right now."""
        return len(self._pairs)

    def start(self) -> FaultProxy:
        """Listen; `port` is known afterwards."""
        self._thread.start()
        self._run(self._listen())
        return self

    def stop(self) -> None:
        """Reset every connection and end. A second stop is harmless."""
        if self._thread.is_alive():
            self._run(self._shut())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()

    def fault(self, name: Fault, seconds: float = 0.0) -> None:
        """Let the named fault hold from now on. Returns when it does."""
        self._run(self._set(name, seconds))

    def heal(self) -> None:
        """Bytes go through again; what was dropped or shut stays so on connections open then."""
        self._run(self._set("pass", 0.0))

    def cut(self) -> None:
        """Reset every open connection; new ones go through."""
        self.fault("cut")

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._healed.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _set(self, name: Fault, seconds: float) -> None:
        self._fault, self._delay_s = name, seconds
        if name == "stall":
            self._healed.clear()
        else:
            self._healed.set()
        for pair in list(self._pairs):
            self._apply(pair)
        if name == "cut":
            self._fault = "pass"

    def _apply(self, pair: _Pair) -> None:
        if self._fault == "cut":
            pair.reset()
        elif self._fault == "half_close" and pair.server.can_write_eof():
            pair.server.write_eof()
        elif self._fault == "half_open" and pair.client.can_write_eof():
            pair.client.write_eof()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            _reset(writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault == "refuse":
            return
        self.connections_total += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        pair = _Pair(writer, far_writer)
        self._pairs.add(pair)
        self._apply(pair)
        try:
            await asyncio.gather(self._pump(reader, far_writer, True), self._pump(far_reader, writer, False))
        finally:
            self._pairs.discard(pair)
            _reset(far_writer)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, to_server: bool) -> None:
        while True:
            await self._healed.wait()
            chunk = await source.read(_CHUNK_BYTES)
            await self._healed.wait()
            if self._fault == "delay":
                await asyncio.sleep(self._delay_s)
            if not chunk:
                break
            shut = self._fault == ("half_close" if to_server else "half_open")
            if self._fault == "drop" or shut or sink.is_closing():
                continue
            sink.write(chunk)
            await sink.drain()
            if to_server:
                self.bytes_to_server += len(chunk)
            else:
                self.bytes_to_client += len(chunk)
        if sink.can_write_eof() and not sink.is_closing():
            sink.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a crashed peer's kernel would."""
    link = writer.get_extra_info("socket")
    if link is not None and not writer.is_closing():
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    writer.transport.abort()
