"""Take a promise's code out, and see that a test fails: the proof that the tests would notice.

Each mutant is a copy of the engine with one place changed; `make test` runs them all. A mutant whose place is not found
once is an error, so that the table cannot rot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "engine/src"
TESTS_FAILED = 1
"""pytest's exit status when tests ran and some failed; a mutant that breaks the collection proves nothing."""


@dataclass(frozen=True)
class Mutant:
    """What is taken out, where, and which tests must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "a state is not read again while a delivered commit is invisible",
        "lastcall/state.py",
        "if not self._feed.unseen.up_to(last):",
        "if self._feed.unseen is not None:",
        ("engine/tests/integration/test_state.py",),
    ),
    Mutant(
        "a listener joins before the pending flush is written",
        "lastcall/hub/hub.py",
        "        if interest.pending:\n            interest.joining = [",
        "        if interest.joining:\n            interest.joining = [",
        ("engine/tests/unit/test_hub_joining.py",),
    ),
    Mutant(
        "a head S.0 counts the transaction that commits at S",
        "lastcall/feed/assembly.py",
        "passing=message.commit_lsn < self.head_lsn",
        "passing=message.commit_lsn <= self.head_lsn",
        ("engine/tests/unit/test_feed_assembly.py",),
    ),
    Mutant(
        "transactions that are decoded again are delivered again",
        "lastcall/feed/assembly.py",
        "passing=message.commit_lsn < self.head_lsn",
        "passing=False",
        ("engine/tests/unit/test_feed_assembly.py",),
    ),
    Mutant(
        "the gate of an idempotent call is left open",
        "lastcall/postgres/call.py",
        "            commands.insert(1, Command(_ENTER",
        "            _ = (1, Command(_ENTER",
        ("engine/tests/integration/test_idempotency.py",),
    ),
)


def survives(mutant: Mutant, folder: Path) -> str | None:
    """None when a test has noticed, else why that cannot be said."""
    copy = folder / "src"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    place = copy / mutant.file
    text = place.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"its place is found {text.count(mutant.old)} times in {mutant.file}"
    place.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(copy)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == TESTS_FAILED:
        noticed = next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
        print(f"    noticed by {noticed.split(' ')[1] if ' ' in noticed else 'a test'}", flush=True)
        return None
    return f"no test of {', '.join(mutant.tests)} fails (pytest ended with {done.returncode})"


def main() -> int:
    """Try them all; 1 when one survives."""
    survivors = 0
    for mutant in MUTANTS:
        print(f"  {mutant.name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="lastcall-mutant-") as folder:
            reason = survives(mutant, Path(folder))
        if reason is not None:
            survivors += 1
            print(f"    SURVIVES: {reason}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} mutants were noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
