"""One PostgreSQL cluster on disk: made, started, found again, stopped. It knows nothing of what is in it.

Promises:

* The postmaster runs in a session of its own: a Ctrl-C in our terminal does not reach it, and it outlives us.
* `running()` names a live postmaster of this very folder, never a stranger that has inherited its number.
* `start()` returns when connections are taken; `stop()` returns when the process has gone.
* Everything that can go wrong is a StartRefused that says what to do.
"""

from __future__ import annotations

import contextlib
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
IMMEDIATE_WAIT_MAX_S = 10.0
READ_MAX_BYTES = 1 << 20
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
        self.log = folder / "start.log"

    @property
    def exists(self) -> bool:
        """Whether `create` has been completed here."""
        return (self.folder / "PG_VERSION").exists()

    def create(self, superuser: str, password: str, *, durable: bool = True) -> None:
        """Run initdb: UTF-8, a locale that sorts alike everywhere, SCRAM. The folder appears whole or not at all."""
        scratch = self.folder.with_name(f"{self.folder.name}.new")
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(mode=0o700)
            if self.account is not None:
                os.chown(scratch, self.account.uid, self.account.gid)
            with self._secret_file(password) as path:
                status, text = run(self._initdb(scratch, superuser, path, durable), self.account)
            if status != 0:
                raise StartRefused(f"PostgreSQL cannot make its data folder {self.folder}: {_advice(text)}")
            if self.folder.is_dir():
                self.folder.rmdir()
            scratch.rename(self.folder)
        except OSError as error:
            raise StartRefused(
                f"PostgreSQL cannot make its data folder {self.folder}: {_advice(error.strerror or str(error))}"
            ) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _initdb(self, folder: Path, superuser: str, password_file: Path, durable: bool) -> list[str]:
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return [
            str(self.installation.bin / "initdb"),
            *("-D", str(folder), "-U", superuser, "-E", "UTF8", "--auth=scram-sha-256", f"--pwfile={password_file}"),
            *(locale if self.installation.major >= 17 else ["--locale=C.UTF-8"]),
            *([] if durable else ["--no-sync"]),
        ]

    def configure(self, settings: Mapping[str, str], access: Sequence[str]) -> None:
        """Write the settings and the access rules (pg_hba.conf lines); they hold from the next start."""
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in settings.items()]
        header = "# Written by lastcall at every start; your own settings belong into local.conf, which wins."
        self._write(self.folder / "lastcall.conf", "\n".join([header, *lines, ""]))
        self._write(self.folder / "pg_hba.conf", "\n".join(["# Written by lastcall at every start.", *access, ""]))
        if not (self.folder / "local.conf").exists():
            self._write(self.folder / "local.conf", "# Your own settings; lastcall never writes here again.\n")
        main = _read(self.folder / "postgresql.conf")
        include = "include = 'lastcall.conf'\ninclude_if_exists = 'local.conf'\n"
        if include not in main:
            self._write(self.folder / "postgresql.conf", f"{main}\n# Added by lastcall.\n{include}")

    def running(self) -> Postmaster | None:
        """The live postmaster of this folder, or None."""
        try:
            lines = _read(self.folder / "postmaster.pid").splitlines()
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
        """Shut down and wait for the end; where that takes longer than `wait_max_s`, go on to `immediate`, at which the
        postmaster itself kills what does not go within 5 s. Nothing committed is lost. Harmless when stopped."""
        found = self.running()
        steps: tuple[tuple[Mode, float], ...] = ((mode, wait_max_s), ("immediate", IMMEDIATE_WAIT_MAX_S))
        for step, patience in steps:
            if found is None:
                return
            _signal(found.pid, _SIGNALS[step])
            if self.wait_gone(found.pid, patience):
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
        """The last lines of PostgreSQL's logs: of the start, and of what it wrote since."""
        said: list[str] = []
        logs = sorted((self.folder / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        for path in (self.log, *logs[-1:]):
            with contextlib.suppress(OSError):
                said += _read(path).splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(said)

    def _check_version(self) -> None:
        try:
            found = _read(self.folder / "PG_VERSION").strip()
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
        """PostgreSQL refuses to start when the number in a stale lock file belongs to another process by now, or to one
        that nobody has buried (in a container whose first process does not). The number is replaced by one that cannot
        exist; what else the file says, the shared memory that is checked above all, stays."""
        try:
            lines = _read(self.folder / "postmaster.pid").splitlines()
        except OSError:
            return
        places = [self.folder / "postmaster.pid"]
        if len(lines) > 4 and lines[3].strip().isdigit() and lines[4].strip():
            places.append(Path(lines[4].strip()) / f".s.PGSQL.{lines[3].strip()}.lock")
        for path in places:
            try:
                _, _, rest = _read(path).partition("\n")
            except OSError:
                continue
            self._write(path, f"{_NO_PROCESS}\n{rest}")

    def _bound_log(self) -> None:
        """Keep the log of starts below LOG_MAX_BYTES."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > LOG_MAX_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))

    def _write(self, path: Path, text: str) -> None:
        """Replace a file in one step, for the account alone. As root we write into a folder of another account: no link
        that it may have laid there is followed."""
        scratch = path.with_name(f"{path.name}.new")
        try:
            scratch.unlink(missing_ok=True)
            handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                if self.account is not None:
                    os.fchown(handle, self.account.uid, self.account.gid)
                file.write(text)
            scratch.replace(path)
        except OSError as error:
            raise StartRefused(f"{path} cannot be written: {_advice(error.strerror or str(error))}") from None

    @contextmanager
    def _secret_file(self, text: str) -> Iterator[Path]:
        """A file that only the account can read, gone afterwards; it lies where the account can go."""
        handle, name = tempfile.mkstemp(prefix="lastcall-", dir=self.folder.parent)
        try:
            os.write(handle, text.encode() + b"\n")
            if self.account is not None:
                os.fchown(handle, self.account.uid, self.account.gid)
            os.close(handle)
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


def _read(path: Path) -> str:
    """The end of a file of the account's, no link; see `_write`. Raises OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - READ_MAX_BYTES))
        return file.read(READ_MAX_BYTES).decode(errors="replace")


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
