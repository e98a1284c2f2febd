"""`python -m bench`: measure, print the table, put it into docs/reference/benchmarks.md, say what was missed."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import machine, programs, table
from bench.cases import QUICK, Scale, Suite
from bench.rows import CASES, ROWS, Row, Samples, median_of, ratio


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--row", action="append", metavar="NAME", choices=[row.name for row in ROWS], help="only this row"
    )
    parser.add_argument("--case", action="append", metavar="CASE", choices=list(CASES), help="only this case, no table")
    parser.add_argument("--quick", action="store_true", help="tiny and short: whether all is counted right, no more")
    parser.add_argument("--rounds", type=int, help=f"rounds ({Scale().rounds})")
    parser.add_argument("--window-ms", type=int, help=f"length of one measurement ({Scale().window_ms})")
    parser.add_argument("--spin", action="store_true", help="let the generator spin, so that no server must wake it")
    parser.add_argument("--write", action="store_true", help="put the result into the page even of a part of the rows")
    parser.add_argument("--list", action="store_true", help="name the rows")
    return parser.parse_args()


def _scale(asked: argparse.Namespace) -> Scale:
    scale = QUICK if asked.quick else Scale()
    if asked.rounds:
        scale = replace(scale, rounds=asked.rounds)
    if asked.window_ms:
        scale = replace(scale, window_ms=asked.window_ms, paced_ms=asked.window_ms)
    return replace(scale, spin=asked.spin)


def _needed(rows: Sequence[Row]) -> tuple[list[str], set[str]]:
    """The cases of these rows in the order of CASES, and those of them that are measured once."""
    needed = {case for row in rows for case in row.needs()}
    again = {case for row in rows if not row.once for case in row.needs()}
    return [case for case in CASES if case in needed], needed - again


def measure(suite: Suite, wanted: Sequence[str], once: set[str]) -> Samples:
    """Every case once a round. Raises BenchFailed on the first run that was not right."""
    samples: Samples = {case: [] for case in wanted}
    for number in range(suite.scale.rounds):
        for case in wanted:
            if number > 0 and case in once:
                continue
            began = time.monotonic()
            numbers = CASES[case](suite)
            samples[case].append(numbers)
            shown = ", ".join(f"{name} {value:,.6g}" for name, value in numbers.items())
            took_s = time.monotonic() - began
            print(f"round {number + 1}: {case}: {shown}  [{took_s:.1f} s]", file=sys.stderr, flush=True)
    return samples


def report(samples: Samples, rows: Sequence[Row], suite: Suite, *, judged: bool) -> list[str]:
    """The page's measured part."""
    described = [f"| {name} | {value} |" for name, value in machine.describe(suite.postgres)]
    scale = suite.scale
    how = f"Medians of {scale.rounds} rounds of {scale.window_ms / 1000:g} s, {scale.listeners:,} listeners."
    how += " The generator spins." if scale.spin else " The generator sleeps when it has nothing to read."
    if "bare" in samples and "c 1" in samples:
        bare, server = (median_of(samples, case, "per_s") for case in ("bare", "c 1"))
        how += f" The C server reaches {server / bare:.2f} of a bare `send()` loop ({bare:,.0f}/s)."
    context = ["", how, "", "| machine | |", "|---|---|", *described, ""]
    return [*table.lines(samples, rows, judged=judged), *context, *table.details(samples)]


def main() -> int:
    """Exit status: 0; 1 when a run was not right; 3 when a target was missed (never in a quick run)."""
    asked = _arguments()
    if asked.list:
        print("\n".join(f"{row.name:14} {row.work}" for row in ROWS))
        return 0
    rows = [row for row in ROWS if not asked.row or row.name in asked.row]
    wanted, once = ([case for case in CASES if case in asked.case], set()) if asked.case else _needed(rows)
    programs.build()
    try:
        with contextlib.ExitStack() as exits:
            folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="lastcall-bench-"))
            suite = Suite(_scale(asked), Path(folder), exits)
            samples = measure(suite, wanted, once)
            if asked.case:
                return 0
            body = report(samples, rows, suite, judged=not asked.quick)
    except (programs.BenchFailed, AssertionError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n".join(body))
    if asked.write or not (asked.row or asked.quick):
        table.write(body)
    missed = [row.name for row in rows for target in row.targets if not target.reached(ratio(samples, row, target))]
    if asked.quick or not missed:
        return 0
    print(f"bench: missed: {', '.join(dict.fromkeys(missed))}", file=sys.stderr)
    return 3


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
