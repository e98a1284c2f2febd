"""Run the steps of `make check` and `make test`: each named and timed, the first failure ends the run.

The table STEPS is the whole story. The closing line counts the tests of all steps, as their own reports have them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "reports"
PYTHON = str(ROOT / ".venv/bin/python")
CODE = ("engine/src", "apps/torncat/src", "scripts", "bench")


@dataclass(frozen=True)
class Step:
    """One step: its name, its command, whether it belongs to the fast part, and whether it writes a test report."""

    name: str
    command: tuple[str, ...]
    fast: bool = False
    report: str | None = None


def tool(name: str) -> str:
    """A program of the Python environment."""
    return str(ROOT / ".venv/bin" / name)


def node(name: str) -> str:
    """A program of the JavaScript packages."""
    return str(ROOT / "node_modules/.bin" / name)


def tests(name: str, *where: str, browser: bool = False, fast: bool = False) -> Step:
    """A step of pytest over some folders."""
    report = name.replace(" ", "-") + ".xml"
    marks = "browser" if browser else "not browser"
    command = (PYTHON, "-m", "pytest", "-q", "-m", marks, f"--junit-xml={REPORTS / report}", *where)
    return Step(f"tests: {name}", command, fast, report)


STEPS = (
    Step("lint: ruff check", (tool("ruff"), "check", "."), fast=True),
    Step("lint: ruff format", (tool("ruff"), "format", "--check", "."), fast=True),
    Step("lint: oxlint", (node("oxlint"), "--deny-warnings"), fast=True),
    Step("types: mypy", (tool("mypy"), *(path for path in CODE if any((ROOT / path).rglob("*.py")))), fast=True),
    Step("types: tsc", ("npm", "run", "--silent", "types"), fast=True),
    Step("contract: lint-imports", (tool("lint-imports"), "--no-logo"), fast=True),
    tests("unit", "engine/tests/unit", fast=True),
    Step(
        "tests: Vitest",
        (
            node("vitest"),
            "run",
            "--reporter=default",
            "--reporter=junit",
            f"--outputFile.junit={REPORTS / 'vitest.xml'}",
        ),
        fast=True,
        report="vitest.xml",
    ),
    tests("sql", "engine/tests/sql"),
    tests("conformance", "engine/tests/conformance"),
    tests("integration", "engine/tests/integration"),
    tests("applications", "apps"),
    tests("faults", "engine/tests/faults"),
    Step("proof: mutants are noticed", (PYTHON, "scripts/mutants.py")),
    tests("browser", "engine/tests", "apps", browser=True),
)


def counted(reports: list[str]) -> tuple[int, int, int]:
    """Tests passed, failed and skipped according to the JUnit reports that exist."""
    total = failed = skipped = 0
    for path in (REPORTS / name for name in reports):
        if not path.exists():
            continue
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):
            total += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
    return total - failed - skipped, failed, skipped


def run(steps: tuple[Step, ...]) -> int:
    """Run the steps in order and return the exit status: 0, or that of the step that failed."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    for old in REPORTS.glob("*.xml"):
        old.unlink()
    environment = os.environ | {"PATH": f"{ROOT / '.node/bin'}{os.pathsep}{os.environ['PATH']}"}
    if not sys.stdout.isatty():
        environment["NO_COLOR"] = "1"
    started = time.monotonic()
    durations: list[tuple[str, float]] = []
    status, failure = 0, ""
    for step in steps:
        print(f"\n── {step.name}", flush=True)
        begun = time.monotonic()
        status = subprocess.run(
            step.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False
        ).returncode
        durations.append((step.name, time.monotonic() - begun))
        print(f"── {step.name}: {'ok' if status == 0 else 'FAILED'}, {durations[-1][1]:.1f} s", flush=True)
        if status:
            failure = step.name
            break
    print("\n" + "\n".join(f"{duration:8.1f} s  {name}" for name, duration in durations))
    print(f"{time.monotonic() - started:8.1f} s  in all")
    passed, failed, skipped = counted([step.report for step in steps if step.report])
    if failure:
        print(f"\nFAILED: {failure}", flush=True)
        failed = max(failed, 1)
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 0 if status == 0 else 1


if __name__ == "__main__":
    try:
        sys.exit(run(STEPS if sys.argv[1:] == ["test"] else tuple(step for step in STEPS if step.fast)))
    except KeyboardInterrupt:
        sys.exit(130)
