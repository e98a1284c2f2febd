"""One PostgreSQL cluster on disk: made, started, found again, stopped. It knows nothing of what is in it.

Promises:

* The postmaster runs in a session of its own: a Ctrl-C in our terminal does not reach it, and it outlives us.
* `running()` names a live postmaster of this very folder, never a stranger that has inherited its number.
* `start()` returns when connections are taken; `stop()` returns when the process has gone.
* Everything that can go wrong is a StartRefused that says what to do.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lastcall.errors import StartRefused
from lastcall.postgres.installation import Account, Installation, run

START_WAIT_MAX_S = 60.0
STOP_WAIT_MAX_S = 20.0
LOG_TAIL_LINES = 8
LOG_MAX_BYTES = 8 << 20
_POLL_S = 0.01
_NO_PROCESS = 2**31 - 1
"""A process number that no kernel gives out (the limit is 2²²)."""

Mode = Literal["smart", "fast", "immediate"]
_SIGNALS: Final[dict[Mode, signal.Signals]] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


@dataclass(frozen=True)
class Postmaster:
    """A live server, as its `postmaster.pid` describes it (src/include/utils/pidfile.h)."""

    pid: int
    port: int
    socket_folder: str


class Cluster:
    """A data folder and the binaries and account that run it."""

    def __init__(self, installation: Installation, folder: Path, account: Account | None) -> None:
        self.installation = installation
        self.folder = folder
        self.account = account
        self.log = folder.parent / f"{folder.name}.log"

    @property
    def exists(self) -> bool:
        """Whether `create` has been completed here."""
        return (self.folder / "PG_VERSION").exists()

    def create(self, superuser: str, password: str, *, durable: bool = True) -> None:
        """Run initdb: UTF-8, a locale that sorts alike everywhere, SCRAM. A half-made folder is removed."""
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command = [
            str(self.installation.bin / "initdb"),
            *("-D", str(self.folder), "-U", superuser, "-E", "UTF8", "--auth=scram-sha-256"),
            *(locale if self.installation.major >= 17 else ["--locale=C.UTF-8"]),
            *([] if durable else ["--no-sync"]),
        ]
        with self._secret_file(password) as path:
            status, text = run([*command, f"--pwfile={path}"], self.account)
        if status != 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise StartRefused(f"PostgreSQL cannot make its data folder {self.folder}: {_advice(text)}")

    def configure(self, settings: Mapping[str, str], access: Sequence[str]) -> None:
        """Write the settings and the access rules (pg_hba.conf lines); they hold from the next start."""
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in settings.items()]
        self._write(
            "lastcall.conf", "# Written by lastcall at every start; your own settings belong into local.conf.\n", lines
        )
        self._write("pg_hba.conf", "# Written by lastcall at every start.\n", list(access))
        main = self.folder / "postgresql.conf"
        include = "include = 'lastcall.conf'\ninclude_if_exists = 'local.conf'\n"
        if include not in main.read_text(encoding="utf-8"):
            with main.open("a", encoding="utf-8") as file:
                file.write(f"\n# Added by lastcall.\n{include}")

    def running(self) -> Postmaster | None:
        """The live postmaster of this folder, or None."""
        try:
            lines = (self.folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            pid, port, socket_folder = int(lines[0]), int(lines[3]), lines[4].strip()
        except (OSError, ValueError, IndexError):
            return None
        return Postmaster(pid, port, socket_folder) if self._is_ours(pid) else None

    def start(self, *, wait_max_s: float = START_WAIT_MAX_S) -> Postmaster:
        """Start, or find started. Raises StartRefused with the last lines of PostgreSQL's log."""
        self._check_version()
        found = self.running()
        if found is None:
            self._disown_stale_pid()
            self._bound_log()
            wait = str(max(1, int(wait_max_s)))
            command = [str(self.installation.bin / "pg_ctl"), "start", "-w", "-t", wait, "-s"]
            status, text = run(
                [*command, "-D", str(self.folder), "-l", str(self.log)], self.account, wait_max_s=wait_max_s + 5
            )
            found = self.running()
            if status != 0 or found is None:
                raise StartRefused(f"PostgreSQL does not start in {self.folder}: {_advice(self.tail() or text)}")
        return found

    def stop(self, mode: Mode = "fast", *, wait_max_s: float = STOP_WAIT_MAX_S) -> None:
        """Shut down and wait for the end; where the wait is too long, go on to `immediate`. Harmless when stopped."""
        for step in dict.fromkeys((mode, "immediate")):
            found = self.running()
            if found is None:
                return
            _signal(found.pid, _SIGNALS[step])
            if self.wait_gone(found.pid, wait_max_s):
                return
        raise StartRefused(f"PostgreSQL in {self.folder} does not stop; its process is {found.pid if found else '?'}")

    def kill(self) -> None:
        """`kill -9` of the postmaster; its children notice and go by themselves."""
        found = self.running()
        if found is not None:
            _signal(found.pid, signal.SIGKILL)
            self.wait_gone(found.pid, STOP_WAIT_MAX_S)

    def wait_gone(self, pid: int, wait_max_s: float) -> bool:
        """Wait until process `pid` is no longer this folder's postmaster; False when it still is after `wait_max_s`."""
        deadline = time.monotonic() + wait_max_s
        while self._is_ours(pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def tail(self) -> str:
        """The last lines of the log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _check_version(self) -> None:
        try:
            found = (self.folder / "PG_VERSION").read_text(encoding="ascii").strip()
        except OSError as error:
            raise StartRefused(f"{self.folder} is not a PostgreSQL data folder: {error.strerror}") from None
        if found != str(self.installation.major):
            raise StartRefused(
                f"the data in {self.folder} was made by PostgreSQL {found}, this is {self.installation.major}: move it "
                f"over with pg_dump and pg_restore (or pg_upgrade), or name another folder with --data"
            )

    def _is_ours(self, pid: int) -> bool:
        """A postmaster's working folder is its data folder; where the kernel does not tell, any live process counts."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        process = Path("/proc") / str(pid)
        if not process.exists():
            return not Path("/proc/self").exists()
        try:
            if (process / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] == "Z":
                return False
            return (process / "cwd").samefile(self.folder)
        except OSError:
            return False

    def _disown_stale_pid(self) -> None:
        """PostgreSQL refuses to start when the number in a stale `postmaster.pid` now belongs to another process. The
        number is replaced by one that cannot exist; the rest (the shared memory that is checked) stays."""
        path = self.folder / "postmaster.pid"
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        except OSError:
            return
        if lines and lines[0].strip() != str(_NO_PROCESS):
            self._write("postmaster.pid", "", [str(_NO_PROCESS), *(line.rstrip("\n") for line in lines[1:])])

    def _bound_log(self) -> None:
        """Keep the start log below LOG_MAX_BYTES; the account must be able to write it."""
        try:
            if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))
        except OSError as error:
            raise StartRefused(f"the log {self.log} cannot be turned over: {error.strerror}") from None

    def _write(self, name: str, header: str, lines: Sequence[str]) -> None:
        path = self.folder / name
        scratch = self.folder / f".{name}.new"
        try:
            scratch.write_text(header + "".join(f"{line}\n" for line in lines), encoding="utf-8")
            scratch.chmod(0o600)
            if self.account is not None:
                os.chown(scratch, self.account.uid, self.account.gid)
            scratch.replace(path)
        except OSError as error:
            raise StartRefused(f"{path} cannot be written: {_advice(error.strerror or str(error))}") from None

    @contextmanager
    def _secret_file(self, text: str) -> Iterator[Path]:
        """A file that only the account can read, gone afterwards; its folder is one that the account can enter."""
        handle, name = tempfile.mkstemp(prefix="lastcall-", dir=self.folder.parent)
        try:
            os.write(handle, text.encode() + b"\n")
            if self.account is not None:
                os.fchown(handle, self.account.uid, self.account.gid)
            os.close(handle)
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise StartRefused(f"the PostgreSQL process {pid} belongs to another account; stop it first") from None


def _advice(text: str) -> str:
    """PostgreSQL's own words, and what to do about the commonest of them."""
    lowered = text.lower()
    advice = ""
    if os.strerror(errno.ENOSPC).lower() in lowered:
        advice = " — the disk is full: make room, or name another folder with --data"
    elif "permission denied" in lowered or os.strerror(errno.EROFS).lower() in lowered:
        advice = " — the folder cannot be written: give it to this account, or name another folder with --data"
    elif "pre-existing shared memory block" in lowered:
        advice = " — processes of a crashed server still run here: wait for them to end, or end them"
    elif "another server might be running" in lowered:
        advice = " — a PostgreSQL that this server did not start uses the folder: stop it first"
    return text.strip() + advice
