"""PostgreSQL without lastcall in between: the COMMIT alone, a writing function under pgbench, a function through the
server's own pool. `python -m bench.direct` is the last of these in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import uvloop
from psycopg.conninfo import make_conninfo

from bench.programs import BenchFailed, Program, cores
from lastcall.config import checked
from lastcall.postgres.pool import Pool
from lastcall.testing.fixtures import Database

CALL = "select sample_api.write_note(topic => 'bench', writer => 1, number => 1, body => repeat('x', 100))"
DRAFT = CALL.replace("write_note", "write_draft")
"""The same without a listener: what the feed costs is a row of its own."""

ARGUMENTS = '{"topic":"bench","writer":1,"number":1,"body":"%s"}' % ("x" * 100)
PUBLISH = "select lastcall.publish('topic:bench', 'bench', to_jsonb(repeat('x', 198)))"
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def commit_alone_ms(database: Database, duration_s: float) -> list[float]:
    """Round trips of COMMIT on one connection, each after a transaction that published an event, in milliseconds."""
    taken: list[float] = []
    with psycopg.connect(database.owner_url) as connection:
        connection.prepare_threshold = 0
        end = time.perf_counter() + duration_s
        while time.perf_counter() < end:
            connection.execute(PUBLISH)
            before = time.perf_counter()
            connection.commit()
            taken.append((time.perf_counter() - before) * 1000)
    return taken


def commits_per_s(database: Database, folder: Path, clients: int, seconds: int) -> float:
    """Transactions a second of the writing function, by pgbench."""
    script = folder / "write.sql"
    script.write_text(CALL + ";\n")
    program = database.server.installation.bin / "pgbench"
    options = ["-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds), "-f", str(script)]
    done = subprocess.run(
        [str(program), *options, database.owner_url], capture_output=True, text=True, check=False, timeout=seconds + 60
    )
    found = _TPS.search(done.stdout)
    if done.returncode != 0 or found is None:
        raise BenchFailed(f"pgbench: {done.stdout}{done.stderr}")
    return float(found[1])


def pool_calls_per_s(database: Database, folder: Path, clients: int, seconds: float) -> float:
    """Calls a second of the writing function through the server's pool, in a process on the server's core.

    One statement and one round trip each, the role set once for the connection: nothing faster can be had from it."""
    url = make_conninfo(database.authenticator_url, options="-c role=member")
    command = [sys.executable, "-m", "bench.direct", url, str(clients), str(seconds)]
    with Program(command, folder / "direct.log", cores()[0]) as program:
        return float(json.loads(program.line(seconds + 30))["calls_per_s"])


async def _call(url: str, clients: int, seconds: float) -> float:
    pool = Pool(url, checked({"pool_max": clients}))
    await pool.open()
    counts = [0] * clients
    begin = time.perf_counter() + seconds / 4

    async def one(number: int) -> None:
        while (now := time.perf_counter()) < begin + seconds:
            async with pool.connection() as connection:
                await connection.execute(DRAFT)
            counts[number] += now >= begin

    await asyncio.gather(*(one(number) for number in range(clients)))
    await pool.close()
    return sum(counts) / seconds


def main() -> None:
    """Print calls a second as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=float)
    asked = parser.parse_args()
    print(json.dumps({"calls_per_s": uvloop.run(_call(asked.url, asked.clients, asked.seconds))}))


def median(values: list[float]) -> float:
    """The median. Raises BenchFailed without values."""
    if not values:
        raise BenchFailed("nothing was measured")
    return statistics.median(values)


if __name__ == "__main__":
    main()
