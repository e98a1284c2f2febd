"""Processes of the suite: the C programs, built; servers, started on a core and stopped; nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

FOLDER = Path(__file__).parent
BUILD = FOLDER / "build"
STOP_WITHIN_S = 5.0
LINE_WITHIN_S = 60.0


class BenchFailed(Exception):
    """A program did not start, an event was not delivered exactly once, or a connection was not handed over."""


def build() -> None:
    """Compile the C programs (a no-op when they are current). Raises BenchFailed with the compiler's words."""
    done = subprocess.run(["make", "--silent", "-C", str(FOLDER)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchFailed(f"the C programs cannot be built:\n{done.stdout}{done.stderr}")


def cores() -> tuple[int, int]:
    """The server's core and the generator's; (-1, -1), meaning any, on a machine with a single one."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else (-1, -1)


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started in this block runs on `core` for all its life (-1: anywhere)."""
    before = os.sched_getaffinity(0)
    try:
        if core >= 0:
            os.sched_setaffinity(0, {core})
        yield
    finally:
        os.sched_setaffinity(0, before)


class Program:
    """A child process whose standard output is read line by line, with a bound on every wait.

    log: a file that takes its standard error.
    """

    def __init__(self, command: Sequence[str], log: Path, core: int = -1) -> None:
        self.command, self.log = list(command), log
        self._bytes = b""
        with log.open("ab") as errors, on_core(core):
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=log.parent,
                env=os.environ | {"PYTHONPATH": str(FOLDER.parent)},
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def line(self, within_s: float = LINE_WITHIN_S) -> str:
        """Its next line. Raises BenchFailed when it ends or says nothing in time."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + within_s
        while b"\n" not in self._bytes:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise BenchFailed(f"{self.command[0]} said nothing for {within_s:.0f} s: {self.errors()}")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise BenchFailed(f"{self.command[0]} ended ({self.process.wait(STOP_WITHIN_S)}): {self.errors()}")
            self._bytes += more
        text, _, self._bytes = self._bytes.partition(b"\n")
        return text.decode()

    def say(self, text: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def errors(self) -> str:
        """The end of what it wrote to standard error."""
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """End it, by force if it does not listen. A second stop is harmless."""
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.wait(STOP_WITHIN_S)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_WITHIN_S)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
