"""The SQL files of the engine and of the applications: which there are, in which order, with which hash. No database.

    {folder}/migrations/NNNN_name.sql   frozen when merged, applied once, in order of their names
    {folder}/routines/name.sql          one function, view, trigger or policy a file, re-applied when changed;
                                        a first line `-- after: other, third` puts the file behind those

Line ends and the blanks at them do not count for a hash, so that a checkout on another system is the same source.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from lastcall.errors import StartRefused

ENGINE = "lastcall"
ENGINE_FOLDER = Path(__file__).parent.parent / "sql"
FILE_MAX_BYTES = 1 << 20
_MIGRATION = re.compile(r"\d{4}_[a-z0-9_]+", re.ASCII)
_ROUTINE = re.compile(r"[a-z0-9_]+", re.ASCII)
_AFTER = re.compile(r"--\s*after:(.*)")


class Application(Protocol):
    """What `migrate` needs to know of an application (`lastcall.App` is one)."""

    @property
    def name(self) -> str: ...
    @property
    def sql(self) -> Path: ...
    @property
    def schema(self) -> str: ...
    @property
    def api_schema(self) -> str: ...


@dataclass(frozen=True)
class File:
    """One SQL file: its name without suffix, what it says, and the hash of that."""

    name: str
    text: str
    hash: str


@dataclass(frozen=True)
class Source:
    """All SQL of the engine or of one application.

    schemas: private first; the engine has only one.
    """

    name: str
    schemas: tuple[str, ...]
    migrations: tuple[File, ...]
    routines: tuple[File, ...]


def engine_source(folder: Path = ENGINE_FOLDER) -> Source:
    """The engine's own SQL."""
    return _source(ENGINE, (ENGINE,), folder)


def application_source(app: Application) -> Source:
    """An application's SQL. Raises StartRefused where the folder is missing, empty or ill-named."""
    if app.name == ENGINE or not app.sql.is_dir():
        raise StartRefused(f"the application {app.name} has no SQL folder at {app.sql}, or takes the engine's name")
    return _source(app.name, (app.schema, app.api_schema), app.sql)


def _source(name: str, schemas: tuple[str, ...], folder: Path) -> Source:
    migrations = _files(folder / "migrations", _MIGRATION, "NNNN_name.sql")
    numbers = [file.name[:4] for file in migrations]
    if len(set(numbers)) != len(numbers):
        raise StartRefused(f"two migrations in {folder / 'migrations'} have the same number")
    return Source(name, schemas, migrations, _ordered(_files(folder / "routines", _ROUTINE, "name.sql"), folder))


def _files(folder: Path, pattern: re.Pattern[str], wanted: str) -> tuple[File, ...]:
    files = []
    for path in sorted(folder.glob("*.sql")):
        if not pattern.fullmatch(path.stem):
            raise StartRefused(f"{path} is not named {wanted}")
        if path.stat().st_size > FILE_MAX_BYTES:
            raise StartRefused(f"{path} is larger than {FILE_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        files.append(File(path.stem, text, hash_of(text)))
    return tuple(files)


def hash_of(text: str) -> str:
    """What a migration is frozen by."""
    canonical = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return hashlib.sha256(canonical.encode()).hexdigest()


def _after(file: File) -> list[str]:
    found = _AFTER.fullmatch(file.text.partition("\n")[0].strip())
    return [] if found is None else [name.strip() for name in found[1].split(",") if name.strip()]


def _ordered(files: Sequence[File], folder: Path) -> tuple[File, ...]:
    """By name, each behind those its header names (depth first). Raises StartRefused for a name unknown or a circle."""
    known = {file.name: file for file in files}
    placed: dict[str, File] = {}

    def place(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise StartRefused(f"the routines in {folder} wait for each other: {' → '.join((*path, name))}")
        if name not in known:
            raise StartRefused(f"the routine {path[-1]} in {folder} is to come after {name}, which does not exist")
        if name not in placed:
            for earlier in _after(known[name]):
                place(earlier, (*path, name))
            placed[name] = known[name]

    for file in files:
        place(file.name, ())
    return tuple(placed.values())


@cache
def query(name: str) -> bytes:
    """`sql/queries/{name}.sql`: a statement about the catalogue, for before the engine's routines are there."""
    return (ENGINE_FOLDER / "queries" / f"{name}.sql").read_bytes()


def sources_of(apps: Sequence[Application]) -> tuple[Source, ...]:
    """The engine's SQL, then the applications' in the order given."""
    return (engine_source(), *(application_source(app) for app in apps))
