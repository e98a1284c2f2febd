"""`lastcall serve` as a subprocess, the way a user runs it, with the means to kill it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from lastcall.auth import Tokens
from lastcall.config import ENVIRONMENT_PREFIX, checked
from lastcall.testing.listener import Listener
from lastcall.testing.postgres_server import TEST_SECRET

READY_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0


@dataclass(slots=True)
class Server:
    """One node in a process of its own.

    port: where it listens. settings: every setting by name, as text. folder: working directory, data and log.
    """

    port: int
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    secret: str = TEST_SECRET
    command: tuple[str, ...] = ("serve",)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """All it has said so far."""
        return (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")

    def spawn(self) -> None:
        """Start the process and return at once."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
        settings = {"jwt_secret": self.secret, "data": str(self.folder / "data"), **self.settings}
        environment |= {ENVIRONMENT_PREFIX + name.upper(): value for name, value in settings.items()}
        environment["PYTHONFAULTHANDLER"] = "1"
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "lastcall", *self.command, "--port", str(self.port)],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self, ready_within_s: float = READY_WITHIN_S) -> Server:
        """Start the process and return when `/readyz` answers 200. Raises AssertionError with the log."""
        self.spawn()
        self.wait_ready(ready_within_s)
        return self

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Return when `/readyz` answers 200. Raises AssertionError with the log when it does not in time."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            assert self.process is not None and self.process.poll() is None, f"the server ended:\n{self.log}"
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=2.0).status_code == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"not ready within {within_s} s:\n{self.log}")

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_WITHIN_S)

    def stop(self, with_signal: int = signal.SIGINT) -> float:
        """Ctrl-C. Returns the seconds it took; kills it after STOP_WITHIN_S. A second stop is harmless."""
        if self.process is None or self.process.poll() is not None:
            return 0.0
        began = time.monotonic()
        self.process.send_signal(with_signal)
        try:
            self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
        return time.monotonic() - began

    def token(self, subject: str = "tester", role: str = "member", life_s: float = 3600.0, **claims: object) -> str:
        """A token that this server accepts."""
        return Tokens(checked({"jwt_secret": self.secret})).mint(subject, role, claims, life_s)

    def listener(self, *channels: str, port: int | None = None, **options: object) -> Listener:
        """A listener on the channels, not yet started; as a member unless `token` is given."""
        options.setdefault("token", self.token())
        return Listener("127.0.0.1", port or self.port, channels, **options)  # type: ignore[arg-type]

    def client(self, role: str = "member", **options: object) -> httpx.Client:
        """An HTTP client with a token of that role."""
        headers = {"Authorization": f"Bearer {self.token(role=role)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10.0, **options)  # type: ignore[arg-type]
