"""The rules of the repository that a linter does not know (CONTRIBUTING.md names each)."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FROZEN = ROOT / "engine" / "tests" / "unit" / "frozen_migrations.txt"
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
FILE_BYTES_MAX = 1 << 20
CODE = {".py", ".ts", ".tsx", ".sql", ".c", ".h", ".sh", ".css"}
LOCKS = {"uv.lock", "package-lock.json"}
BINARY = {".png", ".ico", ".woff2"}

PAGES_BUILT = ROOT / "apps" / "torncat" / "src" / "torncat" / "web"
PRODUCTS = {
    *(".git", ".venv", ".tools", ".node", ".demo", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache"),
    *(".import_linter_cache", "node_modules", "dist", "build", "data", "test-results", "__pycache__"),
}

# Written in pieces, so that this page does not break its own rule.
MACHINE_PATHS = re.compile(r"(?:^|[^A-Za-z0-9_./-])/(?:wo" r"rk|ro" r"ot|fa" r"rm|tmp/bash" r"_jobs)/")
REGISTRIES = re.compile("registry" r"\.npmjs|files" r"\.pythonhosted|deb" r"\.debian\.org")
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|NotImplemented" r"Error)\b")
NOT_RUN = re.compile(r"pytest\.mark\.(?:sk" r"ip|xf" r"ail)\b|\b(?:it|test|describe)\.(?:sk" r"ip|on" r"ly)\b")
DRAWERS = {"utils", "util", "manager", "helpers", "misc", "common"}

_CREATES = re.compile(
    r"^create\s+(?:or\s+replace\s+)?(?:materialized\s+)?(?:constraint\s+)?"
    r"(?:function|procedure|view|trigger|policy|aggregate)\s+(?:[a-z_]+\.)?([a-z0-9_]+)",
    re.IGNORECASE | re.MULTILINE,
)
_SCRIPT_BLOCK = re.compile(r"^(\s*).*\).*\{$")
_TEST_BLOCK = re.compile(r"^\s*describe\b")


def files() -> list[Path]:
    """What git tracks and what it would track; without git, or in an archive, every file that is no product."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists() and shutil.which("git"):
        asked = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        if asked.returncode == 0:
            return [ROOT / name for name in asked.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    found = []
    for folder, names, entries in os.walk(ROOT):
        names[:] = [name for name in names if name not in PRODUCTS and Path(folder, name) != PAGES_BUILT]
        found += [Path(folder, entry) for entry in entries]
    return found


FILES = files()
PYTHON = [path for path in FILES if path.suffix == ".py"]
SCRIPTS = [path for path in FILES if path.suffix in {".ts", ".tsx"}]
C = [path for path in FILES if path.suffix in {".c", ".h"}]


def named(path: Path) -> str:
    """The path as a reader of the repository knows it."""
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    """The file's text."""
    return path.read_text(encoding="utf-8")


def lines_matching(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """`file:line: text` of each line that matches."""
    return [
        f"{named(path)}:{number}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]


def prose_and_code() -> list[Path]:
    """Every text file but the lock files, whose hosts and marks are not ours to write."""
    return [path for path in FILES if path.name not in LOCKS and path.suffix not in BINARY]


def python_functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of every Python file."""
    for path in PYTHON:
        for node in ast.walk(ast.parse(text_of(path), filename=str(path))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield path, node


def script_blocks(path: Path) -> Iterator[tuple[int, int]]:
    """First line and length of each block with an argument list in a formatted TypeScript file: functions, and less."""
    lines = text_of(path).splitlines()
    for start, line in enumerate(lines):
        match = _SCRIPT_BLOCK.match(line)
        if match and not _TEST_BLOCK.match(line):
            closing = match[1] + "}"
            end = next((at for at in range(start + 1, len(lines)) if lines[at].startswith(closing)), start)
            yield start + 1, end - start + 1


def c_functions(path: Path) -> Iterator[tuple[int, int]]:
    """First line and length of the functions of a C file whose bodies close in the first column."""
    start = None
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if start is None and re.match(r"[a-z].*\)\s*\{$", line):
            start = number
        elif start is not None and line.startswith("}"):
            yield start, number - start + 1
            start = None


def test_files_fit_a_sitting() -> None:
    """No source file is longer than 500 lines."""
    code = [path for path in FILES if path.suffix in CODE]
    assert [f"{named(path)}: {n}" for path in code if (n := len(text_of(path).splitlines())) > FILE_LINES_MAX] == []


def test_functions_fit_a_screen() -> None:
    """No function, in Python, TypeScript or C, is longer than 70 lines."""
    long = [
        f"{named(path)}:{node.lineno} {node.name}"
        for path, node in python_functions()
        if (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    long += [f"{named(p)}:{line}: {n}" for p in SCRIPTS for line, n in script_blocks(p) if n > FUNCTION_LINES_MAX]
    long += [f"{named(p)}:{line}: {n}" for p in C for line, n in c_functions(p) if n > FUNCTION_LINES_MAX]
    assert long == []


def test_each_test_says_what_it_proves() -> None:
    """Every test function has a docstring."""
    silent = [
        f"{named(path)}:{node.lineno} {node.name}"
        for path, node in python_functions()
        if path.name.startswith("test_") and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_each_module_says_what_it_is() -> None:
    """Every Python module opens with a docstring."""
    assert [
        named(path) for path in PYTHON if text_of(path).strip() and not ast.get_docstring(ast.parse(text_of(path)))
    ] == []


@pytest.mark.parametrize(
    ("rule", "pattern"),
    [
        ("a path of one machine", MACHINE_PATHS),
        ("a registry's host", REGISTRIES),
        ("unfinished work", UNFINISHED),
        ("a test that does not run", NOT_RUN),
    ],
    ids=["machine-path", "registry", "unfinished", "not-run"],
)
def test_no_forbidden_words(rule: str, pattern: re.Pattern[str]) -> None:
    """No file holds a machine's path, a registry's host, unfinished work or a test that is switched off."""
    assert lines_matching(pattern, prose_and_code()) == [], rule


def test_no_drawers() -> None:
    """No module or folder of the engine and the applications is named after nothing (utils, manager …)."""
    sources = [path for path in FILES if path.suffix in {".py", ".ts", ".tsx"}]
    assert [
        named(path) for path in sources if DRAWERS & {part.split(".")[0] for part in path.relative_to(ROOT).parts}
    ] == []


def test_git_holds_text() -> None:
    """No binary but pictures, and nothing above a megabyte, is in git."""
    large = [named(path) for path in FILES if path.stat().st_size > FILE_BYTES_MAX and path.name not in LOCKS]
    binary = [named(path) for path in FILES if path.suffix not in BINARY and b"\0" in path.read_bytes()[:8192]]
    assert (large, binary) == ([], [])


def test_one_routine_a_file() -> None:
    """Every file of sql/routines creates exactly one routine, view, trigger or policy, and bears its name."""
    wrong = []
    for path in FILES:
        if path.suffix == ".sql" and path.parent.name == "routines":
            created = _CREATES.findall(re.sub(r"\$\$.*?\$\$", "", text_of(path), flags=re.DOTALL))
            if created != [path.stem]:
                wrong.append(f"{named(path)} creates {created}")
    assert wrong == []


def test_migrations_are_frozen() -> None:
    """A merged migration never changes: its hash is in frozen_migrations.txt, and a new one adds its own line."""
    frozen = {name: digest for digest, _, name in (line.partition("  ") for line in text_of(FROZEN).splitlines())}
    now = {
        named(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FILES
        if path.suffix == ".sql" and path.parent.name == "migrations" and "testing" not in path.parts
    }
    changed = [name for name, digest in frozen.items() if now.get(name) != digest]
    missing = [f"{digest}  {name}" for name, digest in sorted(now.items()) if name not in frozen]
    assert (changed, missing) == ([], []), "write a new migration instead; add the line of a new one"
